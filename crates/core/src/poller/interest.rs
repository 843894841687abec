//! What `poll` and `select` have in common: the interest, kept in user space.
//!
//! A wait is three steps. `begin` copies what is armed under the mutex; the system call runs without it; `finish`
//! takes the answers back under it. In between anything may have changed, so every registration has a *change*
//! number, new at each change, and an answer counts only if the number is the one it was asked with. Dropping an
//! answer loses nothing: the condition is a level and is seen again by the next wait, which every change of a wait in
//! progress starts at once by waking it.
//!
//! The kernel forgets a closed descriptor for epoll; here nobody does. So each registration remembers which file its
//! number was (`Identity`), and an answer is believed only if the number still is that file: otherwise it is GONE,
//! once, and the registration is dropped. A change finds the same and answers `Missing`.
//!
//! While a system call waits, the kernel holds the files that it was asked about, closed or not. So `delete` returns when the wait
//! in progress is over: a port whose listener is closed then is free, and a connection ends at its other end too.
//!
//! Lock: one mutex, held for the copying only. In a forked child it may be locked for ever: nothing of a child takes it.

use crate::sync::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::descriptor::Identity;
use super::wake::Wake;
use super::{Events, MAX_EVENTS, Mode, PollError, PollEvent};

/// How long a delete waits for a wait that was woken, at the most.
const PATIENCE: Duration = Duration::from_secs(1);

struct Registration {
    token: u64,
    events: Events,
    once: bool,
    armed: bool,
    change: u64,
    identity: Identity,
}

#[derive(Default)]
struct State {
    registrations: BTreeMap<RawFd, Registration>,
    changes: u64,
    /// A wait is between `begin` and `finish`: a change must wake it.
    waiting: bool,
    /// How many waits are over.
    waits: u64,
    /// The number reported last: the next wait begins behind it, so that a low number that is always ready does
    /// not keep the others out of a full batch.
    last: RawFd,
}

impl State {
    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    fn armed(&self) -> Vec<Wanted> {
        let behind = self.registrations.range((Excluded(self.last), Unbounded));
        let before = self.registrations.range(..=self.last);
        behind
            .chain(before)
            .filter(|(_, registration)| registration.armed)
            .map(|(&fd, registration)| Wanted { fd, events: registration.events, change: registration.change })
            .collect()
    }
}

/// One number as the system call is asked about it.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) fd: RawFd,
    pub(super) events: Events,
    change: u64,
}

pub(super) struct Interest {
    state: Mutex<State>,
    /// A wait is over. Waited for under `state`.
    over: Condvar,
    pub(super) wake: Wake,
}

impl Interest {
    pub(super) fn open() -> Result<Self, PollError> {
        Ok(Self { state: Mutex::default(), over: Condvar::new(), wake: Wake::open()? })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under it (out of memory) leaves whole entries: there is nothing to be poisoned.
        self.state.lock()
    }

    pub(super) fn add(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        let identity = Identity::of_pollable(fd)?;
        let mut state = self.lock();
        if state.registrations.get(&fd).is_some_and(|old| old.identity == identity) {
            return Err(PollError::Exists);
        }
        let change = state.next_change();
        let once = mode != Mode::Level;
        let registration = Registration { token, events, once, armed: true, change, identity };
        state.registrations.insert(fd, registration);
        self.changed(state);
        Ok(())
    }

    pub(super) fn modify(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        self.change(fd, |registration| {
            registration.token = token;
            registration.events = events;
            registration.once = mode != Mode::Level;
            registration.armed = true;
        })
    }

    pub(super) fn disarm(&self, fd: RawFd, token: u64) -> Result<(), PollError> {
        self.change(fd, |registration| {
            registration.token = token;
            registration.armed = false;
        })
    }

    pub(super) fn delete(&self, fd: RawFd) -> Result<(), PollError> {
        if fd < 0 {
            return Err(PollError::BadDescriptor);
        }
        let identity = Identity::of(fd);
        let mut state = self.lock();
        let removed = state.registrations.remove(&fd).ok_or(PollError::Missing)?;
        if state.waiting {
            // Its wait ends by itself, without the interpreter and without any other lock; not if somebody has closed the
            // eventfd, so nobody waits for that for ever.
            let (wait, patience) = (state.waits, Instant::now() + PATIENCE);
            self.wake.signal();
            while state.waits == wait && Instant::now() < patience {
                state = self.over.wait(state, Some(PATIENCE));
            }
        }
        drop(state);
        if identity == Ok(removed.identity) { Ok(()) } else { Err(PollError::Missing) }
    }

