//! One exhaustive match from the core's refusals to Python's exceptions, which say what was expected, what came and what
//! to do (`manyhands.errors`).

use manyhands_core::error::Error;
use manyhands_core::poller::PollError;
use manyhands_core::state::RemovalReason;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use crate::once::Once;

/// What a refused call was about, for the text of its exception.
#[derive(Default)]
pub struct About<'a> {
    /// The loop's name.
    pub name: &'a str,
    /// The descriptor.
    pub fd: i32,
    /// The strand or its name.
    pub strand: Option<Bound<'a, PyAny>>,
    /// The watch that is there already.
    pub watch: Option<Bound<'a, PyAny>>,
}

macro_rules! class {
    ($py:expr, $name:literal) => {{
        static CLASS: Once<Py<PyAny>> = Once::new();
        CLASS.import($py, "manyhands.errors", $name)
    }};
}

fn made<'py>(class: PyResult<&Bound<'py, PyAny>>, args: impl pyo3::call::PyCallArgs<'py>) -> PyErr {
    match class.and_then(|class| class.call1(args)) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// The exception for a refusal of the core.
pub fn raise<'py>(py: Python<'py>, error: Error, about: &About<'py>) -> PyErr {
    let name = about.name;
    match error {
        Error::Closed => made(class!(py, "LoopClosed"), (name,)),
        Error::Stopped => made(class!(py, "LoopStopped"), (name,)),
        Error::Forked { parent } => made(class!(py, "ForkedError"), (format!("loop {name:?}"), parent)),
        Error::Inside { joined } => PyRuntimeError::new_err(format!(
            "loop {name:?} cannot be restarted while {joined} thread(s) are still in join(): call stop() and wait for it"
        )),
        Error::WatchExists => made(class!(py, "WatchExists"), (about.fd, about.watch.clone())),
        Error::WatchRemoved { reason } => made(class!(py, "WatchRemoved"), (about.fd, removal_reason(py, reason))),
        Error::StrandClosed => made(class!(py, "StrandClosed"), (about.strand.clone(),)),
        Error::QueueFull { limit } => made(class!(py, "QueueFull"), (about.strand.clone(), limit)),
        Error::Poll(PollError::BadDescriptor | PollError::Missing) => made(class!(py, "BadDescriptor"), (about.fd,)),
        Error::Poll(PollError::NotPollable) => made(class!(py, "NotPollable"), (about.fd,)),
        Error::Poll(PollError::Exists) => made(class!(py, "WatchExists"), (about.fd, about.watch.clone())),
        Error::Poll(PollError::TooLarge { limit }) => {
            made(class!(py, "NotPollable"), (about.fd, format!("poller='select' takes descriptors below {limit}")))
        }
        Error::Poll(PollError::Os(errno)) => PyOSError::new_err((errno, strerror(py, errno))),
    }
}

pub fn strerror(py: Python<'_>, errno: i32) -> String {
    py.import("os").and_then(|os| os.call_method1("strerror", (errno,))?.extract()).unwrap_or_default()
}

/// A call that would wait, on a lent thread.
pub fn would_deadlock(py: Python<'_>, call: &str, name: &str) -> PyErr {
    made(class!(py, "WouldDeadlock"), (call, name))
}

/// The `RemovalReason` of Python.
pub fn removal_reason(py: Python<'_>, reason: RemovalReason) -> Option<Bound<'_, PyAny>> {
    static CLASS: Once<Py<PyAny>> = Once::new();
    let name = match reason {
        RemovalReason::Removed => "REMOVED",
        RemovalReason::FdGone => "FD_GONE",
        RemovalReason::HandlerError => "HANDLER_ERROR",
        RemovalReason::StrandClosed => "STRAND_CLOSED",
        RemovalReason::LoopClosed => "LOOP_CLOSED",
    };
    CLASS.import(py, "manyhands._events", "RemovalReason").and_then(|class| class.getattr(name)).ok()
}

/// The exception for a refusal that has nothing to do with a loop.
pub fn raise_about(py: Python<'_>, error: Error, what: &str) -> PyErr {
    match error {
        Error::Forked { parent } => made(class!(py, "ForkedError"), (what, parent)),
        other => raise(py, other, &About { name: what, ..About::default() }),
    }
}

/// A pool holds as many jobs as it may.
pub fn pool_full(py: Python<'_>, pool: &Bound<'_, PyAny>, limit: usize) -> PyErr {
    made(
        class!(py, "QueueFull")
            .and_then(|class| class.getattr("of_pool"))
            .as_ref()
            .map_err(|error| error.clone_ref(py)),
        (pool, limit),
    )
}

/// A pool takes no more jobs.
pub fn pool_finished(py: Python<'_>, name: &str) -> PyErr {
    made(class!(py, "PoolFinished"), (name,))
}

/// What is wrong with a stream, a channel or a proactor, by the name of its class in `manyhands.errors`.
pub fn resource(py: Python<'_>, class: &str, about: &str) -> PyErr {
    static ERRORS: Once<Py<PyModule>> = Once::new();
    let made = || -> PyResult<PyErr> {
        let errors = ERRORS.get_or_try_init(|| py.import("manyhands.errors").map(Bound::unbind))?;
        let class = errors.bind(py).getattr(class)?;
        let error = if about.is_empty() { class.call0()? } else { class.call1((about,))? };
        Ok(PyErr::from_value(error))
    };
    made().unwrap_or_else(|error| error)
}

/// The end of a stream came before all that was asked for.
pub fn incomplete(py: Python<'_>, partial: &[u8]) -> PyErr {
    made(class!(py, "IncompleteRead"), (pyo3::types::PyBytes::new(py, partial),))
}
