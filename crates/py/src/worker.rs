//! A thread of a pool: the loop is Python's (`manyhands._pool_thread`), so that no frame of ours lies below a user's function.

use std::sync::atomic::{AtomicBool, Ordering};

use manyhands_core::pool::{Errand, Lane, PoolSeat, StopReason, Taken};
use manyhands_core::sync::{Arc, Mutex};
use pyo3::prelude::*;

use crate::attach::{self, Lent};
use crate::current::{self, Before};
use crate::errors;
use crate::job::{Callable, JobCore, Work};
use crate::once::Once;
use crate::pool::CorePool;

/// What a worker's thread is inside of.
struct Inside {
    job: Py<JobCore>,
    before: Before,
    /// A thread of the pool is lent as long as it lives.
    lent: Option<Lent>,
}

/// A job for a thread that is not the pool's.
struct Given {
    job: Py<JobCore>,
    /// The thread has taken it from the queue.
    begun: bool,
    /// It holds a slot of the pool.
    slot: bool,
}

/// A thread's side of a pool. Its methods are called by that thread alone.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Worker {
    pool: Arc<CorePool>,
    seat: Option<Arc<PoolSeat>>,
    given: Mutex<Option<Given>>,
    left: AtomicBool,
    inside: Mutex<Option<Inside>>,
}

impl Worker {
    /// A thread that was asked for is here.
    pub fn arrive(pool: &Arc<CorePool>, lane: Lane) -> Self {
        let seat = Some(pool.arrive(lane));
        let left = AtomicBool::new(false);
        Self { pool: pool.clone(), seat, given: Mutex::new(None), left, inside: Mutex::new(None) }
    }

    /// The calling thread, for one job of the pool: that which it is given.
    pub fn for_one(py: Python<'_>, pool: &Arc<CorePool>) -> PyResult<Py<Self>> {
        let (given, left, inside) = (Mutex::new(None), AtomicBool::new(true), Mutex::new(None));
        Py::new(py, Self { pool: pool.clone(), seat: None, given, left, inside })
    }

    /// The job, which holds a slot; `begun` if it was taken from the queue.
    pub fn give(&self, job: Py<JobCore>, begun: bool) {
        *self.given.lock() = Some(Given { job, begun, slot: true });
    }

    /// The calling thread, for one job without a slot.
    pub fn here(py: Python<'_>, job: Py<JobCore>) -> PyResult<Py<Self>> {
        let worker = Self::for_one(py, job.get().core())?;
        *worker.get().given.lock() = Some(Given { job, begun: false, slot: false });
        Ok(worker)
    }

    fn take_inside(&self) -> Option<Inside> {
        self.inside.lock().take()
    }

    /// Goes into a job that the thread has taken. If that fails it is left to [`Self::interrupted`].
    fn begin_taken(&self, job: Bound<'_, JobCore>, slot: bool) -> PyResult<Callable> {
        let kept = job.clone().unbind();
        let begun = self.begin(job, slot);
        if begun.is_err() && self.inside.lock().is_none() {
            *self.given.lock() = Some(Given { job: kept, begun: true, slot });
        }
        begun
    }

    /// Goes into a job.
    fn begin(&self, job: Bound<'_, JobCore>, slot: bool) -> PyResult<Callable> {
        let py = job.py();
        let Work { function, args, kwargs } = JobCore::begin(&job)?;
        job.get().set_thread(attach::thread_ident());
        let before = current::enter(&job, slot);
        let hook = job.get().pool().get().on_start(py);
        let lent = self.seat.is_none().then(Lent::more);
        let inside = Inside { job: job.clone().unbind(), before, lent };
        *self.inside.lock() = Some(inside);
        let Some(hook) = hook else { return Ok((function, args, kwargs)) };
        static HOOKED: Once<Py<PyAny>> = Once::new();
        let hooked = HOOKED.import(py, "manyhands._pool_thread", "call_hooked")?;
        let args = (hook, job, function, args, kwargs).into_pyobject(py)?;
        Ok((hooked.clone().unbind(), args.unbind(), None))
    }

