//! The poller for where there is no epoll: `poll`, with the interest in user space (`interest.rs`).
//!
//! Exceptions to the contract, and what they cost:
//! * A wait costs the number of armed descriptors, ready or not; a change wakes the wait in progress.
//! * A descriptor closed while a wait is in progress, and not deleted, is noticed by the next one (GONE); the file itself is kept
//!   open by the kernel until then. A reuse is told by device and inode, and not seen where these are shared
//!   (`Identity`): there `add` answers `Exists` and the old token is reported.
//! * What cannot be polled is told by the type of file, so that a few that epoll takes (`/proc/self/mounts`) are
//!   refused, and a few that it refuses (`/dev/null`) are taken.
//! * `Mode::Edge` is `Mode::OneShot`.

use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

use super::descriptor::{borrow, timespec};
use super::interest::{Interest, Wanted};
use super::{Events, Mode, PollError, PollEvent, Poller};

pub(super) struct Poll {
    interest: Interest,
}

impl Poll {
    pub(super) fn open() -> Result<Self, PollError> {
        Ok(Self { interest: Interest::open()? })
    }
}

impl Poller for Poll {
    fn add(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        self.interest.add(fd, token, events, mode)
    }

    fn modify(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        self.interest.modify(fd, token, events, mode)
    }

    fn disarm(&self, fd: RawFd, token: u64) -> Result<(), PollError> {
        self.interest.disarm(fd, token)
    }

    fn delete(&self, fd: RawFd) -> Result<(), PollError> {
        self.interest.delete(fd)
    }

    fn wait(&self, out: &mut Vec<PollEvent>, timeout: Option<Duration>) -> Result<usize, PollError> {
        let wake = &self.interest.wake;
        let wanted = self.interest.begin();
        let mut fds = asked(&wanted);
        fds.push(PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN));
        let answered = poll(&mut fds, timespec(timeout).as_ref());
        let woken = fds.pop().map_or(PollFlags::empty(), |last| last.revents());
        let ready = answered.is_ok_and(|count| count > 0);
        let answers = wanted.iter().zip(&fds).filter(|(_, fd)| ready && !fd.revents().is_empty());
        let answers = answers.map(|(&wanted, fd)| (wanted, reported(fd.revents())));
        let count = self.interest.finish(answers, out);
        match answered {
            Err(Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
            Ok(_) if woken.contains(PollFlags::NVAL) => return Err(PollError::BadDescriptor),
            Ok(_) if !woken.is_empty() => wake.drain(),
            Ok(_) => {}
        }
        Ok(count)
    }

    fn ready(&self) -> Result<bool, PollError> {
        let now = timespec(Some(Duration::ZERO));
        let wanted = self.interest.peek();
        let mut fds = asked(&wanted);
        Ok(retry_on_intr(|| poll(&mut fds, now.as_ref()))? > 0)
    }

    fn wake(&self) {
        self.interest.wake.signal();
    }

    fn raw_fds(&self) -> [RawFd; 2] {
        [self.interest.wake.raw(), -1]
    }

    fn name(&self) -> &'static str {
        super::PollerKind::Poll.name()
    }
}

fn asked(wanted: &[Wanted]) -> Vec<PollFd<'static>> {
    let mut fds = Vec::with_capacity(wanted.len() + 1); // one more for the eventfd
    // `borrow` refuses negative numbers only, and none of those was ever registered.
    fds.extend(
        wanted
            .iter()
            .filter_map(|wanted| borrow(wanted.fd).ok().map(|fd| PollFd::from_borrowed_fd(fd, flags(wanted.events)))),
    );
    fds
}

fn flags(events: Events) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, events.contains(Events::READ));
    flags.set(PollFlags::OUT, events.contains(Events::WRITE));
    flags.set(PollFlags::PRI, events.contains(Events::PRIORITY));
    flags
}

/// POLLNVAL comes out empty on purpose: `Interest::finish` looks at the number itself then.
fn reported(flags: PollFlags) -> Events {
    [
        (PollFlags::IN, Events::READ),
        (PollFlags::OUT, Events::WRITE),
        (PollFlags::PRI, Events::PRIORITY),
        (PollFlags::HUP, Events::HANGUP),
        (PollFlags::ERR, Events::ERROR),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(Events::NONE, |events, (_, event)| events | event)
}
