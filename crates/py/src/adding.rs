//! Registering a descriptor with its handler.

use std::sync::Arc;

use manyhands_core::sync::Mutex;
use manyhands_core::{Error, Watch as CoreWatch};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::arguments::{callable, descriptor, interest};
use crate::errors::{self, About};
use crate::event_loop::{CoreStrand, LoopCore};
use crate::payload::{Carried, copy_context};
use crate::strand::Strand;
use crate::watch::{Late, Watch};

/// What `add` was called with.
pub struct Wanted<'py> {
    pub fd: Bound<'py, PyAny>,
    pub events: Bound<'py, PyAny>,
    pub handler: Bound<'py, PyAny>,
    pub strand: Option<Bound<'py, Strand>>,
    pub name: Option<Bound<'py, PyAny>>,
    pub close: bool,
    pub on_error: Option<Bound<'py, PyAny>>,
    pub on_removed: Option<Bound<'py, PyAny>>,
}

/// Watches a descriptor.
pub fn add<'py>(owner: &Bound<'py, LoopCore>, wanted: Wanted<'py>) -> PyResult<Py<Watch>> {
    let (this, py) = (owner.get(), owner.py());
    let number = descriptor(&wanted.fd)?;
    let events = interest(&wanted.events)?;
    callable("handler", &wanted.handler)?;
    for (name, hook) in [("on_error", &wanted.on_error), ("on_removed", &wanted.on_removed)] {
        hook.as_ref().map_or(Ok(()), |hook| callable(name, hook))?;
    }
    let core = this.core()?;
    let strand = wanted.strand.clone();
    let on = strand.as_ref().map(|strand| own_strand(owner, strand)).transpose()?;
    let mut made = None;
    let mut refused = None;
    // The core asks for the object when it knows its token, and before the first event can come.
    let result = core.add(number, events, on, |watch| match wanted.object(owner, watch) {
        Ok(object) => {
            made = Some(object.clone_ref(py));
            Ok(Carried::Watch(object))
        }
        Err(error) => {
            refused = Some(error);
            Err(Error::Closed)
        }
    });
    match (result, made) {
        (Ok((_, displaced)), Some(object)) => {
            if let Some(finished) = displaced {
                LoopCore::pay(owner, finished);
            }
            Ok(object)
        }
        (Err(error), _) => Err(refused.unwrap_or_else(|| {
            let watch = core.get(number).and_then(Carried::into_watch).map(|watch| watch.into_bound(py).into_any());
            let strand = strand.map(Bound::into_any);
            errors::raise(py, error, &About { name: this.name(), fd: number, strand, watch })
        })),
        (Ok(_), None) => Err(PyRuntimeError::new_err("the core made no watch")),
    }
}

/// The core's strand of a handle that belongs to this loop.
fn own_strand(owner: &Bound<'_, LoopCore>, strand: &Bound<'_, Strand>) -> PyResult<Arc<CoreStrand>> {
    if strand.get().owner.is(owner) {
        return Ok(strand.get().strand.clone());
    }
    let (name, got) = (owner.get().name(), strand.repr()?);
    Err(PyValueError::new_err(format!("strand must be one of loop {name:?}, and got {got}")))
}

impl Wanted<'_> {
    /// The handle, which keeps everything that the user gave.
    fn object(self, owner: &Bound<'_, LoopCore>, watch: &Arc<CoreWatch<Carried>>) -> PyResult<Py<Watch>> {
        let py = owner.py();
        let late = Late {
            strand: self.strand.map(Bound::unbind),
            on_removed: self.on_removed.into_iter().map(Bound::unbind).collect(),
            close: self.close,
            ..Late::default()
        };
        let something = late.strand.is_some() || late.close || !late.on_removed.is_empty();
        let object = Watch {
            owner: owner.clone().unbind(),
            watch: watch.clone(),
            source: self.fd.unbind(),
            handler: self.handler.unbind(),
            context: copy_context(py)?,
            name: self.name.map(Bound::unbind),
            on_error: self.on_error.map(Bound::unbind),
            late: Mutex::new(something.then(|| Box::new(late))),
        };
        Py::new(py, object)
    }
}