    fn change(&self, fd: RawFd, apply: impl FnOnce(&mut Registration)) -> Result<(), PollError> {
        let identity = Identity::of(fd);
        let mut state = self.lock();
        let change = state.next_change();
        let done = match (state.registrations.get_mut(&fd), identity) {
            (Some(registration), Ok(identity)) if registration.identity == identity => {
                registration.change = change;
                apply(registration);
                Ok(())
            }
            // Closed or reused: the caller hears it now, so that no GONE has to follow.
            (_, identity) => {
                state.registrations.remove(&fd);
                identity.and(Err(PollError::Missing))
            }
        };
        self.changed(state);
        done
    }

    fn changed(&self, state: MutexGuard<'_, State>) {
        let waiting = state.waiting;
        drop(state);
        if waiting {
            self.wake.signal();
        }
    }

    /// What a wait that starts now has to ask for. `finish` must follow, whatever the system call answers.
    pub(super) fn begin(&self) -> Vec<Wanted> {
        let mut state = self.lock();
        state.waiting = true;
        state.armed()
    }

    /// What a wait would ask for, for a look beside it.
    pub(super) fn peek(&self) -> Vec<Wanted> {
        self.lock().armed()
    }

    /// Turn a system call's answers into reports; returns how many. An empty answer stands for "look whether the
    /// number still is what it was".
    pub(super) fn finish(
        &self,
        answers: impl IntoIterator<Item = (Wanted, Events)>,
        out: &mut Vec<PollEvent>,
    ) -> usize {
        let before = out.len();
        let mut state = self.lock();
        state.waiting = false;
        state.waits += 1;
        self.over.notify_all();
        for (wanted, events) in answers {
            if out.len() - before == MAX_EVENTS {
                break;
            }
            if let Some(event) = state.report(wanted, events) {
                state.last = wanted.fd;
                out.push(event);
            }
        }
        out.len() - before
    }
}

impl State {
    fn report(&mut self, wanted: Wanted, events: Events) -> Option<PollEvent> {
        let registration = self.registrations.get_mut(&wanted.fd)?;
        if registration.change != wanted.change {
            return None;
        }
        let token = registration.token;
        if Identity::of(wanted.fd) != Ok(registration.identity) {
            self.registrations.remove(&wanted.fd);
            return Some(PollEvent { token, events: Events::GONE });
        }
        if events.is_empty() {
            return None;
        }
        if registration.once {
            registration.armed = false;
        }
        Some(PollEvent { token, events })
    }
}

#[cfg(test)]
mod tests {
    //! What can change between `begin` and `finish`, forced: the places a test through the trait cannot stop at.

    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn registered() -> (Interest, UnixStream, RawFd) {
        let interest = Interest::open().unwrap();
        let (near, _) = UnixStream::pair().unwrap();
        let fd = near.as_raw_fd();
        interest.add(fd, 1, Events::READ, Mode::Level).unwrap();
        (interest, near, fd)
    }

    fn finish(interest: &Interest, asked: &[Wanted]) -> Vec<PollEvent> {
        let mut out = Vec::new();
        interest.finish(asked.iter().map(|&wanted| (wanted, Events::READ)), &mut out);
        out
    }

    #[test]
    fn an_answer_asked_for_before_a_disarm_is_dropped() {
        let (interest, _near, fd) = registered();
        let asked = interest.begin();
        interest.disarm(fd, 1).unwrap();
        assert_eq!(finish(&interest, &asked), []);
    }

    #[test]
    fn an_answer_asked_for_before_a_delete_and_an_add_does_not_reach_the_new_token() {
        let (interest, _near, fd) = registered();
        let asked = interest.begin();
        std::thread::scope(|scope| {
            let deleting = scope.spawn(|| interest.delete(fd));
            while !interest.peek().is_empty() {
                std::thread::yield_now();
            }
            interest.add(fd, 2, Events::READ, Mode::Level).unwrap();
            assert_eq!(finish(&interest, &asked), []);
            deleting.join().unwrap().unwrap();
        });
        let asked = interest.begin();
        assert_eq!(finish(&interest, &asked), [PollEvent { token: 2, events: Events::READ }]);
    }

    #[test]
    fn a_change_wakes_a_wait_in_progress_and_no_other() {
        let (interest, _near, fd) = registered();
        interest.modify(fd, 1, Events::READ, Mode::Level).unwrap();
        assert!(!interest.wake.is_pending());
        let asked = interest.begin();
        interest.modify(fd, 1, Events::READ, Mode::Level).unwrap();
        assert!(interest.wake.is_pending());
        finish(&interest, &asked);
    }
}