    /// Out of the job's function: out of its context.
    fn leave<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, JobCore>>> {
        let Some(Inside { job, before, lent }) = self.take_inside() else { return Ok(None) };
        current::leave(before);
        drop(lent);
        let job = job.into_bound(py);
        job.get().leave_context(py)?;
        Ok(Some(job))
    }

    fn ended(job: Bound<'_, JobCore>) -> PyResult<Option<Bound<'_, JobCore>>> {
        let this = job.get();
        if this.is_plain() && !this.pool().get().has_on_end() && JobCore::conclude(&job, false)? {
            // Somebody may have asked to be told between the two looks.
            if this.has_callbacks() {
                return Ok(Some(job));
            }
            this.let_go();
            return Ok(None);
        }
        Ok(Some(job))
    }
}

#[pymethods]
impl Worker {
    /// The next function to call, with its arguments; None when the thread has to leave. Waits, detached.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Callable>> {
        self.check_fork(py)?;
        let Some(seat) = &self.seat else { return self.take_given(py) };
        loop {
            let (taken, wanted) = self.pool.take(seat);
            JobCore::perform(py, &self.pool, wanted);
            match taken {
                Taken::Job(_, held) => return self.begin_taken(held.0.into_bound(py), true).map(Some),
                Taken::Errand(errand, held) => {
                    static ERRAND: Once<Py<PyAny>> = Once::new();
                    let run = ERRAND.import(py, "manyhands._pool_thread", "run_errand")?;
                    let errand = match errand {
                        Errand::Conclude(_) => "conclude",
                        Errand::OnStop(_) => "on_stop",
                        Errand::OnDone => "on_done",
                    };
                    let args = (held.0, errand).into_pyobject(py)?;
                    return Ok(Some((run.clone().unbind(), args.unbind(), None)));
                }
                Taken::Wait => attach::detached(py, || self.pool.wait(seat)),
                Taken::Leave => {
                    self.left.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
            }
        }
    }

    /// The function returned. The job, if something is owed to it.
    fn returned<'py>(&'py self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, JobCore>>> {
        self.check_fork(py)?;
        let Some(job) = self.leave(py)? else { return Ok(None) };
        if JobCore::store_value(&job, value)? { Ok(None) } else { Self::ended(job) }
    }

    /// The function raised. The job, if something is owed to it.
    fn failed<'py>(&'py self, py: Python<'py>, error: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, JobCore>>> {
        self.check_fork(py)?;
        let Some(job) = self.leave(py)? else { return Ok(None) };
        job.get().store_error(py, error)?;
        Self::ended(job)
    }

    /// The thread is torn out of the loop that calls these methods, perhaps between two of them: its job ends with the
    /// error, one that was not taken from the queue is stopped.
    fn interrupted<'py>(&'py self, py: Python<'py>, error: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, JobCore>>> {
        let given = self.given.lock().take();
        match given {
            Some(Given { job, begun: true, .. }) => {
                job.get().store_error(py, error)?;
                return Self::ended(job.into_bound(py));
            }
            Some(Given { job, .. }) => _ = job.get().core().stop(job.get().job(), StopReason::Caller),
            None => {}
        }
        self.failed(py, error)
    }

    /// From here to the end of the thread it is lent: it must not wait for a loop or a pool.
    fn lend(&self) {
        core::mem::forget(Lent::to(0));
    }
}

impl Worker {
    fn check_fork(&self, py: Python<'_>) -> PyResult<()> {
        self.pool.check_fork().map_err(|error| errors::raise_about(py, error, "the pool of this thread"))
    }

    fn take_given(&self, py: Python<'_>) -> PyResult<Option<Callable>> {
        let Some(Given { job, begun, slot }) = self.given.lock().take() else { return Ok(None) };
        if begun {
            return self.begin_taken(job.into_bound(py), slot).map(Some);
        }
        match self.pool.begin_in_place(job.get().job()) {
            Some(held) => self.begin_taken(held.0.into_bound(py), slot).map(Some),
            None => Ok(None),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat
            && !self.left.load(Ordering::Relaxed)
            && self.pool.check_fork().is_ok()
        {
            self.pool.perform(self.pool.lost(seat));
        }
    }
}
