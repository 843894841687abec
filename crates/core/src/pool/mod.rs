//! A bounded pool of threads for calls that block, each under control: it has a state, it can be told to stop, it ends
//! when its owner does.
//!
//! | file | noun |
//! |---|---|
//! | `job`    | a job's states and arrows, and what its own thread looks at |
//! | `admit`  | the way in: the bound, the order, the job that runs in place |
//! | `serve`  | a thread of the pool: take, park, end |
//! | `stop`   | every way to tell a job to stop, deadlines, the end of the pool |
//! | `meet`   | sync: a job meets its owner |
//! | `sight`  | counts, the table of jobs, the collector's view |
//!
//! One mutex guards the table of jobs, the queue and every status, so that a status, its count and its place change
//! together. A payload (the object that stands for a job) lies in the table from acceptance until the job is reaped, or
//! has ended without anybody to reap it; queues hold tokens only, so a thread that is detached from the interpreter may
//! move them.
//!
//! A pool has two lanes: its jobs, and errands: the callbacks of jobs that never ran, and those that break a blocking
//! call of a job that was told to stop. They are a user's code and must run on some thread; not on the stopper's, which
//! may be in a finalizer, and not behind jobs that block.

pub mod admit;
pub mod job;
mod meet;
mod serve;
mod sight;
mod stop;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

pub use admit::{Entrance, Refusal};
pub use job::{JOB_TABLE, Job, JobArrow, Status, StopReason, Traits};
pub use meet::{AnswerError, MeetError, Met};
pub use serve::{Ended, NobodyLeft, Outcome, PoolSeat, Taken};
pub use sight::{JobView, PoolStats};
pub use stop::Stopped;

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::fork;
use crate::hub::BUCKETS;
use crate::slots::{Slots, Token};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Which threads of a pool: those that run jobs, or those that run errands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Lane {
    /// Jobs.
    Jobs = 0,
    /// Errands.
    Errands = 1,
}

/// What a pool asks of whoever made it. Called under no lock of the core, attached or detached.
pub trait Host: Send + Sync {
    /// A thread is wanted in this lane: it comes to [`Pool::arrive`], or [`Pool::start_failed`] is called.
    fn start_thread(&self, lane: Lane);
    /// [`Pool::expire`] has something to do earlier than was said before.
    fn expires_sooner(&self);
}

/// Something that holds jobs for an owner.
pub trait Owned: Send + Sync {
    /// The owner of this job has ended. Under no lock.
    fn owner_gone(&self, job: Token);
    /// The loop on whose thread this job runs, or is about to, stops. Under no lock.
    fn loop_stopping(&self, job: Token);
}

/// How a pool is made.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Threads that run jobs, at most.
    pub threads: usize,
    /// Threads that run errands, at most.
    pub errand_threads: usize,
    /// Jobs that may wait beyond those that a thread takes at once; None for any number.
    pub max_queue_depth: Option<usize>,
    /// Jobs that have ended and wait to be reaped, at most.
    pub max_done: usize,
    /// Slow jobs that may run at the same time, at least 1.
    pub max_slow: usize,
    /// Nanoseconds from the stop of a job until it is reported if it has not checked in.
    pub stop_warning: u64,
    /// Nanoseconds that an idle thread parks for before it looks up; None for ever.
    pub idle_look: Option<u64>,
}

/// Whether a pool takes jobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PoolLife {
    /// It does.
    Open,
    /// No more; what is queued still runs, then its threads end.
    Ending,
}

/// The order of the queue: the higher priority first, then the earlier.
type Key = (Reverse<i32>, u64);

/// Who has a job now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The queue.
    Queue(Key),
    /// A slot of the pool, for the thread that enqueued it and will run it itself.
    Slot,
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

/// Something to run on a thread of the errand lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errand {
    /// A job that never ran has ended: what is owed to it.
    Conclude(Token),
    /// A job was told to stop: its on_stop callbacks.
    OnStop(Token),
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
    pub(crate) errands: VecDeque<Errand>,
    /// Ended jobs that wait to be reaped, by when they ended.
    pub(crate) done: BTreeMap<u64, Token>,
    pub(crate) expiries: BinaryHeap<Reverse<(u64, Token, Expiry)>>,
    /// With so many of them, those that have come to nothing are thrown out.
    pub(crate) many_expiries: usize,
    pub(crate) lanes: [LaneState; 2],
    /// Threads that run a job, and jobs that run, or will, in place.
    pub(crate) busy: usize,
    pub(crate) slow_busy: usize,
    /// Threads of the pool that wait for the end of a job of the pool.
    pub(crate) waiting: usize,
    /// Threads that wait for room in the queue.
    pub(crate) room_waiters: usize,
    pub(crate) next_number: u64,
    pub(crate) counts: Counts,
    pub(crate) wait_times: [u64; BUCKETS],
    pub(crate) run_times: [u64; BUCKETS],
}

