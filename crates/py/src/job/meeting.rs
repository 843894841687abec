//! A job's sync with its owner.

use manyhands_core::owned::Owner;
use manyhands_core::pool::{AnswerError, MeetError, Met, StopReason};
use manyhands_core::watch::Occupant;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::words::{job_stopped, python, would_deadlock};
use super::{JobCore, Parking};
use crate::payload::{Call, Carried};
use crate::{attach, current};

impl JobCore {
    /// Asks the owner to come: the callback of this sync is queued on its strand.
    pub(super) fn invite(
        slf: &Bound<'_, Self>,
        number: u64,
        value: Bound<'_, PyAny>,
        when_writable: bool,
    ) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        let Some(owned) = this.owned() else { return Ok(()) };
        if when_writable {
            this.late(|late| late.watched = true);
            python!(py, "manyhands._running", "visit_when_writable")?.call1((slf, number, value))?;
            return Ok(());
        }
        let args = (slf, number, value).into_pyobject(py)?;
        let mut call = Call::new("on_sync", python!(py, "manyhands._running", "visit")?.clone(), args)?;
        // A copy: an earlier one may be inside.
        if let Some(context) = this.extra(py, |extras| &extras.context) {
            call.context = context.call_method0(py, "copy")?;
        }
        if let Ok(event_loop) = owned.event_loop.get().core() {
            event_loop.complete(Some(owned.owner.strand()), Carried::Call(call));
        }
        Ok(())
    }

    /// What every sync asks first. None if nobody can answer any more.
    pub(super) fn check_sync(&self, py: Python<'_>, timeout: Option<f64>, when_writable: bool) -> PyResult<Option<()>> {
        let on_sync = self.late(|late| late.extras.as_ref().is_some_and(|extras| extras.on_sync.is_some()));
        let Some(owned) = self.owned() else {
            return Err(PyValueError::new_err("sync() meets the owner: enqueue the job with owner= and on_sync="));
        };
        if !on_sync {
            return Err(PyValueError::new_err(
                "sync() calls on_sync on the owner's strand: enqueue the job with on_sync=",
            ));
        }
        if when_writable && !matches!(owned.owner, Owner::Watch(_)) {
            return Err(PyValueError::new_err("when_writable=True asks for an owner with a descriptor: a Watch"));
        }
        attach::timeout("timeout", timeout)?;
        self.check_fork(py)?;
        Ok((!self.job.orphaned()).then_some(()))
    }

    /// On its own thread, which it keeps: asks the owner to come, and waits for the answer.
    pub(super) fn meet(
        slf: &Bound<'_, Self>,
        value: Option<Bound<'_, PyAny>>,
        timeout: Option<f64>,
        when_writable: bool,
    ) -> PyResult<Option<Py<PyAny>>> {
        let (this, py) = (slf.get(), slf.py());
        if !current::runs(&this.job) {
            let message = format!("sync() of job {} is for the thread that runs it", this.job.id);
            return Err(PyRuntimeError::new_err(message));
        }
        if this.job.steps() {
            return Err(PyRuntimeError::new_err("a stepwise job meets its owner by `yield manyhands.SYNC(value)`"));
        }
        let limit = attach::timeout("timeout", timeout)?;
        if let Some(owned) = this.owned()
            && owned.event_loop.get().core()?.strand_occupant(owned.owner.strand()) == Occupant::Me
        {
            let text = "sync() waits for the owner's strand, and this thread is inside it: run the job on the pool";
            return Err(would_deadlock(py, text));
        }
        if this.check_sync(py, timeout, when_writable)?.is_none() {
            return Ok(None);
        }
        let stale = this.late(|late| late.answer.take());
        drop(stale);
        let number = match this.core.begin_meeting(&this.job, None) {
            Ok((number, _)) => number,
            Err(MeetError::NoOwner) => return Ok(None),
            Err(MeetError::Stopping | MeetError::NotRunning) => {
                this.job.check_in();
                return Err(job_stopped(py, &this.job));
            }
        };
        let value = value.unwrap_or_else(|| py.None().into_bound(py));
        if let Err(error) = Self::invite(slf, number, value, when_writable) {
            this.core.leave_meeting(&this.job, number, true);
            return Err(error);
        }
        let met = attach::wait(py, limit, |limit| this.core.wait_met(&this.job, limit).is_some());
        if !matches!(met, Ok(true)) {
            let reason = if met.is_ok() { StopReason::SyncTimeout } else { StopReason::SyncFailed };
            this.core.stop(&this.job, reason);
        }
        // A callback that is inside is waited for: the two never run at the same time.
        let end = attach::detached(py, || this.core.wait_met(&this.job, None));
        met?;
        match end {
            Some(Met::Answered) => Ok(this.answered(py)),
            Some(Met::Stopping) | None => {
                this.job.check_in();
                Err(job_stopped(py, &this.job))
            }
        }
    }

    /// The answer is stored in the step that takes it: the job goes on at once.
    pub(super) fn give_answer(&self, py: Python<'_>, value: Option<Py<PyAny>>) -> PyResult<()> {
        self.check_fork(py)?;
        let value = value.unwrap_or_else(|| py.None());
        let mut spare = Some(value);
        let answered = self.late(|late| {
            core::mem::swap(&mut late.answer, &mut spare);
            let answered = self.core.answer(&self.job);
            if answered.is_err() {
                core::mem::swap(&mut late.answer, &mut spare);
            }
            answered
        });
        drop(spare);
        match answered {
            Ok(wanted) => {
                Self::perform(py, &self.core, wanted);
                Ok(())
            }
            Err(AnswerError::Answered) => {
                Err(PyRuntimeError::new_err(format!("job {} has its answer already: one for each sync", self.job.id)))
            }
            Err(AnswerError::NotSyncing(status)) => Err(PyRuntimeError::new_err(format!(
                "job {} is {} and waits for no answer: answer() is for a job that is SYNCING",
                self.job.id,
                format!("{status:?}").to_uppercase()
            ))),
        }
    }

    /// A stepwise job's sync, when its step has returned. False if nobody can answer any more: the step goes on.
    pub(super) fn park_for_sync(
        &self,
        py: Python<'_>,
        value: Py<PyAny>,
        timeout: Option<f64>,
        when_writable: bool,
    ) -> PyResult<bool> {
        let open = self.check_sync(py, timeout, when_writable)?.is_some();
        let stale = self.late(|late| {
            if open {
                late.parking = Some(Parking::Sync { value, timeout, when_writable });
            }
            late.answer.take()
        });
        drop(stale);
        Ok(open)
    }
}
