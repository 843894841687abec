//! What a job asks of the thread that it runs on.

use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::job::JobCore;
use crate::once::Once;
use crate::{attach, current};

/// The job that the calling thread runs, or None.
#[pyfunction]
pub fn current_job(py: Python<'_>) -> Option<Bound<'_, JobCore>> {
    current::job(py)
}

/// Raise `JobStopped` if the calling thread runs a job that was told to stop; outside a job do nothing.
///
/// A job that runs for long calls it about every 100 ms or more often, from wherever it is: that is how late it can be
/// stopped.
#[pyfunction]
pub fn check_in(py: Python<'_>) -> PyResult<()> {
    if current::told() { Err(stopped(py)) } else { Ok(()) }
}

#[cold]
fn stopped(py: Python<'_>) -> PyErr {
    match current::job(py) {
        Some(job) => crate::job::job_stopped(py, job.get().job()),
        None => PyRuntimeError::new_err("no job runs on this thread"),
    }
}

/// Sleep, in a job no longer than until it is told to stop: then `JobStopped` is raised.
#[pyfunction]
pub fn sleep_blocking(py: Python<'_>, seconds: f64) -> PyResult<()> {
    static SLEEP: Once<Py<PyAny>> = Once::new();
    let duration = attach::duration("seconds", seconds)?;
    let Some(job) = current::job(py) else {
        SLEEP.import(py, "time", "sleep")?.call1((seconds,))?;
        return Ok(());
    };
    check_in(py)?;
    let this = job.get();
    // A job that swallowed its stop sleeps all the same, until it is told again.
    let deadline = std::time::Instant::now() + duration;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let slice = if this.job().reason().is_some() { left.min(Duration::from_millis(50)) } else { left };
        attach::wait(py, Some(slice), |limit| {
            let limit = limit.unwrap_or(slice);
            this.core().sleep(this.job(), limit)
        })?;
        check_in(py)?;
        if std::time::Instant::now() >= deadline {
            return Ok(());
        }
    }
}
