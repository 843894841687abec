//! One descriptor's registration.
//!
//! A watch is armed for one report: it waits in its strand's queue (PENDING), its handler runs, and only then the kernel is
//! armed again. Or, while one thread turns the loop, it is armed by level and stays so (LEVEL): nobody polls beside the
//! handler, and what is reported once more is dropped. Either way a handler which read a part is called again, and
//! readiness which was ignored (paused, stopped) is reported again by the next arming.
//!
//! Every change goes the same way: first the watch's word, under its strand's mutex; then the kernel, under the lock of
//! its number (`arming.rs` reads the word there, so the last to tell the kernel tells it the latest); then,
//! if the caller may wait, the handler that is inside. `docs/design/watch.md` names the races.

mod adding;
mod arming;
mod delivery;
mod ending;

use std::os::fd::RawFd;

use crate::Payload;
use crate::counters::Counted;
use crate::poller::{Events, Mode as PollMode};
use crate::slots::Token;
use crate::state::RemovalReason;
use crate::state::watch::{LEVEL, PAUSED, PENDING, REMOVED};
use crate::strand::{Body, Inside, Strand};
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, thread_number};

pub(crate) use self::delivery::{Dispatch, Noted};

/// One descriptor's registration. Made by [`add`](crate::EventLoop::add).
pub struct Watch<P: Payload> {
    fd: RawFd,
    token: Token,
    strand: Arc<Strand<P>>,
    /// The strand was made for it and ends with it; another watch may sit there too.
    own_strand: bool,
    /// The flags of `state::watch`. GUARDED BY `strand.body`; atomic only so that it can be shared.
    word: AtomicU32,
    /// What to report. GUARDED BY `strand.body`.
    interest: AtomicU32,
    /// What was reported and not yet delivered. GUARDED BY `strand.body`.
    pending: AtomicU32,
    /// A `RemovalReason`, with REMOVED. GUARDED BY `strand.body`.
    reason: AtomicU8,
    /// Handlers that ended without a word to the kernel. GUARDED BY `strand.body`.
    unchecked: AtomicU8,
    /// The thread that is ending it or holds its `Finished`, 0 for none: whoever waits for the end of the watch waits for
    /// the paying too. GUARDED BY `strand.body`.
    payer: AtomicU64,
    _counted: Counted,
}

/// A watch that has ended: its payload, and whatever is owed to it, go back to the seam, exactly once. Whoever waits for
/// the watch to end waits until this is dropped.
#[must_use]
pub struct Finished<P: Payload> {
    /// The watch.
    pub watch: Arc<Watch<P>>,
    /// What the loop carried for it; to be taken.
    pub payload: Option<P>,
    /// Why it ended.
    pub reason: RemovalReason,
}

impl<P: Payload> Drop for Finished<P> {
    fn drop(&mut self) {
        let strand = &self.watch.strand;
        let body = strand.body.lock();
        self.watch.payer.store(0, Ordering::Relaxed);
        strand.vacated.notify_all();
        drop(body);
    }
}

/// A watch just registered, and the one it displaced.
pub type Added<P> = (Arc<Watch<P>>, Option<Finished<P>>);

/// Who is inside a watch's handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occupant {
    /// Nobody: nothing of it runs, and nothing starts.
    Nobody,
    /// The calling thread.
    Me,
    /// Another thread.
    Other,
}

/// What the loop keeps for a registered watch.
pub(crate) struct Record<P: Payload> {
    pub(crate) watch: Arc<Watch<P>>,
    pub(crate) payload: P,
}

impl<P: Payload> Watch<P> {
    /// The descriptor's number.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Its token, unique in its loop.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The strand that its handler runs on.
    pub fn strand(&self) -> &Arc<Strand<P>> {
        &self.strand
    }

    /// What it reports.
    pub fn interest(&self) -> Events {
        Events(self.interest.load(Ordering::Relaxed))
    }

    /// Whether its events are held back.
    pub fn paused(&self) -> bool {
        self.word.load(Ordering::Relaxed) & PAUSED != 0
    }

    /// Why it was removed, if it was.
    pub fn removed(&self) -> Option<RemovalReason> {
        // ORDER: Acquire; pairs with the Release in `EventLoop::end_watch`, which stores the reason first.
        (self.word.load(Ordering::Acquire) & REMOVED != 0).then(|| self.reason())
    }

    fn reason(&self) -> RemovalReason {
        match self.reason.load(Ordering::Relaxed) {
            1 => RemovalReason::Removed,
            2 => RemovalReason::FdGone,
            3 => RemovalReason::HandlerError,
            4 => RemovalReason::StrandClosed,
            _ => RemovalReason::LoopClosed,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.word.load(Ordering::Relaxed) & flag != 0
    }

    fn set(&self, flag: u32) {
        self.write_word(self.word.load(Ordering::Relaxed) | flag);
    }

    fn unset(&self, flag: u32) {
        self.write_word(self.word.load(Ordering::Relaxed) & !flag);
    }

    /// Under the strand's mutex, so that nobody else writes between the load and the store.
    fn write_word(&self, word: u32) {
        // ORDER: Release; publishes `reason` to `removed`. Everything else is ordered by the strand's mutex.
        self.word.store(word, Ordering::Release);
    }

    /// Whether it may be reported: armed, of whichever kind.
    fn wanted(&self, body: &Body<P>) -> bool {
        !self.has(PAUSED | PENDING | REMOVED) && body.inside != Inside::Watch(self.token)
    }

    /// How the kernel has it armed, or is just being told to.
    pub(crate) fn armed(&self) -> (Events, PollMode) {
        let body = self.strand.body.lock();
        if self.has(LEVEL) {
            (self.interest(), PollMode::Level)
        } else if self.wanted(&body) {
            (self.interest(), PollMode::OneShot)
        } else {
            (Events::NONE, PollMode::OneShot)
        }
    }

    /// Whether the watch cannot be handed out for its end yet: whoever is inside uses what it watches, and hands it out when
    /// he leaves. That is its handler, or, where the strand is its own, a timer on another thread.
    pub(crate) fn in_use(&self, body: &Body<P>) -> bool {
        match body.inside {
            Inside::Watch(token) => token == self.token,
            Inside::Timer => self.own_strand && body.thread != thread_number(),
            Inside::Nobody | Inside::Message => false,
        }
    }

    /// Who is inside, as far as `remove` and `pause` have to know. The strand of its own ends with the watch, so after a
    /// removal its timers count too.
    fn occupant(&self, body: &Body<P>) -> Occupant {
        let inside = match body.inside {
            Inside::Watch(token) => token == self.token,
            Inside::Timer => self.own_strand && self.has(REMOVED),
            Inside::Nobody | Inside::Message => false,
        };
        let thread = if inside { body.thread } else { self.payer.load(Ordering::Relaxed) };
        match thread {
            0 => Occupant::Nobody,
            thread if thread == thread_number() => Occupant::Me,
            _ => Occupant::Other,
        }
    }
}
