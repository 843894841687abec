//! What a loop shows of itself: counts, threads, strands, payloads for the collector, and whether it is idle.

use crate::Payload;
use crate::clock::{Sleeper, Waits};
use crate::event_loop::EventLoop;
use crate::hub::{BUCKETS, Lead, SeatShared};
use crate::slots::Token;
use crate::strand::StrandView;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// Counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Threads that have joined.
    pub joined: usize,
    /// Of these, the parked ones.
    pub parked: usize,
    /// Entries of the run queue.
    pub ready: usize,
    /// Registered watches.
    pub watches: usize,
    /// Timers that are set.
    pub timers: usize,
    /// Handlers run since the loop was made.
    pub handled: u64,
    /// Waits in the poller.
    pub polls: u64,
    /// Threads woken for work.
    pub wakes: u64,
    /// Parked threads woken to watch over the lead.
    pub standbys: u64,
    /// How many handlers took up to 2^i microseconds.
    pub histogram: [u64; BUCKETS],
}

impl<P: Payload> EventLoop<P> {
    /// Whether nothing is queued, ready in the kernel or due, nobody is inside, and every joined thread waits.
    pub fn is_idle(&self) -> bool {
        match self.waits_until() {
            Waits::Busy => false,
            Waits::Nobody => {
                let due = self.timers.lock().next_due().is_some_and(|when| when <= self.clock.now());
                !due && !self.hub.lock().has_ready() && !self.poller().ready().unwrap_or(false)
            }
            Waits::Until(next) => next.is_none_or(|when| when > self.clock.now()),
        }
    }

    /// Counts at this moment.
    pub fn stats(&self) -> Stats {
        let watches = self.watches.lock().len();
        let timers = self.timers.lock().len();
        let hub = self.hub.lock();
        let mut stats = Stats {
            joined: hub.seats.len(),
            parked: hub.parked.len(),
            ready: hub.ready.len() + hub.urgent.len(),
            watches,
            timers,
            handled: hub.handled,
            polls: hub.polls,
            wakes: hub.wakes,
            standbys: hub.standbys,
            histogram: hub.histogram,
        };
        for seat in &hub.seats {
            stats.handled += seat.handled.load(Ordering::Relaxed);
            for (total, own) in stats.histogram.iter_mut().zip(&seat.histogram) {
                *total += own.load(Ordering::Relaxed);
            }
        }
        stats
    }

    /// Threads that have joined.
    pub fn seats(&self) -> Vec<Arc<SeatShared>> {
        self.hub.lock().seats.clone()
    }

    /// Every strand.
    pub fn strand_views(&self) -> Vec<StrandView> {
        let strands: Vec<_> = self.strands.lock().iter().map(|(_, strand)| strand.clone()).collect();
        strands.iter().map(|strand| self.strand_view(strand)).collect()
    }

    /// The payload of every watch.
    pub fn watch_payloads(&self) -> Vec<P> {
        self.watches.lock().iter().filter_map(|(_, record)| Some(record.as_ref()?.payload.duplicate())).collect()
    }

    /// The payload of one watch.
    pub fn watch_payload(&self, token: Token) -> Option<P> {
        self.watches.lock().get(token)?.as_ref().map(|record| record.payload.duplicate())
    }

    /// Shows every payload to the collector. Locks only, so it may run while the interpreter's world is stopped: who
    /// holds a core lock never needs the interpreter to let it go.
    pub fn visit(&self, mut visit: impl FnMut(&P)) {
        for (_, record) in self.watches.lock().iter() {
            if let Some(record) = record {
                visit(&record.payload);
            }
        }
        self.timers.lock().payloads().for_each(&mut visit);
        for (_, strand) in self.strands.lock().iter() {
            strand.body.lock().payloads().for_each(&mut visit);
        }
        let hub = self.hub.lock();
        hub.messages.iter().chain(&hub.urgent).chain(&hub.completions).chain(&hub.terminal).for_each(visit);
    }
}

impl<P: Payload> Sleeper for EventLoop<P> {
    fn clock_moved(&self) {
        self.wake_poller();
    }

    fn waits_until(&self) -> Waits {
        let hub = self.hub.lock();
        if hub.seats.is_empty() {
            return Waits::Nobody;
        }
        let waiting =
            matches!(hub.lead, Lead::Polling { blocking: true, .. }) && hub.parked.len() + 1 == hub.seats.len();
        if !waiting || hub.poller_woken || !hub.quiet() || hub.waking.is_some() {
            return Waits::Busy;
        }
        drop(hub);
        if self.poller().ready().unwrap_or(false) {
            return Waits::Busy;
        }
        Waits::Until(self.timers.lock().next_due())
    }
}
