//! The compiled half of `manyhands.EventLoop`: the object. What Python sees of it is in [`crate::methods`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manyhands_core::event_loop::Options;
use manyhands_core::watch::Finished;
use manyhands_core::{Clock, Error, EventLoop, Life, Origin, PollerKind};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::clock::ManualClock;
use crate::errors::{self, About};
use crate::payload::Carried;
use crate::watch::Watch;
use crate::{attach, run};

pub type Core = EventLoop<Carried>;
pub type CoreSeat = manyhands_core::Seat<Carried>;
pub type CoreStrand = manyhands_core::Strand<Carried>;

/// The compiled half of `manyhands.EventLoop`: descriptors, messages, timers, and the serving of them.
#[pyclass(frozen, subclass, weakref, module = "manyhands._core")]
pub struct LoopCore {
    opened: OnceLock<(Arc<Core>, String)>,
    /// Its own class: see `sight::traverse`.
    class: OnceLock<Py<PyType>>,
    errors: AtomicU64,
}

impl LoopCore {
    /// As Python's `__new__` makes it.
    pub fn unopened() -> Self {
        Self { opened: OnceLock::new(), class: OnceLock::new(), errors: AtomicU64::new(0) }
    }

    /// As `EventLoop.__init__` makes it.
    pub fn open(
        owner: &Bound<'_, Self>,
        name: String,
        poller: &str,
        clock: Option<&ManualClock>,
        parallel: bool,
        handover: Duration,
    ) -> PyResult<()> {
        let this = owner.get();
        let poller = PollerKind::parse(poller).ok_or_else(|| {
            PyValueError::new_err(format!("poller must be \"epoll\", \"poll\" or \"select\", and got {poller:?}"))
        })?;
        let clock = clock.map_or(Clock::Monotonic, |clock| Clock::Manual(clock.clock.clone()));
        let core = Core::new(Options { poller, clock, parallel, handover })
            .map_err(|error| errors::raise(owner.py(), error, &About { name: &name, ..About::default() }))?;
        _ = this.class.set(owner.get_type().unbind());
        this.opened.set((core, name)).map_err(|_| PyRuntimeError::new_err("EventLoop.__init__ was called twice"))
    }

    pub fn opened(&self) -> bool {
        self.opened.get().is_some()
    }

    /// Also in a child, of the loop that it inherited.
    pub fn closed(&self) -> bool {
        self.opened.get().is_none_or(|(core, _)| core.life() == Life::Closed)
    }

    /// The core, unless this is a forked child or `__init__` was not called.
    pub fn core(&self) -> PyResult<&Arc<Core>> {
        match self.opened.get() {
            None => Err(PyRuntimeError::new_err("EventLoop.__init__ was not called; a subclass has to call it first")),
            Some((core, _)) => match core.check_fork() {
                Ok(()) => Ok(core),
                Err(error) => Err(Python::attach(|py| self.raise(py, error))),
            },
        }
    }

    /// The core, unless it is closed too.
    pub fn open_core(&self) -> PyResult<&Arc<Core>> {
        let core = self.core()?;
        core.check_open().map_err(|error| Python::attach(|py| self.raise(py, error)))?;
        Ok(core)
    }

    /// The core, if there is one and it is this process's: for calls that must not raise.
    pub fn own_core(&self) -> Option<&Arc<Core>> {
        self.opened.get().map(|(core, _)| core).filter(|core| core.check_fork().is_ok())
    }

    pub fn name(&self) -> &str {
        self.opened.get().map_or("loop", |(_, name)| name)
    }

    pub fn class(&self) -> Option<&Py<PyType>> {
        self.class.get()
    }

    /// What tells it from other loops: `attach::serves`.
    pub fn address(&self) -> usize {
        self.opened.get().map_or(0, |(core, _)| Arc::as_ptr(core) as usize)
    }

    /// Whether a handler of this loop makes the call.
    pub fn origin(&self) -> Origin {
        if attach::serves(self.address()) { Origin::Inside } else { Origin::Outside }
    }

    pub fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// How many failures were reported.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub fn raise(&self, py: Python<'_>, error: Error) -> PyErr {
        errors::raise(py, error, &About { name: self.name(), ..About::default() })
    }

    /// A watch has ended: closes its source and hands out its final callbacks; a failure of that is reported.
    pub fn pay(owner: &Bound<'_, Self>, mut finished: Finished<Carried>) {
        let py = owner.py();
        let Some(Carried::Watch(watch)) = finished.payload.take() else { return };
        if let Err(error) = Watch::pay(watch.bind(py), finished.reason) {
            let hook = watch.get().source.clone_ref(py);
            let subject = run::Subject { watch: Some(watch.bind(py).clone()), ..run::Subject::default() };
            if let Err(error) = run::report(owner, "close", subject, &hook, error) {
                error.write_unraisable(py, Some(owner.as_any()));
            }
        }
    }

    /// Lets go of everything that the core carries; nobody is joined, or the loop could not have been collected.
    pub fn abandon(&self) {
        if let Some(core) = self.own_core()
            && let Ok((finished, _)) = core.close()
        {
            drop(finished);
            drop(core.take_completions());
        }
    }
}

impl Drop for LoopCore {
    fn drop(&mut self) {
        self.abandon();
    }
}
