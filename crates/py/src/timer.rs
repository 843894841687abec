//! A timer's handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manyhands_core::Token;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::event_loop::{CoreStrand, LoopCore};

/// A callback at a time of the loop's clock. Made by `call_later`, `call_at` and `call_every`.
///
/// Threads: any. The callback runs on a joined thread, on the timer's strand.
#[pyclass(frozen, module = "manyhands", weakref)]
pub struct Timer {
    pub owner: Py<LoopCore>,
    pub token: Token,
    pub strand: Option<Arc<CoreStrand>>,
    /// Nanoseconds; the last deadline that was seen.
    pub when: AtomicU64,
}

#[pymethods]
impl Timer {
    /// Seconds on the loop's clock: the next deadline, or the last one if it has run or was cancelled.
    #[getter]
    fn when(&self) -> PyResult<f64> {
        if let Some(when) = self.owner.get().core()?.timer_when(self.token) {
            self.when.store(when, Ordering::Relaxed);
        }
        Ok(self.when.load(Ordering::Relaxed) as f64 / 1e9)
    }

    /// Whether its callback is still to run (again).
    #[getter]
    fn active(&self) -> PyResult<bool> {
        Ok(self.owner.get().core()?.timer_when(self.token).is_some())
    }

    /// Take it off the loop; its callback is freed before this returns.
    ///
    /// Returns:
    ///     True if the callback will not run (again) because of this call. False if it had run, runs now for the last
    ///     time, or was cancelled before.
    ///
    /// Blocks: never.
    fn cancel(&self) -> PyResult<bool> {
        Ok(self.owner.get().core()?.cancel_timer(self.token, self.strand.as_ref()))
    }

    fn __repr__(&self) -> PyResult<String> {
        let state = if self.active()? { "active" } else { "ended" };
        Ok(format!("<manyhands.Timer at {:.6} {state}>", self.when()?))
    }

    /// Two handles to one timer are equal: an `ErrorReport` carries a handle of its own.
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().token == self.token && other.get().owner.is(&self.owner))
    }

    fn __hash__(&self) -> u64 {
        self.token.0
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)
    }
}
