//! The oldest poller: `select`, with the interest in user space (`interest.rs`).
//!
//! Exceptions to the contract, besides those of `poll.rs`:
//! * Numbers from `FD_SETSIZE` (1024) on are refused with `TooLarge`.
//! * There is no HANGUP and no ERROR: three sets are all that comes back. A hang-up is reported as READ, a pending
//!   error as READ and WRITE, and only to a registration that asked for these.

use std::os::fd::RawFd;
use std::time::Duration;

use rustix::event::{FdSetElement, FdSetIter, fd_set_insert, select};
use rustix::io::Errno;

use super::descriptor::{Identity, timespec};
use super::interest::{Interest, Wanted};
use super::{Events, Mode, PollError, PollEvent, Poller};

/// `FD_SETSIZE` of every libc on Linux.
const LIMIT: usize = 1024;
const ELEMENTS: usize = LIMIT / (8 * size_of::<FdSetElement>());

pub(super) struct Select {
    interest: Interest,
}

impl Select {
    pub(super) fn open() -> Result<Self, PollError> {
        let interest = Interest::open()?;
        refuse_large(interest.wake.raw())?;
        Ok(Self { interest })
    }
}

impl Poller for Select {
    fn add(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        refuse_large(fd)?;
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
        let mut sets = Sets::new(&wanted);
        sets.insert(wake.raw(), Events::READ);
        match sets.select(timeout) {
            Ok(answers) => {
                let ready = wanted.iter().map(|&wanted| (wanted, answers.of(wanted.fd)));
                let count = self.interest.finish(ready.filter(|(_, events)| !events.is_empty()), out);
                if !answers.of(wake.raw()).is_empty() {
                    wake.drain();
                }
                Ok(count)
            }
            // Some number is closed; select does not say which, so look at each.
            Err(Errno::BADF) => {
                let suspects = wanted.iter().map(|&wanted| (wanted, Events::NONE));
                let count = self.interest.finish(suspects, out);
                // None of them, and for ever so, if it is the eventfd.
                Identity::of(wake.raw()).map(|_| count)
            }
            Err(error) => {
                self.interest.finish([], out);
                if error == Errno::INTR { Ok(0) } else { Err(error.into()) }
            }
        }
    }

    fn ready(&self) -> Result<bool, PollError> {
        let wanted = self.interest.peek();
        loop {
            match Sets::new(&wanted).select(Some(Duration::ZERO)) {
                Ok(answers) => return Ok(answers.any()),
                Err(Errno::BADF) => return Ok(true), // a wait would report GONE
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wake(&self) {
        self.interest.wake.signal();
    }

    fn raw_fds(&self) -> [RawFd; 2] {
        [self.interest.wake.raw(), -1]
    }

    fn name(&self) -> &'static str {
        super::PollerKind::Select.name()
    }
}

fn refuse_large(fd: RawFd) -> Result<(), PollError> {
    let limit = LIMIT as RawFd;
    if fd < limit { Ok(()) } else { Err(PollError::TooLarge { limit }) }
}

/// The three sets that go in and come back.
struct Sets {
    read: [FdSetElement; ELEMENTS],
    write: [FdSetElement; ELEMENTS],
    priority: [FdSetElement; ELEMENTS],
    /// One more than the largest number in them.
    bound: RawFd,
}

/// What came back, by number.
struct Answers([u8; LIMIT]);

impl Sets {
    fn new(wanted: &[Wanted]) -> Self {
        let empty = [FdSetElement::default(); ELEMENTS];
        let mut sets = Self { read: empty, write: empty, priority: empty, bound: 0 };
        for wanted in wanted {
            sets.insert(wanted.fd, wanted.events);
        }
        sets
    }

    /// Every number here has passed `refuse_large` and is not negative, so that the index is in range.
    fn insert(&mut self, fd: RawFd, events: Events) {
        for (set, event) in
            [(&mut self.read, Events::READ), (&mut self.write, Events::WRITE), (&mut self.priority, Events::PRIORITY)]
        {
            if events.contains(event) {
                fd_set_insert(set, fd);
            }
        }
        self.bound = self.bound.max(fd + 1);
    }

    fn select(mut self, timeout: Option<Duration>) -> Result<Answers, Errno> {
        let timeout = timespec(timeout);
        let (read, write) = (Some(&mut self.read[..]), Some(&mut self.write[..]));
        let priority = Some(&mut self.priority[..]);
        // SAFETY: the demand is that all numbers are open. They were when they were registered; one that is not any
        // more is answered with EBADF, or looked at by `Interest::finish`, and nothing but the question whether it
        // is ready is ever asked of it. The sets are long enough for `bound`.
        unsafe { select(self.bound, read, write, priority, timeout.as_ref()) }?;
        let mut answers = Answers([0; LIMIT]);
        for (set, event) in
            [(&self.read, Events::READ), (&self.write, Events::WRITE), (&self.priority, Events::PRIORITY)]
        {
            for fd in FdSetIter::new(set) {
                answers.0[fd as usize] |= event.bits() as u8;
            }
        }
        Ok(answers)
    }
}

impl Answers {
    fn of(&self, fd: RawFd) -> Events {
        Events(self.0[fd as usize].into())
    }

    fn any(&self) -> bool {
        self.0.iter().any(|&events| events != 0)
    }
}
