//! Deadlines: a heap of (when, sequence, token) over a table of timers.
//!
//! Cancelling takes the payload out at once and leaves the heap's entry behind; when more than half of the heap is dead
//! it is rebuilt, as asyncio does, so a million timeouts that are set and cancelled hold no memory. A timer on a strand
//! is also a link of that strand's chain, so that closing a strand finds its timers without looking at all others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::hub::{Lead, Wake};
use crate::post::Refused;
use crate::slots::{Slots, Token};
use crate::state::Mode;
use crate::strand::Strand;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// A heap smaller than this is never rebuilt.
const REBUILD: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the heap.
    Waiting,
    /// Its deadline has passed; it is queued to run, once.
    Due,
    /// Its callback runs. Only a periodic one: one that runs once has left the table.
    Running,
}

struct Timer<P: Payload> {
    when: u64,
    /// Breaks ties: first set, first run. Also tells a live heap entry from the dead one of an earlier deadline.
    sequence: u64,
    /// Nanoseconds between two runs; None: once.
    interval: Option<u64>,
    strand: Option<Arc<Strand<P>>>,
    payload: P,
    state: State,
    /// The neighbours in the chain of the strand's timers.
    previous: Token,
    next: Token,
    _counted: Counted,
}

/// A timer whose deadline has passed.
pub(crate) struct Due<P: Payload> {
    pub(crate) token: Token,
    pub(crate) strand: Option<Arc<Strand<P>>>,
}

/// All timers of one loop. Guarded by the loop.
pub(crate) struct Timers<P: Payload> {
    slots: Slots<Timer<P>>,
    heap: BinaryHeap<Reverse<(u64, u64, Token)>>,
    waiting: usize,
    sequence: u64,
}

