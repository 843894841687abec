//! What Python sees of a job: docstrings and signatures.

use std::sync::atomic::Ordering;

use manyhands_core::pool::{Status, StopReason, Stopped};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::words::{job_stopped, reason_object, status_object};
use super::{Callable, Callback, JobCore, Parking};
use crate::current;
use crate::event_loop::LoopCore;
use crate::pool::PoolCore;

#[pymethods]
impl JobCore {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        Self::of_parts(py)
    }

    /// Unique in the process; a later job has a larger one.
    #[getter]
    fn id(&self) -> u64 {
        self.job.id
    }

    /// The name given at `enqueue`, or the function's with the job's number.
    #[getter]
    pub(super) fn name(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.name {
            Some(name) => Ok(name.clone_ref(py)),
            None => {
                let called = self.called.as_ref().map_or("job", |called| called.bind(py).to_str().unwrap_or("job"));
                Ok(format!("{called}-{}", self.job.id).into_pyobject(py)?.into_any().unbind())
            }
        }
    }

    /// Where it is now, a `JobStatus`. Looking does not reap it.
    #[getter]
    fn status(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        status_object(py, self.job.status())
    }

    /// Why it was told to stop, a `StopReason`; None if it was not.
    #[getter]
    fn reason(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.job.reason().map(|reason| reason_object(py, reason)).transpose()
    }

    /// Whether it was told to stop.
    #[getter]
    fn stop_requested(&self) -> bool {
        self.job.reason().is_some()
    }

    /// The watch or strand that it belongs to; None without one, after `detach()`, and when it has outlived it.
    #[getter]
    fn owner(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        if self.job.orphaned() { None } else { self.owned().map(|owned| owned.object.clone_ref(py)) }
    }

    /// What was given as `user=`.
    #[getter]
    fn user(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.user.as_ref().map(|user| user.clone_ref(py))
    }

    /// What the owner answered to the last sync.
    #[getter]
    pub(super) fn answered(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.late(|late| late.answer.as_ref().map(|answer| answer.clone_ref(py)))
    }

    #[getter]
    fn _pool(&self, py: Python<'_>) -> Py<PoolCore> {
        self.pool.clone_ref(py)
    }

    /// What was given as `owner=`, also when it is gone.
    #[getter]
    fn _owned(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.owned().map(|owned| owned.object.clone_ref(py))
    }

    #[getter]
    fn _event_loop(&self, py: Python<'_>) -> Option<Py<LoopCore>> {
        self.owned().map(|owned| owned.event_loop.clone_ref(py))
    }

    #[getter]
    fn _thread(&self) -> u64 {
        self.thread.load(Ordering::Relaxed)
    }

    #[getter]
    fn _context(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.context(py)
    }

    /// That of the enqueue.
    #[getter]
    fn _enqueue_context(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.extra(py, |extras| &extras.context).map_or_else(|| self.context(py), Ok)
    }

    /// Tell it to stop: a queued one never runs, a running one hears of it at its next check-in.
    ///
    /// Returns:
    ///     True if it will never run, or was told, now or before. False if it had ended.
    ///
    /// Threads: any; also a handler of signals or a finalizer. Blocks: never.
    fn stop(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_fork(py)?;
        let (core, job) = (&self.core, &self.job);
        Ok(core.stop(job, StopReason::Caller) != Stopped::Ended)
    }

    /// Tell it, as the end of its owner does: for who sees that first.
    fn _leave_owner(&self, py: Python<'_>) -> PyResult<()> {
        self.check_fork(py)?;
        self.core.stop(&self.job, StopReason::OwnerGone);
        Ok(())
    }

    /// As `concurrent.futures.Future.cancel`: a queued job is cancelled, a running one is told to stop.
    ///
    /// Returns:
    ///     True if it is cancelled. False if it runs, and was told, or if it has finished.
    fn cancel(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_fork(py)?;
        Ok(match self.core.stop(&self.job, StopReason::Caller) {
            Stopped::Never => true,
            Stopped::Ended => self.cancelled(),
            // It hears of it, and what it does then is its own.
            Stopped::Told | Stopped::Asked => false,
        })
    }

    /// Whether it was stopped by its caller: it never ran, or gave up because of that.
    #[pyo3(name = "cancelled")]
    fn py_cancelled(&self) -> bool {
        self.cancelled()
    }

    /// Whether it has begun and not ended: it is RUNNING, SYNCING or STOPPING.
    fn running(&self) -> bool {
        matches!(self.job.status(), Status::Running | Status::Syncing | Status::Stopping)
    }

    /// Whether it has ended: it is FINISHED or STOPPED.
    fn done(&self) -> bool {
        self.job.status().ended()
    }

    /// Wait for it to end, and return what its function returned.
    ///
    /// Args:
    ///     timeout: Seconds; None for ever.
    ///
    /// Raises:
    ///     Exception: what its function raised.
    ///     JobCancelled: it was stopped by `stop()` or `cancel()`.
    ///     JobAborted: it was stopped for another reason, which the error has.
    ///     TimeoutError: it has not ended in time.
    ///     WouldDeadlock: a job asked for its own, or no thread of its pool is left to run this one.
    #[pyo3(signature = (timeout = None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        self.wait_result(py, timeout)
    }

    /// Wait for it to end, and return what its function raised, or None.
    ///
    /// Of a job that was stopped by another than its caller it is a `JobAborted`.
    ///
    /// Args:
    ///     timeout: Seconds; None for ever.
    ///
    /// Raises:
    ///     JobCancelled: it was stopped by `stop()` or `cancel()`.
    ///     TimeoutError, WouldDeadlock: as `result`.
    #[pyo3(signature = (timeout = None))]
    fn exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        self.wait_exception(py, timeout)
    }

    /// On its own thread: raise `JobStopped` if it was told to stop.
    ///
    /// The first call after the stop raises, and then one in each second, for a job that went on all the same.
    ///
    /// Raises:
    ///     JobStopped: it was told to stop; the error has the reason.
    ///     RuntimeError: the calling thread does not run this job.
    fn check_in(&self, py: Python<'_>) -> PyResult<()> {
        if !current::runs(&self.job) {
            return Err(PyRuntimeError::new_err(format!(
                "check_in() of job {} is for the thread that runs it",
                self.job.id
            )));
        }
        if self.job.check_in() { Err(job_stopped(py, &self.job)) } else { Ok(()) }
    }

    /// Meet the owner: `on_sync(job, value)` runs on its strand while the job waits, and somebody calls `answer()`.
    ///
    /// Args:
    ///     value: For `on_sync`.
    ///     timeout: Seconds; then the job is stopped with SYNC_TIMEOUT. None for ever.
    ///     when_writable: Call `on_sync` when the owner's descriptor can be written to; the owner is a Watch.
    ///
    /// Returns:
    ///     What was answered. None if the owner is gone and the job outlives it.
    ///
    /// Raises:
    ///     JobStopped: it was told to stop, or nobody answered in time, or `on_sync` raised.
    ///     ValueError: it has no owner or no `on_sync`.
    ///     RuntimeError: the calling thread does not run this job, or the job is stepwise (`yield mh.SYNC(value)`).
    #[pyo3(signature = (value = None, timeout = Some(30.0), *, when_writable = false),
           text_signature = "($self, value=None, timeout=30.0, *, when_writable=False)")]
    fn sync(
        slf: &Bound<'_, Self>,
        value: Option<Bound<'_, PyAny>>,
        timeout: Option<f64>,
        when_writable: bool,
    ) -> PyResult<Option<Py<PyAny>>> {
        Self::meet(slf, value, timeout, when_writable)
    }

    /// The owner's side of a sync: let the job go on with this value. Once for each sync, in `on_sync` or later.
    ///
    /// Raises:
    ///     RuntimeError: the job waits for no answer, or has one.
    ///
    /// Threads: any. Blocks: never.
    #[pyo3(signature = (value = None))]
    fn answer(&self, py: Python<'_>, value: Option<Py<PyAny>>) -> PyResult<()> {
        self.give_answer(py, value)
    }

    /// Take it off its pool's done queue, once.
    ///
    /// Returns:
    ///     Its status, FINISHED or STOPPED.
    ///
    /// Raises:
    ///     RuntimeError: it has not ended, or has no place there: it has no owner, was detached, was reaped before, or
    ///         was dropped because more than `max_done` waited.
    fn reap(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_fork(py)?;
        let (reaped, payload) = self.core.reap(&self.job);
        drop(payload);
        if reaped {
            return status_object(py, self.job.status());
        }
        let why = if self.job.status().ended() { "it is not on the done queue" } else { "it has not ended" };
        Err(PyRuntimeError::new_err(format!("job {} cannot be reaped: {why}", self.job.id)))
    }

    /// Part it from its owner: it goes on when that ends, and reaps itself. Idempotent.
    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        self.check_fork(py)?;
        if let Some(owned) = self.owned()
            && let Ok(event_loop) = owned.event_loop.get().core()
        {
            event_loop.disown(&owned.owner, &self.job);
        }
        let (payload, wanted) = self.core.disown(&self.job);
        drop(payload);
        Self::perform(py, &self.core, wanted);
        Ok(())
    }

    fn _take_work(&self) -> Option<Callable> {
        self.late(|late| late.work.take()).map(|work| (work.function, work.args, work.kwargs))
    }

    fn _take_cleanup(&self) -> Option<Py<PyAny>> {
        self.take_cleanup()
    }

    fn _take_on_done(&self) -> Option<Callback> {
        self.late(|late| late.on_done.take())
    }

    #[pyo3(name = "_let_go")]
    fn py_let_go(&self) {
        self.let_go();
    }

    fn _take_callbacks(&self) -> Vec<Py<PyAny>> {
        self.late(|late| core::mem::take(&mut late.callbacks))
    }

    /// False if it has been concluded: then the caller calls it.
    fn _add_callback(&self, callback: Py<PyAny>) -> bool {
        let refused = self.late(|late| {
            if late.concluded {
                return Some(callback);
            }
            late.callbacks.push(callback);
            None
        });
        refused.is_none()
    }

    #[getter]
    fn _concluded(&self) -> bool {
        self.late(|late| late.concluded)
    }

    #[getter]
    fn _conditioned(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.late(|late| late.condition.as_ref().map(|condition| condition.clone_ref(py)))
    }

    /// The Future's condition from now on, if there is none yet; returns the one that is.
    fn _set_condition(&self, py: Python<'_>, condition: Py<PyAny>) -> Py<PyAny> {
        self.set_condition(py, condition)
    }

    #[pyo3(name = "_conclude")]
    fn py_conclude(slf: &Bound<'_, Self>, held: bool) -> PyResult<bool> {
        Self::conclude(slf, held)
    }

    fn _on_sync(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.extra(py, |extras| &extras.on_sync)
    }

    fn _enter_meeting(&self, number: u64) -> bool {
        self.core.enter_meeting(&self.job, number)
    }

    fn _leave_meeting(&self, number: u64, failed: bool) {
        self.core.leave_meeting(&self.job, number, failed);
    }

    /// Whether others wait for a thread that would get it before this one.
    fn _others_wait(&self) -> bool {
        self.core.others_wait(&self.job)
    }

    /// What is left of it are steps, as of a job that was enqueued as a stepwise one.
    fn _go_on_by_steps(&self) {
        self.core.go_on_by_steps(&self.job);
    }

    /// What this stepwise job does when its step has returned.
    fn _park(&self) {
        self.late(|late| late.parking = Some(Parking::LetGo));
    }

    /// False if nobody can answer any more: the step goes on.
    fn _park_for_sync(
        &self,
        py: Python<'_>,
        value: Py<PyAny>,
        timeout: Option<f64>,
        when_writable: bool,
    ) -> PyResult<bool> {
        self.park_for_sync(py, value, timeout, when_writable)
    }

    /// Whether the stop is to be told now: once for a stepwise job.
    fn _told(&self) -> bool {
        self.job.reason().is_some() && !self.job.was_told() && self.job.check_in()
    }

    fn _want_on_stop(&self, want: bool) -> bool {
        self.core.want_on_stop(&self.job, want)
    }

    #[getter]
    fn _value(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.late(|late| late.result.as_ref().map(|result| result.clone_ref(py)))
    }

    #[getter]
    fn _error(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.job.status() == Status::Stopped {
            return self.stopped_error(py).map(Some);
        }
        Ok(self.late(|late| late.error.as_ref().map(|error| error.clone_ref(py))))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.traverse(&visit)
    }

    fn __clear__(&self) {
        let late = self.late(core::mem::take);
        drop(late);
    }
}
