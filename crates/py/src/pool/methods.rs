//! What Python sees of a pool: docstrings and signatures.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manyhands_core::pool::{Lane, Pool, PoolOptions, StopReason};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType, PyWeakrefReference};

use super::counts::{PoolCounts, View, seconds};
use super::host::{PythonHost, SharedHost};
use super::wishes::Wishes;
use super::{Opened, PoolCore, WhenFull};
use crate::arguments::callable;
use crate::attach;
use crate::event_loop::LoopCore;
use crate::job::{JobCore, status_object};
use crate::worker::Worker;

#[pymethods]
impl PoolCore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { opened: OnceLock::new() }
    }

    #[expect(clippy::too_many_arguments, reason = "called once, by ThreadPool.__init__, by keyword")]
    #[pyo3(signature = (*, name, threads, errand_threads, max_queue_depth, max_done, max_slow, stop_warning, idle_look,
                        when_full, full_timeout, job_class, on_submit, on_start, on_end))]
    fn _open(
        slf: &Bound<'_, Self>,
        name: String,
        threads: usize,
        errand_threads: usize,
        max_queue_depth: Option<usize>,
        max_done: usize,
        max_slow: usize,
        stop_warning: f64,
        idle_look: Option<f64>,
        when_full: &str,
        full_timeout: Option<f64>,
        job_class: Py<PyType>,
        on_submit: Option<Py<PyAny>>,
        on_start: Option<Py<PyAny>>,
        on_end: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let nanoseconds = |duration: Duration| duration.as_nanos() as u64;
        let options = PoolOptions {
            threads,
            errand_threads,
            max_queue_depth,
            max_done,
            max_slow,
            stop_warning: nanoseconds(attach::duration("stop_warning", stop_warning)?),
            idle_look: idle_look.map(|look| attach::duration("idle_look", look)).transpose()?.map(nanoseconds),
        };
        let when_full = match when_full {
            "wait" => WhenFull::Wait,
            "run_here" => WhenFull::RunHere,
            _ => WhenFull::Refuse,
        };
        let host = Arc::new(PythonHost { pool: OnceLock::new(), core: OnceLock::new(), home: OnceLock::new() });
        _ = host.pool.set(PyWeakrefReference::new(slf.as_any())?.unbind());
        let pool = Pool::new(options, Box::new(SharedHost(host.clone())));
        _ = host.core.set(Arc::downgrade(&pool));
        let opened = Opened { pool, name, when_full, full_timeout, job_class, on_submit, on_start, on_end, host };
        if slf.get().opened.set(opened).is_err() {
            return Err(PyRuntimeError::new_err("ThreadPool.__init__ was called twice"));
        }
        Ok(())
    }

    /// The name given to the constructor: part of its threads' names.
    #[getter]
    fn name(&self) -> &str {
        self.opened.get().map_or("pool", |opened| opened.name.as_str())
    }

    /// Have a function called on a thread of the pool; as `concurrent.futures.Executor.submit`.
    ///
    /// A full queue makes the caller wait for a place.
    ///
    /// Returns:
    ///     A `Job`, which is a `concurrent.futures.Future`.
    ///
    /// Raises:
    ///     QueueFull: the queue is full, and the calling thread is lent, so that it must not wait.
    ///     PoolFinished: the pool takes no more jobs.
    ///     TypeError: the function cannot be called.
    ///
    /// Threads: any; also a handler of signals or a finalizer, while the queue is not full.
    #[pyo3(signature = (function, /, *args, **kwargs))]
    fn submit<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, JobCore>> {
        callable("function", &function)?;
        let when_full = match slf.get().opened()?.when_full {
            WhenFull::RunHere => WhenFull::RunHere,
            _ => WhenFull::Wait,
        };
        Self::take(slf, Self::work(function, args, kwargs), Wishes::default(), when_full)
    }

    /// Have `function(*args)` called on a thread of the pool, with everything that a job can have.
    ///
    /// Args:
    ///     owner: A Watch or a Strand: when it ends, the job is stopped with OWNER_GONE.
    ///     name: What `jobs()`, `dump()` and the log call it.
    ///     user: Any object, kept as `job.user`.
    ///     cleanup: Called once as `cleanup(job)` on every path, also if the job never runs; not if it is refused here.
    ///     on_sync: Called as `on_sync(job, value)` on the owner's strand at each sync.
    ///     on_done: Called once as `on_done(job)` on the owner's strand when the job has ended; if the owner's loop was
    ///         closed before, on a thread of the pool.
    ///     deadline: On `manyhands.now()`: then it is stopped with DEADLINE.
    ///     priority: The higher, the sooner; first in, first out within one.
    ///     outlive: It goes on when its owner ends.
    ///     slow: It takes long: such jobs have at most their share of the threads.
    ///     in_place: Run it on this joined thread when the handler has ended, if another thread serves the loop meanwhile.
    ///     keep: Whether it stays on the done queue until it is reaped; by default, if it has an owner.
    ///
    /// Raises:
    ///     QueueFull: as many jobs wait as may (`when_full` chooses what happens).
    ///     PoolFinished: the pool takes no more jobs.
    ///     StrandClosed, WatchRemoved, LoopClosed: the owner has ended.
    ///     TypeError, ValueError: an option that cannot be.
    #[pyo3(signature = (function, /, *args, **options),
           text_signature = "($self, function, /, *args, owner=None, name=None, user=None, cleanup=None, on_sync=None, \
                             on_done=None, deadline=None, priority=0, outlive=False, slow=False, in_place=False, \
                             keep=None)")]
    fn enqueue<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        options: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, JobCore>> {
        let wishes = Self::wishes(&function, options.as_ref(), false)?;
        let when_full = slf.get().opened()?.when_full;
        Self::take(slf, Self::work(function, args, None), wishes, when_full)
    }

    /// As `enqueue`, for a generator function: the job is run step by step, and holds no thread between two steps.
    #[pyo3(signature = (function, /, *args, **options),
           text_signature = "($self, function, /, *args, owner=None, name=None, user=None, cleanup=None, on_sync=None, \
                             on_done=None, deadline=None, priority=0, outlive=False, slow=False, in_place=False, \
                             keep=None)")]
    fn enqueue_steps<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        options: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, JobCore>> {
        let wishes = Self::wishes(&function, options.as_ref(), true)?;
        let when_full = slf.get().opened()?.when_full;
        Self::take(slf, Self::work(function, args, None), wishes, when_full)
    }

    /// As `submit`, but that it never waits.
    fn _submit_now<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, JobCore>> {
        callable("function", &function)?;
        Self::take(slf, Self::work(function, args, Some(kwargs)), Wishes::default(), WhenFull::Refuse)
    }

    /// As `enqueue`, but that it never waits and runs nothing here, whatever the pool does when its queue is full.
    fn _enqueue_now<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        options: Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, JobCore>> {
        let wishes = Self::wishes(&function, Some(&options), false)?;
        Self::take(slf, Self::work(function, args, None), wishes, WhenFull::Refuse)
    }

    fn _worker(&self, py: Python<'_>, lane: usize) -> PyResult<Worker> {
        let lane = if lane == 0 { Lane::Jobs } else { Lane::Errands };
        Ok(Worker::arrive(self.core(py)?, lane))
    }

    /// Have the jobs that the threads of this loop enqueue with `in_place=True` run by them, before it has any. Other jobs
    /// still get a thread of the pool, and so do these where no thread of the loop can come; a thread that is there helps.
    /// One pool a loop: of two, one may find the places taken by the other.
    fn _use_threads_of(&self, event_loop: &LoopCore) -> PyResult<()> {
        let opened = self.opened()?;
        let core = event_loop.core()?;
        if opened.host.home.set(Arc::downgrade(core)).is_err() {
            return Err(PyRuntimeError::new_err(format!("pool {:?} uses the threads of a loop already", opened.name)));
        }
        opened.pool.set_home(event_loop.address());
        Ok(())
    }

    fn _start_failed(&self, lane: usize) -> PyResult<()> {
        self.opened()?.pool.start_failed(if lane == 0 { Lane::Jobs } else { Lane::Errands });
        Ok(())
    }

    fn _close_entrance(&self, py: Python<'_>) -> PyResult<()> {
        self.core(py)?.close_entrance();
        Ok(())
    }

    fn _stop_all(&self, py: Python<'_>, reason: usize, every: bool) -> PyResult<usize> {
        let reason = *StopReason::ALL
            .get(reason)
            .ok_or_else(|| PyValueError::new_err(format!("no reason has the number {reason}")))?;
        Ok(self.core(py)?.stop_all(reason, every))
    }

    /// Wait until no job is left and, after `finish()`, every thread has left.
    #[pyo3(signature = (timeout = None))]
    fn _wait_left(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let core = self.core(py)?;
        let timeout = attach::timeout("timeout", timeout)?;
        attach::wait(py, timeout, |limit| core.wait_left(limit))
    }

    /// Seconds, on `now()`, of what expires next; and the jobs that do not check in.
    fn _expire(&self, py: Python<'_>) -> PyResult<(Option<f64>, Vec<Py<JobCore>>)> {
        let core = self.core(py)?;
        let (next, silent) = attach::detached(py, || core.expire());
        let silent = silent.into_iter().filter_map(|token| Some(core.payload(token)?.0)).collect();
        Ok((next.map(seconds), silent))
    }

    fn _counts(&self, py: Python<'_>) -> PyResult<PoolCounts> {
        let stats = self.core(py)?.stats();
        Ok(PoolCounts {
            threads: stats.threads,
            busy: stats.busy,
            queued: stats.queued,
            oldest_wait: stats.oldest_wait.map(seconds),
            submitted: stats.submitted,
            refused: stats.refused,
            running: stats.running,
            syncing_held: stats.syncing_held,
            syncing_parked: stats.syncing_parked,
            stopping: stats.stopping,
            finished: stats.finished,
            stopped: stats.stopped,
            done: stats.done,
            dropped: stats.dropped,
            wait_times: stats.wait_times.to_vec(),
            run_times: stats.run_times.to_vec(),
        })
    }

    /// Every job that has not been reaped: itself, its status, its age in seconds.
    fn _views(&self, py: Python<'_>) -> PyResult<Vec<View>> {
        let views = self.core(py)?.views();
        views.into_iter().map(|view| Ok((view.payload.0, status_object(py, view.status)?, seconds(view.age)))).collect()
    }

    #[getter]
    fn _on_end(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.opened.get()?.on_end.as_ref().map(|hook| hook.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(opened) = self.opened.get() else { return Ok(()) };
        visit.call(&opened.job_class)?;
        visit.call(&opened.on_submit)?;
        visit.call(&opened.on_start)?;
        visit.call(&opened.on_end)?;
        if opened.pool.check_fork().is_err() {
            return Ok(());
        }
        let mut result = Ok(());
        opened.pool.visit(|held| {
            if result.is_ok() {
                result = visit.call(&held.0);
            }
        });
        result
    }

    fn __clear__(&self) {
        self.abandon();
        if let Some(opened) = self.opened.get()
            && opened.pool.check_fork().is_ok()
        {
            drop(opened.pool.drop_done());
        }
    }
}
