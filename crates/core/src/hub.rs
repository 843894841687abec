//! The run queue, the lead, parking and the loop's life, under one mutex.
//!
//! Of the joined threads at most one waits in the poller: the leader. The others run what is ready or are parked. The
//! lead is one word, [`Lead`]; it is handed over lazily: the leader keeps it while it runs handlers and polls again
//! itself, and a parked thread takes it over only when that has lasted longer than `handover`. So a message costs no
//! wake-up of a second thread, and a handler that blocks costs the others `handover`.
//!
//! Somebody must notice that a handler lasts too long. While the lead is held by a thread that runs handlers, one parked
//! thread, the standby, parks with a time limit and looks. When it finds that nobody has polled between two looks, the
//! loop is idle: it parks without a limit, and the leader wakes a standby the next time it leaves the poller.
//!
//! A lost wake-up cannot happen: everything that makes work is put in under this mutex, and a thread decides to wait
//! under it too, after it has looked. A thread in a condition variable is notified; the one in the poller is woken by a
//! write that stays readable until the poller has returned. See `docs/design/parking.md`.

use std::collections::{HashSet, VecDeque};

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::owned::JobRef;
use crate::slots::Token;
use crate::state::Life;
use crate::strand::Strand;
use crate::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use crate::task::Task;

/// Nanoseconds that the standby adds to `handover` before it looks: one look in that time, not one in `handover`.
/// DESIGN promise: a watch is served within `handover` + 1 ms while a joined thread is idle.
pub(crate) const STANDBY_SLACK: u64 = 500_000;

/// Upper bounds of the handler-time histogram are 2^0 .. 2^(BUCKETS-2) microseconds, then everything above.
pub const BUCKETS: usize = 25;

/// Who waits in the poller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lead {
    /// Nobody; the next thread that has nothing to run takes it.
    Free,
    /// That seat is in the poller, or on its way into it; `blocking` if it waits for longer than zero.
    Polling { seat: u64, blocking: bool },
    /// That seat keeps the lead while it runs what it found; `since` it last polled, in nanoseconds. `aside`: it runs a job.
    Held { seat: u64, since: u64, aside: bool },
}

/// Something to run.
pub(crate) enum Ready<P: Payload> {
    /// A strand with items.
    Strand(Arc<Strand<P>>),
    /// The front of the loop's own messages, each on a strand of its own.
    Message,
    /// The front of the loop's own completions.
    Completion,
    /// A timer on a strand of its own.
    Timer(Token),
    /// A task that shares no strand.
    Task(Arc<Task<P>>),
}

/// What a joined thread shows of itself.
pub struct SeatShared {
    pub(crate) id: u64,
    /// Python's handlers of signals run on this thread.
    pub(crate) main: bool,
    pub(crate) unparked: Condvar,
    /// Whatever the seam needs to name the thread (its identifier in the interpreter).
    pub thread: u64,
    /// Nanoseconds; since when it has been in user code, 0 while it is not.
    pub since: AtomicU64,
    /// How many handlers it has run: tells a long handler from many short ones.
    pub handled: AtomicU64,
    /// The token of the watch whose handler runs, or 0.
    pub watch: AtomicU64,
    /// What the task that runs stands for, or 0. It may be gone by the time that another thread reads this: to be compared,
    /// never followed.
    pub task: AtomicUsize,
    pub(crate) histogram: [AtomicU64; BUCKETS],
    _counted: Counted,
}

impl SeatShared {
    pub(crate) fn new(id: u64, main: bool, thread: u64) -> Self {
        Self {
            id,
            main,
            unparked: Condvar::new(),
            thread,
            since: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            watch: AtomicU64::new(0),
            task: AtomicUsize::new(0),
            histogram: std::array::from_fn(|_| AtomicU64::new(0)),
            _counted: Counted::new(Kind::Seats),
        }
    }
}

