//! A job that runs on the joined thread which enqueued it, when its handler has ended: the loop's place for it, and what
//! the thread has promised.
//!
//! If others wait in the pool's queue, the thread's own job goes to the end of it, and the thread takes the first: so jobs
//! run in their order, and a queue that has come to be is worked off by the threads that fill it.

use std::cell::RefCell;
use std::sync::Arc;

use manyhands_core::Life;
use manyhands_core::pool::{Job, StopReason};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::event_loop::{Core, CoreSeat, LoopCore};
use crate::job::JobCore;
use crate::pool::CorePool;
use crate::worker::Worker;

/// What the thread does when its handler has ended. It has a place of the loop for it.
enum Promise {
    /// Run this job, which holds a slot of its pool.
    Run(Py<JobCore>),
    /// Take the first job of this pool.
    Take(Arc<CorePool>),
}

struct Place {
    event_loop: Arc<Core>,
    promise: Option<Promise>,
    running: bool,
}

thread_local! {
    /// Of a thread that serves a loop, and may run a job in place.
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

fn place<R>(look: impl FnOnce(&mut Place) -> R) -> Option<R> {
    PLACE.with(|place| place.borrow_mut().as_mut().map(look))
}

/// While it lives, the thread serves this loop.
pub struct Serving {
    outer: Option<Place>,
}

impl Serving {
    /// The main thread never runs a job in place: Ctrl-C must not land in one.
    pub fn new(event_loop: &Arc<Core>, main: bool) -> Self {
        let new = (!main).then(|| Place { event_loop: event_loop.clone(), promise: None, running: false });
        Self { outer: PLACE.with(|place| place.replace(new)) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let gone = PLACE.with(|place| place.replace(self.outer.take()));
        drop(gone);
    }
}

/// Takes a place of the loop that this thread serves, if the thread has promised nothing yet and another one serves the
/// loop meanwhile.
pub fn take_place() -> bool {
    let free = place(|place| (place.promise.is_none() && !place.running).then(|| place.event_loop.clone())).flatten();
    free.is_some_and(|event_loop| event_loop.take_place())
}

/// Gives the place back.
pub fn give_back(job: Option<&Job>) {
    if let Some(event_loop) = place(|place| place.event_loop.clone()) {
        event_loop.give_place(job);
    }
}

/// The thread runs this job when its handler has ended.
pub fn run_later(job: &Bound<'_, JobCore>) {
    if let Some(event_loop) = place(|place| place.event_loop.clone()) {
        event_loop.name_place(job.get().job(), job.get().core().clone());
    }
    promise(Promise::Run(job.clone().unbind()));
}

/// The thread takes the first job of this pool when its handler has ended.
pub fn take_later(pool: &Arc<CorePool>) {
    promise(Promise::Take(pool.clone()));
}

fn promise(promise: Promise) {
    let before = place(|place| place.promise.replace(promise));
    drop(before);
}

/// The number of the loop that this thread serves, and may run a job for; 0 for none.
pub fn serves() -> usize {
    place(|place| Arc::as_ptr(&place.event_loop) as usize).unwrap_or(0)
}

/// The handler has ended, or the thread is about to wait: does what the thread has promised.
pub fn run(owner: &Bound<'_, LoopCore>, core: &Core, seat: &mut CoreSeat) -> PyResult<()> {
    let Some(promise) = place(|place| place.promise.take()).flatten() else { return Ok(()) };
    place(|place| place.running = true);
    let result = keep(owner, core, seat, promise);
    place(|place| place.running = false);
    result
}

fn keep(owner: &Bound<'_, LoopCore>, core: &Core, seat: &mut CoreSeat, promise: Promise) -> PyResult<()> {
    let py = owner.py();
    static RUN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (job, worker) = match promise {
        Promise::Run(job) => {
            let worker = Worker::in_place(py, job.clone_ref(py))?;
            (job, worker)
        }
        Promise::Take(pool) => {
            let open = core.life() == Life::Open;
            let (taken, wanted) = if open { pool.take_in_place(serves()) } else { (None, pool.call_for_job()) };
            JobCore::perform(py, &pool, wanted);
            let Some((shared, held)) = taken else {
                core.give_place(None);
                return Ok(());
            };
            core.name_place(&shared, pool);
            let worker = Worker::begun(py, held.0.clone_ref(py))?;
            (held.0, worker)
        }
    };
    core.step_aside(seat);
    // Whoever waits for the end of a watch must not wait for the job.
    for finished in core.take_finished(seat) {
        LoopCore::pay(owner, finished);
    }
    let run = RUN.import(py, "manyhands._pool_thread", "serve")?;
    let result = run.call1((worker,)).map(|_| ());
    core.check_fork().map_err(|error| owner.get().raise(py, error))?;
    core.give_place(Some(job.get().job()));
    core.step_back(seat);
    result
}

/// The thread leaves and has not done what it promised: a thread of the pool does it, unless the loop stops.
pub fn give_up(py: Python<'_>) {
    let kept = place(|place| Some((place.promise.take()?, place.event_loop.clone()))).flatten();
    let Some((promise, event_loop)) = kept else { return };
    if event_loop.check_fork().is_err() {
        // The handler forked, and this is the child: the loop's locks and the pool's may be held for ever.
        core::mem::forget(promise);
        return;
    }
    match promise {
        Promise::Run(job) => {
            let this = job.get();
            if event_loop.life() == Life::Open {
                // Its handler raised what ends a thread: that is no reason to end the job.
                JobCore::perform(py, this.core(), this.core().send_to_queue(this.job()));
            } else {
                this.core().stop(this.job(), StopReason::LoopStopping);
            }
            give_back(Some(this.job()));
        }
        Promise::Take(pool) => {
            JobCore::perform(py, &pool, pool.call_for_job());
            give_back(None);
        }
    }
}
