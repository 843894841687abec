//! The clock that tests move by hand.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::attach;

/// A clock for a loop's timers that stands until it is moved. Use `manyhands.testing.MockClock`.
#[pyclass(frozen, subclass, module = "manyhands._core")]
pub struct ManualClock {
    pub clock: Arc<manyhands_core::ManualClock>,
}

#[pymethods]
impl ManualClock {
    #[new]
    #[pyo3(signature = (start = 0.0, *, autojump = false))]
    fn new(start: f64, autojump: bool) -> PyResult<Self> {
        let start = attach::duration("start", start)?.as_nanos() as u64;
        Ok(Self { clock: Arc::new(manyhands_core::ManualClock::new(start, autojump)) })
    }

    /// The time that it shows, in seconds.
    fn now(&self) -> f64 {
        self.clock.now() as f64 / 1e9
    }

    /// Move it on by so many seconds, 0 or more, and wake every loop that uses it. Returns at once.
    fn advance(&self, seconds: f64) -> PyResult<()> {
        self.clock.advance(attach::duration("seconds", seconds)?.as_nanos() as u64);
        Ok(())
    }

    /// Whether it moves by itself, to the next timer, whenever every joined thread of its loops waits.
    #[getter]
    fn autojump(&self) -> bool {
        self.clock.autojump()
    }

    #[setter]
    fn set_autojump(&self, autojump: bool) {
        self.clock.set_autojump(autojump);
    }
}