/// What the mutex guards.
pub(crate) struct State<P: Payload> {
    pub(crate) life: Life,
    /// Threads that are in `join`.
    pub(crate) seats: Vec<Arc<SeatShared>>,
    /// Of these, the ones that run user code (or are about to, or just have).
    pub(crate) inside: usize,
    pub(crate) lead: Lead,
    /// Waiting for work, the longest parked first; the last is woken first, its caches are warm.
    pub(crate) parked: Vec<Arc<SeatShared>>,
    /// The parked seat that watches over the lead.
    pub(crate) standby: Option<u64>,
    /// A seat that was unparked and has not run yet: at most one is being woken at a time.
    pub(crate) waking: Option<u64>,
    /// The poller was woken since the leader decided to wait.
    pub(crate) poller_woken: bool,
    pub(crate) polls: u64,
    /// Threads woken because there was something to do.
    pub(crate) wakes: u64,
    /// Parked threads woken to watch over the lead.
    pub(crate) standbys: u64,
    pub(crate) ready: VecDeque<Ready<P>>,
    pub(crate) messages: VecDeque<P>,
    pub(crate) urgent: VecDeque<P>,
    pub(crate) completions: VecDeque<P>,
    /// Tokens that were reported after the end of their watch: see `dead`.
    pub(crate) stale: HashSet<Token>,
    /// Runs when the drain has ended, before the loop is stopped.
    pub(crate) terminal: Option<P>,
    /// The signal descriptor was readable: the main thread has to look.
    pub(crate) signal: bool,
    /// Places taken for jobs on a joined thread.
    pub(crate) places: usize,
    /// The jobs that have one.
    pub(crate) in_place: Vec<JobRef>,
    /// For each of these a thread is to take a place. Changed while attached only.
    pub(crate) sent: VecDeque<P>,
    /// How far jobs on joined threads are expected to last: see `aside`.
    pub(crate) impatience: u32,
    /// Threads whose `join` ends when the loop is idle.
    pub(crate) idle_waiters: usize,
    pub(crate) next_seat: u64,
    /// Handlers run and their times, of threads that have left.
    pub(crate) handled: u64,
    pub(crate) histogram: [u64; BUCKETS],
}

/// The mutex, who waits for it to change, and what may be read without it.
pub(crate) struct Hub<P: Payload> {
    pub(crate) state: Mutex<State<P>>,
    /// Somebody left, or the life changed. Waited for under `state`.
    pub(crate) changed: Condvar,
    /// The life as a number, for a look without the mutex; written under it.
    life: AtomicU8,
    /// How many threads are joined, for a look without the mutex; written under it.
    joined: AtomicUsize,
    /// Whether two threads can run user code at the same time.
    pub(crate) parallel: bool,
    /// Nanoseconds after which the lead may be taken from a thread that runs handlers.
    pub(crate) handover: u64,
}

/// Whom to wake, once the mutex is released: see `EventLoop::wake`.
#[must_use]
pub enum Wake {
    /// Somebody who is awake will find the work.
    Nobody,
    /// The leader, out of the poller.
    Poller,
    /// A parked thread.
    Seat(Arc<SeatShared>),
}

impl Wake {
    /// Whether there is a system call to make.
    pub fn needed(&self) -> bool {
        !matches!(self, Self::Nobody)
    }
}

