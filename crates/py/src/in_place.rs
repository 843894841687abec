//! A job that runs on the joined thread which enqueued it, when its handler has ended: the loop's place for it, and what
//! the thread has promised.
//!
//! If others wait in the pool's queue, the thread's own job goes to the end of it, and the thread takes the first: so jobs
//! run in their order, and a queue that has come to be is worked off by the threads that fill it.
//!
//! A pool that uses the threads of the loop sends for one where another pool starts one. From a thread whose job has just
//! ended that is a note to itself.

use std::cell::RefCell;
use std::sync::Arc;

use manyhands_core::Life;
use manyhands_core::pool::{Call as Wanted, Job, StopReason};
use pyo3::prelude::*;

use crate::event_loop::{Core, CoreSeat, LoopCore};
use crate::job::JobCore;
use crate::once::Once;
use crate::payload::Carried;
use crate::pool::{CorePool, Held};
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
    /// It has a place, and takes a job for it or runs one: it promises nothing more.
    occupied: bool,
    /// The number of the job that it runs in place, 0 for none.
    running: u64,
    /// It takes no job but its own.
    brief: bool,
    /// That job has left, and the thread is to come for the next one of its pool.
    again: bool,
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
    /// The main thread never runs a job in place: Ctrl-C must not land in one. `brief`: the thread serves one tick.
    pub fn new(event_loop: &Arc<Core>, main: bool, brief: bool) -> Self {
        let new = (!main).then(|| Place {
            event_loop: event_loop.clone(),
            promise: None,
            occupied: false,
            running: 0,
            brief,
            again: false,
        });
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
    let free = place(|place| (place.promise.is_none() && !place.occupied).then(|| place.event_loop.clone())).flatten();
    free.is_some_and(|event_loop| event_loop.take_place())
}

/// Gives the place back.
pub fn give_back(job: Option<&Job>) {
    if let Some(event_loop) = place(|place| place.event_loop.clone()) {
        event_loop.give_place_early(job);
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
    let _occupied = Occupied::new();
    let py = owner.py();
    match promise {
        Promise::Run(job) => {
            let this = job.get();
            match Ready::new(py, this.core()) {
                Ok(ready) => ready.run(owner, core, seat, job, false),
                Err(error) => {
                    JobCore::perform(py, this.core(), this.core().send_to_queue(this.job()));
                    core.give_place(Some(this.job()), None);
                    error.write_unraisable(py, Some(owner));
                    Ok(())
                }
            }
        }
        Promise::Take(pool) => {
            let ready = if core.life() == Life::Open { Some(Ready::new(py, &pool)) } else { None };
            match ready {
                Some(Ok(ready)) => {
                    let (taken, wanted) = pool.take_in_place(serves());
                    ready.run_taken(owner, core, seat, taken, wanted)
                }
                unready => {
                    core.give_place(None, None);
                    JobCore::perform(py, &pool, pool.call_for_job());
                    if let Some(Err(error)) = unready {
                        error.write_unraisable(py, Some(owner));
                    }
                    Ok(())
                }
            }
        }
    }
}

/// The pool has sent for a thread, and this one has a place.
pub fn come(owner: &Bound<'_, LoopCore>, core: &Core, seat: &mut CoreSeat, pool: Arc<CorePool>) -> PyResult<()> {
    let _occupied = Occupied::new();
    let py = owner.py();
    match Ready::new(py, &pool) {
        Ok(ready) => {
            let (taken, wanted) = pool.come(serves());
            ready.run_taken(owner, core, seat, taken, wanted)
        }
        Err(error) => {
            core.give_place(None, None);
            JobCore::perform(py, &pool, pool.nobody_comes());
            error.write_unraisable(py, Some(owner));
            Ok(())
        }
    }
}

/// A pool has sent for a thread of this loop, and none will come: it gets one of its own.
pub fn unserved(sent: Carried) {
    if let Carried::Pool(pool) = sent {
        pool.perform(pool.nobody_comes());
    }
}

/// While it lives, the thread promises nothing: what has a place runs first.
struct Occupied;

impl Occupied {
    fn new() -> Self {
        _ = place(|place| place.occupied = true);
        Self
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        _ = place(|place| place.occupied = false);
    }
}

/// Everything that can fail before a job is run, which would then be lost.
struct Ready<'py> {
    pool: Arc<CorePool>,
    worker: Py<Worker>,
    serve: &'py Bound<'py, PyAny>,
}

impl<'py> Ready<'py> {
    fn new(py: Python<'py>, pool: &Arc<CorePool>) -> PyResult<Self> {
        static SERVE: Once<Py<PyAny>> = Once::new();
        let serve = SERVE.import(py, "manyhands._pool_thread", "serve")?;
        Ok(Self { pool: pool.clone(), worker: Worker::for_one(py, pool)?, serve })
    }

    /// Runs what was taken, or gives the place back.
    fn run_taken(
        self,
        owner: &Bound<'_, LoopCore>,
        core: &Core,
        seat: &mut CoreSeat,
        taken: Option<(Arc<Job>, Held)>,
        wanted: Wanted,
    ) -> PyResult<()> {
        let Some((shared, held)) = taken else {
            // First: whoever is called may look for it.
            core.give_place(None, None);
            JobCore::perform(owner.py(), &self.pool, wanted);
            return Ok(());
        };
        JobCore::perform(owner.py(), &self.pool, wanted);
        core.name_place(&shared, self.pool.clone());
        self.run(owner, core, seat, held.0, true)
    }

    /// Runs the job, which has the place, and gives that back. `begun`: it was taken from the queue.
    fn run(
        self,
        owner: &Bound<'_, LoopCore>,
        core: &Core,
        seat: &mut CoreSeat,
        job: Py<JobCore>,
        begun: bool,
    ) -> PyResult<()> {
        let py = owner.py();
        place(|place| place.running = job.get().job().id);
        self.worker.get().give(job.clone_ref(py), begun);
        core.step_aside(seat);
        // Whoever waits for the end of a watch must not wait for the job.
        for finished in core.take_finished(seat) {
            LoopCore::pay(owner, finished);
        }
        let result = self.serve.call1((self.worker,)).map(|_| ());
        let again = place(|place| {
            place.running = 0;
            core::mem::take(&mut place.again)
        });
        core.check_fork().map_err(|error| owner.get().raise(py, error))?;
        let next = (again == Some(true)).then_some(Carried::Pool(self.pool));
        core.give_place(Some(job.get().job()), next);
        core.step_back(seat);
        result
    }
}

/// Does what a job wants that leaves this thread. If that is a thread of the loop that this one serves, it is this one.
pub fn perform_leaving(py: Python<'_>, job: &JobCore, wanted: Wanted) {
    let mine = |place: &mut Place| {
        let home = job.core().home() == Arc::as_ptr(&place.event_loop) as usize;
        let mine = place.running == job.job().id && home && !place.brief;
        place.again |= mine;
        mine
    };
    if !(matches!(wanted, Wanted::Send) && place(mine) == Some(true)) {
        JobCore::perform(py, job.core(), wanted);
    }
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
            give_back(None);
            JobCore::perform(py, &pool, pool.call_for_job());
        }
    }
}
