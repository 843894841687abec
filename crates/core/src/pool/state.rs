//! What the pool's mutex guards: the table of jobs, the queues, the lanes, the counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::{Errand, Job, PoolSeat, Status};
use crate::hub::BUCKETS;
use crate::slots::{Slots, Token};
use crate::sync::Arc;

/// Whether a pool takes jobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PoolLife {
    /// It does.
    Open,
    /// No more; what is queued still runs, then its threads end.
    Ending,
}

/// The order of the queue: the higher priority first, then the earlier.
pub(crate) type Key = (Reverse<i32>, u64);

/// Who has a job now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The queue.
    Queue(Key),
    /// A slot of the pool, for the thread that enqueued it and will run it itself; its place in the queue, should that
    /// thread leave instead.
    Slot(Key),
    /// The thread that enqueued it, on top of all slots.
    Here,
    /// A thread.
    Thread,
    /// Nobody: a stepwise job between steps.
    Parked,
    /// The queue of stepwise jobs that can go on.
    Resumed,
    /// It has ended.
    Ended,
}

/// A sync in progress.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Meeting {
    /// Which one: a late callback of an earlier one finds another number.
    pub(crate) number: u64,
    /// The owner's callback is inside.
    pub(crate) visiting: bool,
    /// Somebody answered, or nobody can any more.
    pub(crate) answered: bool,
}

pub(crate) struct Record<P> {
    pub(crate) payload: P,
    pub(crate) job: Arc<Job>,
    pub(crate) place: Place,
    /// It holds a slot of the pool.
    pub(crate) slot: bool,
    pub(crate) meeting: Meeting,
    /// Callbacks to run when it is told to stop are there, and were not handed out.
    pub(crate) on_stop: bool,
    pub(crate) accepted: u64,
    /// When a thread began it, 0 before.
    pub(crate) started: u64,
    /// When it was told to stop, 0 before.
    pub(crate) told: u64,
    /// It was reported for not checking in.
    pub(crate) reported: bool,
    /// Its place on the done queue, 0 for none.
    pub(crate) done: u64,
}

#[derive(Default)]
pub(crate) struct LaneState {
    /// Threads that have arrived and not left.
    pub(crate) started: usize,
    /// A thread was asked for and has not arrived.
    pub(crate) starting: bool,
    /// Idle, the longest parked first.
    pub(crate) parked: Vec<Arc<PoolSeat>>,
    /// A parked thread that was woken and has not looked yet.
    pub(crate) waking: bool,
}

/// What becomes due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Expiry {
    Deadline,
    /// The sync of this number.
    Sync(u64),
    /// It was told to stop and has not checked in.
    Warning,
}

#[derive(Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) submitted: u64,
    pub(crate) refused: u64,
    pub(crate) finished: u64,
    pub(crate) stopped: u64,
    pub(crate) dropped: u64,
    pub(crate) running: usize,
    pub(crate) syncing_held: usize,
    pub(crate) syncing_parked: usize,
    pub(crate) stopping: usize,
    /// Jobs that wait to begin, in the queue or in place.
    pub(crate) queued: usize,
}

/// What the mutex guards.
pub(crate) struct State<P> {
    pub(crate) life: PoolLife,
    pub(crate) jobs: Slots<Record<P>>,
    pub(crate) queue: BTreeMap<Key, Token>,
    pub(crate) slow_queue: BTreeMap<Key, Token>,
    pub(crate) resumed: VecDeque<Token>,
    /// The job that was taken last went on; the next one begins, if any waits to.
    pub(crate) resumed_last: bool,
    pub(crate) errands: VecDeque<Errand>,
    /// Of jobs that have ended, whose on_done is an errand: they may have left the table. Changed while attached only.
    pub(crate) owed: VecDeque<P>,
    /// Ended jobs that wait to be reaped, by when they ended.
    pub(crate) done: BTreeMap<u64, Token>,
    pub(crate) expiries: BinaryHeap<Reverse<(u64, Token, Expiry)>>,
    /// With so many of them, those that have come to nothing are thrown out.
    pub(crate) many_expiries: usize,
    pub(crate) lanes: [LaneState; 2],
    /// A thread of the pool's home was sent for, and has not come.
    pub(crate) sent: bool,
    /// Threads that run a job, and jobs that run, or will, in place.
    pub(crate) busy: usize,
    pub(crate) slow_busy: usize,
    /// Jobs that have not begun and wait for no thread of the pool: whoever enqueued them runs them.
    pub(crate) reserved: usize,
    /// Threads of the pool that wait for the end of a job of the pool.
    pub(crate) waiting: usize,
    pub(crate) next_number: u64,
    pub(crate) counts: Counts,
    pub(crate) wait_times: [u64; BUCKETS],
    pub(crate) run_times: [u64; BUCKETS],
}

impl<P> State<P> {
    pub(crate) fn new() -> Self {
        Self {
            life: PoolLife::Open,
            jobs: Slots::default(),
            queue: BTreeMap::new(),
            slow_queue: BTreeMap::new(),
            resumed: VecDeque::new(),
            resumed_last: false,
            errands: VecDeque::new(),
            owed: VecDeque::new(),
            done: BTreeMap::new(),
            expiries: BinaryHeap::new(),
            many_expiries: 64,
            lanes: Default::default(),
            sent: false,
            busy: 0,
            slow_busy: 0,
            reserved: 0,
            waiting: 0,
            next_number: 1,
            counts: Counts::default(),
            wait_times: [0; BUCKETS],
            run_times: [0; BUCKETS],
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Puts a job in its place in its queue.
    pub(crate) fn line_up(&mut self, job: &Job, key: Key) {
        let queue = if job.traits.slow { &mut self.slow_queue } else { &mut self.queue };
        queue.insert(key, job.token());
    }

    pub(crate) fn has_errands(&self) -> bool {
        !(self.errands.is_empty() && self.owed.is_empty())
    }

    /// Jobs that have not ended.
    pub(crate) fn live(&self) -> usize {
        let counts = &self.counts;
        counts.queued + counts.running + counts.syncing_held + counts.syncing_parked + counts.stopping
    }

    /// Counts a job in or out of a status; `parked` for a stepwise one without a thread.
    fn tally(&mut self, status: Status, parked: bool) -> &mut usize {
        match status {
            Status::Queued => &mut self.counts.queued,
            Status::Running => &mut self.counts.running,
            Status::Syncing if parked => &mut self.counts.syncing_parked,
            Status::Syncing => &mut self.counts.syncing_held,
            Status::Stopping => &mut self.counts.stopping,
            Status::Finished | Status::Stopped => unreachable!("ended jobs are counted once, by `shift`"),
        }
    }

    /// Moves a job's status, and its count with it.
    pub(crate) fn shift(&mut self, job: &Job, to: Status) {
        let parked = job.steps();
        *self.tally(job.status(), parked) -= 1;
        match to {
            Status::Finished => self.counts.finished += 1,
            Status::Stopped => self.counts.stopped += 1,
            live => *self.tally(live, parked) += 1,
        }
        job.set_status(to);
        job.changed.notify_all();
    }
}
