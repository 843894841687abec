//! The poller to use: `epoll`, one instance shared by all threads of a loop.
//!
//! * The kernel keeps the interest: a change is one `epoll_ctl`, seen by the wait in progress without any wake-up.
//! * It is keyed by (number, open file). A duplicate of a closed descriptor keeps firing and cannot be removed any
//!   more; a number that was reused answers ENOENT. The loop's tokens and its table of owners deal with both.
//! * Timeouts are whole milliseconds, rounded up by rustix. Nanoseconds (`epoll_pwait2`) exist, but rustix chooses
//!   between the two calls at compile time, and older seccomp profiles answer the newer one with EPERM: it would
//!   need a second system call to fall back on, for a precision that timers of a loop do not promise.
//! * A set of registrations that cannot be removed any more is left behind as a whole: `renew` makes a new one and gives
//!   it the old one's number.
//! * The eventfd that wakes is registered edge-triggered and is never read: each write is a new edge.

use std::mem::MaybeUninit;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags};
use rustix::io::{DupFlags, Errno, dup3, retry_on_intr};

use super::descriptor::{OwnDescriptor, borrow, timespec};
use super::wake::Wake;
use super::{Events, MAX_EVENTS, Mode, PollError, PollEvent, Poller, Registration};

/// The token of the eventfd; the loop's own tokens never have all bits set.
const WAKE: u64 = u64::MAX;

/// The longest wait that `epoll_wait` can express, 24 days; beyond it rustix would change the system call.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

pub(super) struct Epoll {
    epoll: OwnDescriptor,
    wake: Wake,
}

impl Epoll {
    pub(super) fn open() -> Result<Self, PollError> {
        let wake = Wake::open()?;
        Ok(Self { epoll: OwnDescriptor::new(Self::create(&wake)?), wake })
    }

    /// A set with nothing in it but the eventfd.
    fn create(wake: &Wake) -> Result<OwnedFd, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, wake, EventData::new_u64(WAKE), EventFlags::IN | EventFlags::ET)?;
        Ok(epoll)
    }

    /// Is anything ready, the eventfd included? An epoll descriptor is readable then.
    fn is_readable(&self) -> Result<bool, Errno> {
        let now = timespec(Some(Duration::ZERO));
        let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
        Ok(retry_on_intr(|| rustix::event::poll(&mut fds, now.as_ref()))? > 0)
    }
}

impl Poller for Epoll {
    fn add(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        debug_assert_ne!(token, WAKE);
        Ok(epoll::add(&self.epoll, borrow(fd)?, EventData::new_u64(token), flags(events, mode))?)
    }

    fn modify(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        debug_assert_ne!(token, WAKE);
        let data = EventData::new_u64(token);
        match epoll::modify(&self.epoll, borrow(fd)?, data, flags(events, mode)) {
            // A file that cannot be polled has the number now, so what was registered is gone.
            Err(Errno::PERM) => Err(PollError::Missing),
            other => Ok(other?),
        }
    }

    fn disarm(&self, fd: RawFd, token: u64) -> Result<(), PollError> {
        // An empty mask would still report a hang-up at every wait, for ever; ONESHOT reports it once at most.
        self.modify(fd, token, Events::NONE, Mode::OneShot)
    }

    fn level_pays(&self) -> bool {
        true
    }

    fn has_edges(&self) -> bool {
        true
    }

    fn renew(&self, wanted: &[Registration]) -> Result<(), PollError> {
        let fresh = Self::create(&self.wake)?;
        for &Registration { fd, token, events, mode } in wanted {
            // The number may belong to a file by now that nobody registered: only the old set knows.
            if self.modify(fd, token, events, mode).is_ok() {
                epoll::add(&fresh, borrow(fd)?, EventData::new_u64(token), flags(events, mode))?;
            }
        }
        // The same number: it is remembered for a forked child, and other threads are about to use it.
        self.epoll.replace(|old| retry_on_intr(|| dup3(&fresh, old, DupFlags::CLOEXEC)))?;
        Ok(())
    }

    fn delete(&self, fd: RawFd) -> Result<(), PollError> {
        match epoll::delete(&self.epoll, borrow(fd)?) {
            Err(Errno::BADF | Errno::PERM) => Err(PollError::Missing),
            other => Ok(other?),
        }
    }

    fn wait(&self, out: &mut Vec<PollEvent>, timeout: Option<Duration>) -> Result<usize, PollError> {
        let timeout = timespec(timeout.map(|timeout| timeout.min(LONGEST)));
        let mut buffer = [const { MaybeUninit::<epoll::Event>::uninit() }; MAX_EVENTS];
        let ready = match epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let before = out.len();
        for event in ready {
            // Copied out: the kernel's struct is packed.
            let (flags, data) = (event.flags, event.data);
            match data.u64() {
                // The edge is consumed by now, which is what "emptied before the bit is cleared" means here.
                WAKE => self.wake.settle(),
                token => out.push(PollEvent { token, events: reported(flags) }),
            }
        }
        Ok(out.len() - before)
    }

    fn ready(&self) -> Result<bool, PollError> {
        let look = || self.is_readable().map_err(PollError::from);
        if !self.wake.is_pending() || !look()? {
            return look();
        }
        // A wake is on the ready list too and hides whether anything else is. Mask it, look, and put it back, which
        // reports it again, since the eventfd is readable: the wake is not lost, whoever is waiting now.
        let mask = |flags| {
            let changed = epoll::modify(&self.epoll, &self.wake, EventData::new_u64(WAKE), flags);
            changed.map_err(PollError::from)
        };
        mask(EventFlags::empty())?;
        let ready = look();
        mask(EventFlags::IN | EventFlags::ET)?;
        ready
    }

    fn wake(&self) {
        self.wake.signal();
    }

    fn raw_fds(&self) -> [RawFd; 2] {
        [self.epoll.raw(), self.wake.raw()]
    }

    fn name(&self) -> &'static str {
        super::PollerKind::Epoll.name()
    }
}

/// What the kernel is asked for. HANGUP, ERROR and GONE cannot be asked for: they come by themselves, or never.
fn flags(events: Events, mode: Mode) -> EventFlags {
    let mut flags = match mode {
        Mode::Level => EventFlags::empty(),
        Mode::OneShot => EventFlags::ONESHOT,
        Mode::Edge => EventFlags::ET,
    };
    flags.set(EventFlags::IN, events.contains(Events::READ));
    flags.set(EventFlags::OUT, events.contains(Events::WRITE));
    flags.set(EventFlags::PRI, events.contains(Events::PRIORITY));
    flags.set(EventFlags::RDHUP, events.contains(Events::END));
    flags
}

fn reported(flags: EventFlags) -> Events {
    [
        (EventFlags::IN, Events::READ),
        (EventFlags::OUT, Events::WRITE),
        (EventFlags::PRI, Events::PRIORITY),
        (EventFlags::HUP, Events::HANGUP),
        (EventFlags::ERR, Events::ERROR),
        (EventFlags::RDHUP, Events::END),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(Events::NONE, |events, (_, event)| events | event)
}
