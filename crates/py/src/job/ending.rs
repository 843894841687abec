//! The end of a job: what its function returned or raised, its last status, and those who wait for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use manyhands_core::pool::{NobodyLeft, Outcome, Status, StopReason};
use manyhands_core::sync::Arc;
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::words::{error, python, would_deadlock};
use super::{JobCore, Owned, Parking};
use crate::event_loop::Core;
use crate::payload::{Call, Carried};
use crate::pool::Held;
use crate::{attach, current, in_place};

impl JobCore {
    /// Its function returned. True if that was not the end: it lets go of its thread.
    pub fn store_value(slf: &Bound<'_, Self>, value: Bound<'_, PyAny>) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        if !this.job.steps() {
            this.late(|late| late.result = Some(value.unbind()));
            return Ok(false);
        }
        let parking = this.late(|late| late.parking.take());
        match parking {
            None => {
                this.late(|late| late.result = Some(value.unbind()));
                return Ok(false);
            }
            Some(Parking::LetGo) => {
                this.set_thread(0);
                in_place::perform_leaving(py, this, this.core.let_go(&this.job));
            }
            Some(Parking::Sync { value, timeout, when_writable }) => {
                let timeout = attach::timeout("timeout", timeout)?;
                this.set_thread(0);
                match this.core.begin_meeting(&this.job, timeout) {
                    Ok((number, wanted)) => {
                        if let Err(error) = Self::invite(slf, number, value.into_bound(py), when_writable) {
                            // It has no thread any more: stopped meanwhile, it may have gone on, and ended, on another.
                            if this.job.status() == Status::Syncing {
                                error.write_unraisable(py, Some(slf.as_any()));
                            }
                            this.core.leave_meeting(&this.job, number, true);
                        }
                        in_place::perform_leaving(py, this, wanted);
                    }
                    // Told to stop, or left by its owner, meanwhile: its next step hears of it.
                    Err(_) => in_place::perform_leaving(py, this, this.core.let_go(&this.job)),
                }
            }
        }
        Ok(true)
    }

    /// Its function raised.
    pub fn store_error(&self, py: Python<'_>, raised: Bound<'_, PyAny>) -> PyResult<()> {
        let stopped = raised.is_instance(python!(py, "manyhands.errors", "JobStopped")?)?;
        // Not its status: that moves a moment after the job can hear of its stop.
        let asked = self.job.reason().is_some();
        let kept = if stopped && !asked {
            let error = PyRuntimeError::new_err(
                "the job raised JobStopped, or returned STOPPED, and nobody had told it to stop",
            );
            error.set_cause(py, Some(PyErr::from_value(raised)));
            Some(error.into_value(py).into_any())
        } else if stopped {
            None
        } else {
            Some(raised.unbind())
        };
        self.late(|late| {
            late.gave_up = stopped && asked;
            late.error = kept;
        });
        Ok(())
    }

    /// Its end, once: its status, its place on the done queue. `held`: the caller holds the Future's condition. False if
    /// there is a condition and it is not held.
    pub fn conclude(slf: &Bound<'_, Self>, held: bool) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        this.core.ending();
        // Status and the Future's own state change under one lock: who asks for the condition later finds the end.
        let (done, ended) = this.late(|late| {
            // It has been, and somebody asked to be told meanwhile.
            let done = late.concluded;
            if done || late.condition.is_some() && !held {
                return (done, None);
            }
            late.concluded = true;
            let outcome = if late.gave_up { Outcome::GaveUp } else { Outcome::Finished };
            let ended = if this.job.status().ended() {
                this.core.conclude(&this.job)
            } else {
                this.core.end(&this.job, outcome)
            };
            (true, Some(ended))
        });
        let Some(ended) = ended else { return Ok(done) };
        this.set_thread(0);
        drop((ended.payload, ended.evicted));
        // What the user has called at the end may take long: another thread is to come for what waits.
        if this.has_callbacks() || this.pool().get().has_on_end() {
            Self::perform(py, &this.core, ended.call);
        } else {
            in_place::perform_leaving(py, this, ended.call);
        }
        if let Some(owned) = this.owned() {
            if let Ok(event_loop) = owned.event_loop.get().core() {
                event_loop.disown(&owned.owner, &this.job);
                Self::call_on_done(slf, owned, event_loop)?;
            }
        }
        Ok(true)
    }

    /// Has `on_done` called on the owner's strand; by the pool, if the loop is closed.
    pub(super) fn call_on_done(slf: &Bound<'_, Self>, owned: &Owned, event_loop: &Core) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        let taken = this.late(|late| {
            let extras = late.extras.as_deref_mut()?;
            extras.on_done.take().zip(extras.context.take())
        });
        let Some((callable, context)) = taken else { return Ok(()) };
        let args = PyTuple::new(py, [slf])?.unbind();
        let call = Call { source: "on_done", strand: None, callable, args, context };
        if let Err(Carried::Call(call)) = event_loop.complete_unless_closed(owned.owner.strand(), Carried::Call(call)) {
            this.late(|late| late.on_done = Some((call.callable, call.context)));
            Self::perform(py, &this.core, this.core.owe(Held(slf.clone().unbind())));
        }
        Ok(())
    }

    pub(super) fn wait_ended(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.check_fork(py)?;
        if self.job.status().ended() {
            return Ok(());
        }
        let timeout = attach::timeout("timeout", timeout)?;
        if current::runs(&self.job) && timeout != Some(Duration::ZERO) {
            let name = self.name(py)?.bind(py).str()?.to_string();
            let text =
                format!("job {name:?} waits for its own end, which does not come while it waits: do that elsewhere");
            return Err(would_deadlock(py, &text));
        }
        let here = current::job(py);
        let mine = here.as_ref().filter(|here| current::holds_slot() && Arc::ptr_eq(&here.get().core, &self.core));
        let stuck = std::sync::atomic::AtomicBool::new(false);
        let (core, job, counted) = (&self.core, &self.job, mine.is_some());
        let ended = attach::wait(py, timeout, |limit| match core.wait_ended(job, limit, counted) {
            Ok(ended) => ended,
            Err(NobodyLeft) => {
                stuck.store(true, Ordering::Relaxed);
                true
            }
        })?;
        if stuck.load(Ordering::Relaxed) {
            let waiting = match mine {
                Some(job) => job.repr()?.to_string(),
                None => String::new(),
            };
            let text = format!(
                "{waiting} waits for job {:?} of its own pool, and no thread of the pool is left to run it: give the pool \
                 more threads, use a second pool, or a stepwise job",
                self.name(py)?.bind(py).str()?.to_string()
            );
            return Err(would_deadlock(py, &text));
        }
        if ended { Ok(()) } else { Err(PyTimeoutError::new_err(format!("job {} has not ended in time", self.job.id))) }
    }

    /// The exception of a job that was stopped: made once.
    pub(super) fn stopped_error(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(kept) = self.late(|late| late.error.as_ref().map(|error| error.clone_ref(py))) {
            return Ok(kept);
        }
        let made = match self.job.reason() {
            Some(StopReason::Caller) => error(py, python!(py, "manyhands.errors", "JobCancelled"), self.job.reason()),
            reason => error(py, python!(py, "manyhands._running", "aborted"), reason),
        };
        let mut made = Some(made.into_value(py).into_any());
        let kept = self.late(|late| {
            late.error = late.error.take().or_else(|| made.take());
            late.error.as_ref().map_or_else(|| py.None(), |error| error.clone_ref(py))
        });
        drop(made);
        Ok(kept)
    }

    pub(super) fn cancelled(&self) -> bool {
        self.job.status() == Status::Stopped && self.job.reason() == Some(StopReason::Caller)
    }

    /// Waits for its end; what its function returned, or raised.
    pub(super) fn wait_result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        self.wait_ended(py, timeout)?;
        if self.job.status() == Status::Stopped {
            return Err(PyErr::from_value(self.stopped_error(py)?.into_bound(py)));
        }
        let copy = |kept: &Option<Py<PyAny>>| kept.as_ref().map(|kept| kept.clone_ref(py));
        let (result, error) = self.late(|late| (copy(&late.result), copy(&late.error)));
        match error {
            Some(error) => Err(PyErr::from_value(error.into_bound(py))),
            None => Ok(result.unwrap_or_else(|| py.None())),
        }
    }

    /// Waits for its end; what its function raised.
    pub(super) fn wait_exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        self.wait_ended(py, timeout)?;
        if self.cancelled() {
            return Err(PyErr::from_value(self.stopped_error(py)?.into_bound(py)));
        }
        if self.job.status() == Status::Stopped {
            return self.stopped_error(py).map(Some);
        }
        Ok(self.late(|late| late.error.as_ref().map(|error| error.clone_ref(py))))
    }

    /// Once: what to call before its last status.
    pub(super) fn take_cleanup(&self) -> Option<Py<PyAny>> {
        let (work, cleanup) = self.late(|late| (late.work.take(), late.extras.as_mut().and_then(|e| e.cleanup.take())));
        // What it was called with is not needed any more; it is dropped here, under no lock.
        drop(work);
        cleanup
    }

    /// The Future's condition from now on, if there is none yet; returns the one that is.
    pub(super) fn set_condition(&self, py: Python<'_>, condition: Py<PyAny>) -> Py<PyAny> {
        let mut spare = Some(condition);
        let kept = self.late(|late| match &late.condition {
            Some(kept) => kept.clone_ref(py),
            None => {
                late.condition = spare.take();
                late.condition.as_ref().map_or_else(|| py.None(), |kept| kept.clone_ref(py))
            }
        });
        drop(spare);
        kept
    }
}