/// A bounded pool of threads. See the head of this module.
pub struct Pool<P: Payload> {
    pub(crate) state: Mutex<State<P>>,
    /// A place in the queue is free. Waited for under `state`.
    pub(crate) room: Condvar,
    /// A thread has left, or the last job has ended. Waited for under `state`.
    pub(crate) left: Condvar,
    pub(crate) options: PoolOptions,
    pub(crate) host: Box<dyn Host>,
    epoch: u32,
    process: u32,
    _counted: Counted,
}

/// What is to be done once the mutex is released.
#[must_use]
#[derive(Default)]
pub struct Calls {
    jobs: Call,
    errands: Call,
    /// The earliest expiry has changed.
    sooner: bool,
}

/// A thread to call, once the mutex is released.
#[must_use]
#[derive(Default)]
pub enum Call {
    /// Nothing.
    #[default]
    Nobody,
    /// A parked thread has something to do.
    Wake(Arc<PoolSeat>),
    /// There should be one thread more.
    Start(Lane),
}

impl<P: Payload> Pool<P> {
    /// A pool without threads; they come when they are needed.
    pub fn new(options: PoolOptions, host: Box<dyn Host>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                life: PoolLife::Open,
                jobs: Slots::default(),
                queue: BTreeMap::new(),
                slow_queue: BTreeMap::new(),
                resumed: VecDeque::new(),
                errands: VecDeque::new(),
                done: BTreeMap::new(),
                expiries: BinaryHeap::new(),
                many_expiries: 64,
                lanes: Default::default(),
                busy: 0,
                slow_busy: 0,
                waiting: 0,
                room_waiters: 0,
                next_number: 1,
                counts: Counts::default(),
                wait_times: [0; BUCKETS],
                run_times: [0; BUCKETS],
            }),
            room: Condvar::new(),
            left: Condvar::new(),
            options,
            host,
            epoch: fork::epoch(),
            process: std::process::id(),
            _counted: Counted::new(Kind::Pools),
        })
    }

    /// How it was made.
    pub fn options(&self) -> &PoolOptions {
        &self.options
    }

    /// Refuses in a forked child: the threads of an inherited pool do not exist there.
    pub fn check_fork(&self) -> Result<(), Error> {
        if self.epoch == fork::epoch() { Ok(()) } else { Err(Error::Forked { parent: self.process }) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock()
    }

    /// Does what was found under the mutex, now that it is released.
    pub fn perform(&self, call: Call) {
        match call {
            Call::Nobody => {}
            Call::Wake(seat) => seat.unparked.notify_one(),
            Call::Start(lane) => self.host.start_thread(lane),
        }
    }

    pub(crate) fn perform_all(&self, calls: Calls) {
        self.perform(calls.errands);
        self.perform(calls.jobs);
        if calls.sooner {
            self.host.expires_sooner();
        }
    }

    /// A lane has got work: whom to call. At most one thread at a time is being woken or started; it calls the next
    /// when it has found work and there is more.
    pub(crate) fn call(&self, state: &mut State<P>, lane: Lane) -> Call {
        if !self.has_work(state, lane) {
            return Call::Nobody;
        }
        let most = match lane {
            Lane::Jobs => self.options.threads,
            Lane::Errands => self.options.errand_threads,
        };
        let lane_state = &mut state.lanes[lane as usize];
        if lane_state.waking || lane_state.starting {
            return Call::Nobody;
        }
        if let Some(seat) = lane_state.parked.pop() {
            lane_state.waking = true;
            return Call::Wake(seat);
        }
        if lane_state.started < most {
            lane_state.starting = true;
            return Call::Start(lane);
        }
        Call::Nobody
    }

    /// Whether a thread of the lane would find something to do now.
    pub(crate) fn has_work(&self, state: &State<P>, lane: Lane) -> bool {
        match lane {
            Lane::Errands => !state.errands.is_empty(),
            Lane::Jobs => {
                state.busy < self.options.threads
                    && (!state.resumed.is_empty()
                        || !state.queue.is_empty()
                        || (!state.slow_queue.is_empty() && state.slow_busy < self.options.max_slow))
            }
        }
    }
}

impl<P> State<P> {
    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
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
        let parked = job.traits.steps;
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

/// The bucket of a time: bucket i holds up to 2^i microseconds.
pub(crate) fn bucket(nanoseconds: u64) -> usize {
    let microseconds = nanoseconds / 1_000;
    ((u64::BITS - microseconds.leading_zeros()) as usize).min(BUCKETS - 1)
}