impl<P: Payload> Timers<P> {
    pub(crate) fn new() -> Self {
        Self { slots: Slots::default(), heap: BinaryHeap::new(), waiting: 0, sequence: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Sets a timer; says also whether it is now the first to come due.
    pub(crate) fn set(
        &mut self,
        when: u64,
        interval: Option<u64>,
        strand: Option<Arc<Strand<P>>>,
        payload: P,
    ) -> (Token, bool) {
        let first = self.next_due().is_none_or(|next| when < next);
        self.sequence += 1;
        let sequence = self.sequence;
        let token = self.slots.insert(|_| Timer {
            when,
            sequence,
            interval,
            strand: strand.clone(),
            payload,
            state: State::Waiting,
            previous: Token::NONE,
            next: Token::NONE,
            _counted: Counted::new(Kind::Timers),
        });
        if let Some(strand) = strand {
            let next = Token(strand.timers.swap(token.0, Ordering::Relaxed));
            if let Some(neighbour) = self.slots.get_mut(next) {
                neighbour.previous = token;
            }
            if let Some(timer) = self.slots.get_mut(token) {
                timer.next = next;
            }
        }
        self.push(when, sequence, token);
        (token, first)
    }

    fn push(&mut self, when: u64, sequence: u64, token: Token) {
        self.heap.push(Reverse((when, sequence, token)));
        self.waiting += 1;
    }

    /// Ends a timer that has not run for the last time. The payload is the caller's to drop, under no lock.
    pub(crate) fn cancel(&mut self, token: Token) -> Option<P> {
        let timer = self.slots.remove(token)?;
        if timer.state == State::Waiting {
            self.waiting -= 1;
        }
        if let Some(strand) = &timer.strand {
            match self.slots.get_mut(timer.previous) {
                Some(neighbour) => neighbour.next = timer.next,
                None => strand.timers.store(timer.next.0, Ordering::Relaxed),
            }
            if let Some(neighbour) = self.slots.get_mut(timer.next) {
                neighbour.previous = timer.previous;
            }
        }
        let dead = self.heap.len() - self.waiting;
        if dead > REBUILD && dead > self.heap.len() / 2 {
            self.rebuild();
        }
        Some(timer.payload)
    }

    fn rebuild(&mut self) {
        let slots = &self.slots;
        self.heap.retain(|Reverse((_, sequence, token))| Self::live(slots, *token, *sequence));
        self.heap.shrink_to(2 * self.heap.len());
    }

    fn live(slots: &Slots<Timer<P>>, token: Token, sequence: u64) -> bool {
        slots.get(token).is_some_and(|timer| timer.state == State::Waiting && timer.sequence == sequence)
    }

    /// Cancels every timer of a strand.
    pub(crate) fn cancel_all(&mut self, strand: &Strand<P>) -> Vec<P> {
        let mut payloads = Vec::new();
        loop {
            let head = Token(strand.timers.load(Ordering::Relaxed));
            match self.cancel(head) {
                Some(payload) => payloads.push(payload),
                None => return payloads,
            }
        }
    }

    /// When the next one comes due.
    pub(crate) fn next_due(&mut self) -> Option<u64> {
        while let Some(Reverse((when, sequence, token))) = self.heap.peek().copied() {
            if Self::live(&self.slots, token, sequence) {
                return Some(when);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes every timer whose deadline has passed off the heap, in order.
    pub(crate) fn take_due(&mut self, now: u64, due: &mut Vec<Due<P>>) {
        while self.next_due().is_some_and(|when| when <= now) {
            let Some(Reverse((_, _, token))) = self.heap.pop() else { return };
            let Some(timer) = self.slots.get_mut(token) else { return };
            timer.state = State::Due;
            self.waiting -= 1;
            due.push(Due { token, strand: timer.strand.clone() });
        }
    }

    /// The thread that runs it takes the payload; None if it was cancelled meanwhile.
    pub(crate) fn begin(&mut self, token: Token) -> Option<P> {
        let timer = self.slots.get_mut(token)?;
        if timer.interval.is_some() {
            timer.state = State::Running;
            Some(timer.payload.duplicate())
        } else {
            self.cancel(token)
        }
    }

    /// A periodic timer's callback has ended: its next deadline is at the fixed rate, with missed ticks collapsed into
    /// one, or `gap` from now. Returns whether it is now the first to come due.
    pub(crate) fn rearm(&mut self, token: Token, now: u64, gap: Option<u64>) -> bool {
        let first = self.next_due();
        let Some(timer) = self.slots.get_mut(token) else { return false };
        let Some(interval) = timer.interval else { return false };
        if timer.state != State::Running {
            return false;
        }
        self.sequence += 1;
        timer.state = State::Waiting;
        timer.sequence = self.sequence;
        timer.when = match gap {
            Some(gap) => now.saturating_add(gap),
            None => {
                let missed = now.saturating_sub(timer.when) / interval.max(1);
                timer.when.saturating_add(interval.saturating_mul(missed + 1))
            }
        };
        let (when, sequence) = (timer.when, timer.sequence);
        self.push(when, sequence, token);
        first.is_none_or(|next| when < next)
    }

    /// Its deadline, if it is set.
    pub(crate) fn when(&self, token: Token) -> Option<u64> {
        self.slots.get(token).map(|timer| timer.when)
    }

    /// Every timer's deadline, interval and payload, in order.
    pub(crate) fn views(&self) -> Vec<(u64, Option<u64>, P)> {
        let mut views: Vec<_> =
            self.slots.iter().map(|(_, timer)| (timer.when, timer.interval, timer.payload.duplicate())).collect();
        views.sort_by_key(|(when, ..)| *when);
        views
    }

    /// Every payload, for the collector.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = &P> {
        self.slots.iter().map(|(_, timer)| &timer.payload)
    }

    /// Every timer's token.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.slots.iter().map(|(token, _)| token).collect()
    }
}

impl<P: Payload> EventLoop<P> {
    /// Sets a timer for a time of the loop's clock, on a strand or on one of its own.
    pub fn set_timer(
        &self,
        when: u64,
        interval: Option<u64>,
        strand: Option<&Arc<Strand<P>>>,
        payload: P,
    ) -> Result<Token, Refused<P>> {
        if let Err(error) = self.check_open() {
            return Err(Refused { error, payload: Some(payload) });
        }
        let (token, first) = match strand {
            None => self.timers.lock().set(when, interval, None, payload),
            Some(strand) => {
                let body = strand.body.lock();
                if body.word.mode != Mode::Open {
                    drop(body);
                    return Err(Refused { error: Error::StrandClosed, payload: Some(payload) });
                }
                // Under the strand's lock: a strand that closes now finds the timer in its chain.
                self.timers.lock().set(when, interval, Some(strand.clone()), payload)
            }
        };
        if first {
            self.wake_poller();
        }
        Ok(token)
    }

    /// Ends a timer; its payload is freed before this returns. False if it had run or was cancelled.
    pub fn cancel_timer(&self, token: Token, strand: Option<&Arc<Strand<P>>>) -> bool {
        let payload = self.timers.lock().cancel(token);
        let cancelled = payload.is_some();
        drop(payload);
        if let Some(strand) = strand {
            self.settle_strand(strand, strand.body.lock());
        }
        cancelled
    }

    /// A timer's next deadline; None if it is not set.
    pub fn timer_when(&self, token: Token) -> Option<u64> {
        self.timers.lock().when(token)
    }

    /// Makes the leader come out of the poller and look. One that is not in it, or is on its way out, looks anyhow: it
    /// asks for the next deadline, and the time, after it has said that it polls.
    pub fn wake_poller(&self) {
        let mut hub = self.hub.lock();
        let wake = match hub.lead {
            Lead::Polling { blocking: true, .. } if !hub.poller_woken => {
                hub.poller_woken = true;
                Wake::Poller
            }
            _ => Wake::Nobody,
        };
        drop(hub);
        self.wake(wake);
    }

    /// Every timer's deadline and interval in nanoseconds and its payload, in order.
    pub fn timer_views(&self) -> Vec<(u64, Option<u64>, P)> {
        self.timers.lock().views()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Name(&'static str);

    impl Payload for Name {
        fn duplicate(&self) -> Self {
            Self(self.0)
        }
    }

    fn due(timers: &mut Timers<Name>, now: u64) -> Vec<Token> {
        let mut due = Vec::new();
        timers.take_due(now, &mut due);
        due.into_iter().map(|due| due.token).collect()
    }

    #[test]
    fn timers_of_the_same_deadline_come_due_in_the_order_they_were_set() {
        let mut timers = Timers::new();
        let tokens: Vec<_> = ["a", "b", "c"].map(|name| timers.set(5, None, None, Name(name)).0).to_vec();
        assert_eq!(due(&mut timers, 4), []);
        assert_eq!(due(&mut timers, 5), tokens);
    }

    #[test]
    fn a_cancelled_timer_gives_its_payload_back_at_once_and_never_comes_due() {
        let mut timers = Timers::new();
        let (token, _) = timers.set(5, None, None, Name("a"));
        assert_eq!(timers.cancel(token), Some(Name("a")));
        assert_eq!(timers.cancel(token), None);
        assert_eq!(due(&mut timers, 9), []);
    }

    #[test]
    fn a_cancelled_timer_that_was_due_does_not_run() {
        let mut timers = Timers::new();
        let (token, _) = timers.set(5, None, None, Name("a"));
        assert_eq!(due(&mut timers, 5), [token]);
        assert!(timers.cancel(token).is_some());
        assert_eq!(timers.begin(token), None);
    }

    #[test]
    fn ticks_that_were_missed_collapse_into_one_and_the_rate_stays() {
        let mut timers = Timers::new();
        let (token, _) = timers.set(10, Some(10), None, Name("tick"));
        assert_eq!(due(&mut timers, 47), [token]);
        assert!(timers.begin(token).is_some());
        timers.rearm(token, 47, None);
        assert_eq!(timers.when(token), Some(50));
    }

    #[test]
    fn a_heap_of_dead_entries_is_rebuilt() {
        let mut timers = Timers::new();
        timers.set(1, None, None, Name("keeper"));
        for n in 0..10_000 {
            let (token, _) = timers.set(100 + n, None, None, Name("t"));
            timers.cancel(token);
        }
        assert!(timers.heap.len() <= 2 * REBUILD + 2, "{} entries", timers.heap.len());
    }
}
