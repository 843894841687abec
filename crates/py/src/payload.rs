//! What the core carries for Python: a call to make, the object that stands for a watch, or a pool.

use std::sync::Arc;

use manyhands_core::Payload;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::pool::CorePool;
use crate::strand::Strand;
use crate::watch::Watch;

/// A callable with its arguments, and the context that it runs in.
pub struct Call {
    /// What an `ErrorReport` calls it.
    pub source: &'static str,
    /// The strand that it was posted to, if any.
    pub strand: Option<Py<Strand>>,
    pub callable: Py<PyAny>,
    pub args: Py<PyTuple>,
    /// A `contextvars.Context`.
    pub context: Py<PyAny>,
}

/// What the core carries.
pub enum Carried {
    Call(Call),
    Watch(Py<Watch>),
    /// A pool that has sent for a thread.
    Pool(Arc<CorePool>),
}

impl Call {
    /// The call, to be run in a copy of the current context.
    pub fn new(source: &'static str, callable: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<Self> {
        let context = copy_context(callable.py())?;
        Ok(Self { source, strand: None, callable: callable.unbind(), args: args.unbind(), context })
    }

    /// The same call, on a strand.
    pub fn on(mut self, strand: Option<&Bound<'_, Strand>>) -> Self {
        self.strand = strand.map(|strand| strand.clone().unbind());
        self
    }
}

impl Payload for Carried {
    fn duplicate(&self) -> Self {
        // SAFETY: the core calls this in attached calls only.
        let py = unsafe { Python::assume_attached() };
        match self {
            Self::Call(call) => Self::Call(Call {
                source: call.source,
                strand: call.strand.as_ref().map(|strand| strand.clone_ref(py)),
                callable: call.callable.clone_ref(py),
                args: call.args.clone_ref(py),
                context: call.context.clone_ref(py),
            }),
            Self::Watch(watch) => Self::Watch(watch.clone_ref(py)),
            Self::Pool(pool) => Self::Pool(pool.clone()),
        }
    }
}

impl Carried {
    /// The watch, if it stands for one.
    pub fn into_watch(self) -> Option<Py<Watch>> {
        match self {
            Self::Watch(watch) => Some(watch),
            Self::Call(_) | Self::Pool(_) => None,
        }
    }

    /// Shows the collector what is held.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Call(call) => {
                visit.call(&call.strand)?;
                visit.call(&call.callable)?;
                visit.call(&call.args)?;
                visit.call(&call.context)
            }
            Self::Watch(watch) => visit.call(watch),
            // Its jobs are the pool's object's to show.
            Self::Pool(_) => Ok(()),
        }
    }
}

/// `contextvars.copy_context()`.
pub fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached; the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, pyo3::ffi::PyContext_CopyCurrent()).map(Bound::unbind) }
}
