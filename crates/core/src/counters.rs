//! How many of each kind of object are alive: the leak line at the end of every test.
//!
//! Plain counters, relaxed: a reader waits until everything has ended, so there is nothing to order.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::fork;

/// The kinds that are counted.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Kind {
    /// [`crate::EventLoop`]
    Loops,
    /// [`crate::Strand`]
    Strands,
    /// [`crate::Watch`]
    Watches,
    /// Timers that are set.
    Timers,
    /// Threads joined to a loop.
    Seats,
    /// [`crate::pool::Pool`]
    Pools,
    /// [`crate::pool::Job`]
    Jobs,
    /// [`crate::Task`]
    Tasks,
    /// [`crate::Socket`]
    Sockets,
    /// [`crate::ring::Ring`]
    Rings,
}

/// Every kind with its name.
pub const KINDS: [(Kind, &str); 10] = [
    (Kind::Loops, "loops"),
    (Kind::Strands, "strands"),
    (Kind::Watches, "watches"),
    (Kind::Timers, "timers"),
    (Kind::Seats, "seats"),
    (Kind::Pools, "pools"),
    (Kind::Jobs, "jobs"),
    (Kind::Tasks, "tasks"),
    (Kind::Sockets, "sockets"),
    (Kind::Rings, "rings"),
];

static LIVE: [AtomicI64; 10] = [const { AtomicI64::new(0) }; 10];

/// How many of a kind are alive in this process.
pub fn live(kind: Kind) -> i64 {
    LIVE[kind as usize].load(Ordering::Relaxed)
}

/// A forked child owns nothing of what was alive before.
pub(crate) fn forget_all() {
    for counter in &LIVE {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Counts its owner while it lives.
#[derive(Debug)]
pub(crate) struct Counted {
    kind: Kind,
    epoch: u32,
}

impl Counted {
    pub(crate) fn new(kind: Kind) -> Self {
        LIVE[kind as usize].fetch_add(1, Ordering::Relaxed);
        Self { kind, epoch: fork::epoch() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // What was made before a fork was forgotten by the child: see `forget_all`.
        if self.epoch == fork::epoch() {
            LIVE[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }
}
