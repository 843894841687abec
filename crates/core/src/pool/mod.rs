//! A bounded pool of threads for calls that block, each under control: it has a state, it can be told to stop, it ends
//! when its owner does.
//!
//! | file | noun |
//! |---|---|
//! | `job`    | a job's states and arrows, and what its own thread looks at |
//! | `admit`  | the way in: the bound, the order, the job that runs in place |
//! | `order`  | who comes before whom |
//! | `serve`  | a thread of the pool: take, park, end |
//! | `stop`   | every way to tell a job to stop, deadlines, the end of the pool |
//! | `meet`   | sync: a job meets its owner |
//! | `state`  | what the mutex guards |
//! | `sight`  | counts, the table of jobs, the collector's view |
//!
//! One mutex guards the table of jobs, the queue and every status, so that a status, its count and its place change
//! together. A payload (the object that stands for a job) lies in the table from acceptance until the job is reaped, or
//! has ended without anybody to reap it; queues hold tokens only, so a thread that is detached from the interpreter may
//! move them.
//!
//! A pool has two lanes: its jobs, and errands: the callbacks of jobs that never ran, those that break a blocking
//! call of a job that was told to stop, and what a closed loop can run no more. They are a user's code and must run on
//! some thread; not on the stopper's, which may be in a finalizer, and not behind jobs that block.

pub mod admit;
pub mod job;
mod meet;
mod order;
mod serve;
mod sight;
mod state;
mod stop;

pub use admit::{Entrance, Refusal};
pub use job::{JOB_TABLE, Job, JobArrow, Status, StopReason, Traits};
pub use meet::{AnswerError, MeetError, Met};
pub use serve::{Ended, NobodyLeft, Outcome, PoolSeat, Taken};
pub use sight::{JobView, PoolStats};
pub(crate) use state::{Expiry, Key, Meeting, Place, PoolLife, Record, State};
pub use stop::Stopped;

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::fork;
use crate::hub::BUCKETS;
use crate::slots::Token;
use crate::sync::atomic::{AtomicUsize, Ordering};
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
    /// A thread of the pool's home is wanted: it comes to [`Pool::come`]. False if none will.
    fn send_for_thread(&self) -> bool;
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

/// Something to run on a thread of the errand lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errand {
    /// A job that never ran has ended: what is owed to it.
    Conclude(Token),
    /// A job was told to stop: its on_stop callbacks.
    OnStop(Token),
    /// A job has ended, and the loop of its owner before it: its on_done.
    OnDone,
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
    /// The number of the loop whose threads run the jobs that were enqueued for them, 0 for none.
    home: AtomicUsize,
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
    /// A thread that is joined to the pool's home should come.
    Send,
}

impl<P: Payload> Pool<P> {
    /// A pool without threads; they come when they are needed.
    pub fn new(options: PoolOptions, host: Box<dyn Host>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new()),
            room: Condvar::new(),
            left: Condvar::new(),
            options,
            host,
            home: AtomicUsize::new(0),
            epoch: fork::epoch(),
            process: std::process::id(),
            _counted: Counted::new(Kind::Pools),
        })
    }

    /// How it was made.
    pub fn options(&self) -> &PoolOptions {
        &self.options
    }

    /// From now on threads of this loop are sent for where jobs wait that were enqueued for them. Others still get a thread of
    /// the pool.
    pub fn set_home(&self, event_loop: usize) {
        self.home.store(event_loop, Ordering::Relaxed);
    }

    /// See [`Self::set_home`].
    pub fn home(&self) -> usize {
        // ORDER: Relaxed; it is set once, before the pool has a job.
        self.home.load(Ordering::Relaxed)
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
            Call::Send => self.perform(self.send()),
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
        if lane == Lane::Jobs && self.goes_home(state) {
            return if core::mem::replace(&mut state.sent, true) { Call::Nobody } else { Call::Send };
        }
        self.call_own(state, lane)
    }

    /// As [`Self::call`]: a thread of the pool.
    fn call_own(&self, state: &mut State<P>, lane: Lane) -> Call {
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

    /// Sends for a thread of the pool's home. What is to be done if none will come.
    pub fn send(&self) -> Call {
        if self.host.send_for_thread() { Call::Nobody } else { self.nobody_comes() }
    }

    /// A thread of the pool's home was sent for, and none will come: one of the pool is called.
    pub fn nobody_comes(&self) -> Call {
        let mut state = self.lock();
        state.sent = false;
        self.call_own(&mut state, Lane::Jobs)
    }

    /// Whether a thread of the lane would find something to do now.
    pub(crate) fn has_work(&self, state: &State<P>, lane: Lane) -> bool {
        match lane {
            Lane::Errands => state.has_errands(),
            Lane::Jobs => {
                state.busy < self.options.threads
                    && (!state.resumed.is_empty()
                        || !state.queue.is_empty()
                        || (!state.slow_queue.is_empty() && state.slow_busy < self.options.max_slow))
            }
        }
    }
}

/// The bucket of a time: bucket i holds up to 2^i microseconds.
pub(crate) fn bucket(nanoseconds: u64) -> usize {
    let microseconds = nanoseconds / 1_000;
    ((u64::BITS - microseconds.leading_zeros()) as usize).min(BUCKETS - 1)
}