impl<P: Payload> Hub<P> {
    pub(crate) fn new(parallel: bool, handover: u64) -> Self {
        Self {
            state: Mutex::new(State {
                life: Life::Open,
                seats: Vec::new(),
                inside: 0,
                lead: Lead::Free,
                parked: Vec::new(),
                standby: None,
                waking: None,
                poller_woken: false,
                polls: 0,
                wakes: 0,
                standbys: 0,
                impatience: 0,
                ready: VecDeque::new(),
                messages: VecDeque::new(),
                urgent: VecDeque::new(),
                completions: VecDeque::new(),
                stale: HashSet::new(),
                terminal: None,
                signal: false,
                places: 0,
                in_place: Vec::new(),
                sent: VecDeque::new(),
                idle_waiters: 0,
                next_seat: 1,
                handled: 0,
                histogram: [0; BUCKETS],
            }),
            changed: Condvar::new(),
            life: AtomicU8::new(0),
            joined: AtomicUsize::new(0),
            parallel,
            handover,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock()
    }

    /// The life without the mutex: what it was a moment ago.
    pub(crate) fn life(&self) -> Life {
        // ORDER: Acquire; pairs with the Release in `set_life`.
        match self.life.load(Ordering::Acquire) {
            0 => Life::Open,
            1 => Life::Draining,
            2 => Life::Stopped { drained: false },
            3 => Life::Stopped { drained: true },
            _ => Life::Closed,
        }
    }

    pub(crate) fn set_life(&self, state: &mut State<P>, life: Life) {
        state.life = life;
        let number = match life {
            Life::Open => 0,
            Life::Draining => 1,
            Life::Stopped { drained: false } => 2,
            Life::Stopped { drained: true } => 3,
            Life::Closed => 4,
        };
        // ORDER: Release; pairs with the Acquire in `life`.
        self.life.store(number, Ordering::Release);
    }

    /// Counts the seats anew, after one came or went.
    pub(crate) fn count_seats(&self, state: &State<P>) {
        // ORDER: Relaxed; a thread sees its own coming, and `solo` says what an older number does.
        self.joined.store(state.seats.len(), Ordering::Relaxed);
    }

    /// Whether nobody polls beside a running handler, because there is at most one joined thread. What it was a moment
    /// ago: whoever polls beside another has counted himself in first, and finds out for himself.
    pub(crate) fn solo(&self) -> bool {
        self.joined.load(Ordering::Relaxed) <= 1
    }

    /// Everybody has to look at the life again.
    pub(crate) fn wake_all(&self, state: &mut State<P>) -> Wake {
        for seat in &state.parked {
            seat.unparked.notify_one();
        }
        self.changed.notify_all();
        match state.lead {
            Lead::Polling { .. } => Wake::Poller,
            _ => Wake::Nobody,
        }
    }

    /// Whether the lead may be taken from a thread that has held it since then.
    pub(crate) fn overdue(&self, since: u64, now: u64) -> bool {
        self.handover == 0 || now.saturating_sub(since) > self.handover
    }

    /// Work was put in: wakes at most one thread, and none if one that is awake will find it.
    pub(crate) fn wake_for_work(&self, state: &mut State<P>) -> Wake {
        match state.lead {
            Lead::Polling { blocking: true, .. } if !state.poller_woken => {
                state.poller_woken = true;
                state.wakes += 1;
                Wake::Poller
            }
            Lead::Polling { .. } => Wake::Nobody,
            // Where only one thread at a time can run user code, a second one awake is of no use before the first has
            // been at it for too long, and the standby sees to that.
            Lead::Held { .. } if self.parallel => self.unpark(state),
            Lead::Held { .. } => self.call_standby(state),
            Lead::Free => self.unpark(state),
        }
    }

    /// A thread was sent for, and a place is free for it. A parked one rather than the leader: it need not hand over.
    pub(crate) fn wake_for_place(&self, state: &mut State<P>) -> Wake {
        if state.waking.is_some() {
            return Wake::Nobody;
        }
        match state.lead {
            // Whoever holds the lead comes round, as for other work.
            Lead::Held { .. } if !self.parallel => self.call_standby(state),
            Lead::Polling { .. } if state.parked.is_empty() => self.wake_for_work(state),
            _ => self.unpark(state),
        }
    }

    /// Makes sure that somebody watches over a lead that is held by a thread in user code.
    pub(crate) fn call_standby(&self, state: &mut State<P>) -> Wake {
        if state.standby.is_some() || !matches!(state.lead, Lead::Held { .. }) {
            return Wake::Nobody;
        }
        let wake = self.unpark(state);
        if matches!(wake, Wake::Seat(_)) {
            // It is woken to watch, not to work.
            state.wakes -= 1;
            state.standbys += 1;
        }
        wake
    }

    pub(crate) fn unpark(&self, state: &mut State<P>) -> Wake {
        if state.waking.is_some() {
            return Wake::Nobody;
        }
        match state.parked.pop() {
            None => Wake::Nobody,
            Some(seat) => {
                state.waking = Some(seat.id);
                state.wakes += 1;
                Wake::Seat(seat)
            }
        }
    }
}

#[cfg(loom)]
impl<P: Payload> crate::EventLoop<P> {
    /// loom's timed waits never end by themselves: this ends the one that has a limit, the standby's.
    pub fn time_is_up(&self) {
        let hub = self.hub.lock();
        let standby = hub.parked.iter().find(|seat| hub.standby == Some(seat.id));
        if let Some(seat) = standby {
            seat.unparked.notify_one();
        }
    }
}

impl<P: Payload> State<P> {
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.urgent.is_empty()
    }

    /// Nothing is queued and nobody is inside.
    pub(crate) fn quiet(&self) -> bool {
        !self.has_ready() && self.inside == 0
    }
}
