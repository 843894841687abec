//! A job's statuses, reasons and errors, as Python knows them.

use manyhands_core::pool::{Job, Status, StopReason};
use pyo3::prelude::*;

use crate::once::Once;

macro_rules! python {
    ($py:expr, $module:literal, $name:literal) => {{
        static OBJECT: crate::once::Once<Py<PyAny>> = crate::once::Once::new();
        OBJECT.import($py, $module, $name)
    }};
}
pub(super) use python;

fn member(py: Python<'_>, class: &str, index: usize) -> PyResult<Py<PyAny>> {
    static MEMBERS: Once<[Vec<Py<PyAny>>; 2]> = Once::new();
    let members = MEMBERS.get_or_try_init(|| -> PyResult<_> {
        let module = py.import("manyhands._job")?;
        let of = |name| -> PyResult<Vec<Py<PyAny>>> {
            module.getattr(name)?.try_iter()?.map(|member| Ok(member?.unbind())).collect()
        };
        Ok([of("JobStatus")?, of("StopReason")?])
    })?;
    Ok(members[usize::from(class == "StopReason")][index].clone_ref(py))
}

/// The `JobStatus` of Python.
pub fn status_object(py: Python<'_>, status: Status) -> PyResult<Py<PyAny>> {
    member(py, "JobStatus", status as usize)
}

/// The `StopReason` of Python.
pub(super) fn reason_object(py: Python<'_>, reason: StopReason) -> PyResult<Py<PyAny>> {
    member(py, "StopReason", reason as usize - 1)
}

pub(super) fn error(py: Python<'_>, class: PyResult<&Bound<'_, PyAny>>, reason: Option<StopReason>) -> PyErr {
    let made = || -> PyResult<_> {
        let reason = reason.map(|reason| reason_object(py, reason)).transpose()?;
        class?.call1((reason,))
    };
    match made() {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// `JobStopped`, with the reason.
pub fn job_stopped(py: Python<'_>, job: &Job) -> PyErr {
    error(py, python!(py, "manyhands.errors", "JobStopped"), job.reason())
}

/// `WouldDeadlock`, in these words.
pub(super) fn would_deadlock(py: Python<'_>, text: &str) -> PyErr {
    match python!(py, "manyhands.errors", "WouldDeadlock").and_then(|class| class.call_method1("about", (text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
