//! Registrations that outlive their watch.
//!
//! epoll knows a registration by number and open file. If a descriptor is closed behind the loop's back while a duplicate
//! of it lives, nobody can name the registration any more; armed by level, it is reported at every wait, for ever. The
//! loop cannot see it coming, but it sees the token of a watch that has ended.
//!
//! A watch that was taken out of the kernel can be reported once after its end: by the wait that was in progress.
//! A dead registration that was armed for one report is reported once too. So a token that comes a second time is a
//! dead registration armed by level, and the way to be rid of it is a new set of registrations ([`Poller::renew`]).
//!
//! [`Poller::renew`]: crate::poller::Poller::renew

use crate::Payload;
use crate::event_loop::EventLoop;
use crate::poller::{Events, Mode as PollMode, Registration};
use crate::signal::SIGNAL;
use crate::slots::Token;
use crate::socket::INTEREST;

/// So many different tokens are remembered before the set is made anew without a proof; a batch is 256 at the most.
const STALE: usize = 4096;

impl<P: Payload> EventLoop<P> {
    /// The leader, detached, outside the poller: these were reported after the end of their watch. Says whether one of
    /// them is a dead registration.
    pub(crate) fn suspect(&self, tokens: &[Token]) -> bool {
        let mut hub = self.hub.lock();
        let mut dead = false;
        for token in tokens {
            dead |= !hub.stale.insert(*token);
        }
        dead |= hub.stale.len() >= STALE;
        if dead {
            hub.stale.clear();
        }
        dead
    }

    /// The leader, detached, outside the poller: leaves every dead registration behind.
    pub(crate) fn renew_poller(&self) {
        let numbers = self.numbers.lock_all();
        let wanted: Vec<_> = numbers.owned().filter_map(|(fd, token)| self.registration(fd, token)).collect();
        // Without a descriptor or memory to spare the dead go on being reported, and this is tried again.
        _ = self.poller().renew(&wanted);
    }

    /// What the kernel is to know of a number. No flag is written here, so that nothing is lost if the poller refuses.
    fn registration(&self, fd: i32, token: Token) -> Option<Registration> {
        let (events, mode) = match token {
            Token(SIGNAL) => (Events::READ, PollMode::Level),
            token if token.in_table().is_some() => (INTEREST, PollMode::Edge),
            token => self.watch(token)?.armed(),
        };
        Some(Registration { fd, token: token.0, events, mode })
    }
}
