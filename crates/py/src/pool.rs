//! The compiled half of `manyhands.ThreadPool`.

mod counts;
mod host;
mod inside;
mod methods;
mod taking;
mod wishes;

use std::sync::{Arc, OnceLock};

use manyhands_core::Payload;
use manyhands_core::pool::{Call as Wanted, Lane, Pool};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyType;

pub use self::counts::PoolCounts;
use self::host::PythonHost;
pub use self::inside::{check_in, current_job, sleep_blocking};
use crate::errors;
use crate::job::JobCore;

/// What the core carries for a job: its object.
pub struct Held(pub Py<JobCore>);

impl Payload for Held {
    fn duplicate(&self) -> Self {
        // SAFETY: the core calls this in attached calls only.
        Self(self.0.clone_ref(unsafe { Python::assume_attached() }))
    }
}

pub type CorePool = Pool<Held>;

/// What happens to a job that finds the queue full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    Refuse,
    Wait,
    RunHere,
}

struct Opened {
    pool: Arc<CorePool>,
    name: String,
    when_full: WhenFull,
    full_timeout: Option<f64>,
    job_class: Py<PyType>,
    on_submit: Option<Py<PyAny>>,
    on_start: Option<Py<PyAny>>,
    on_end: Option<Py<PyAny>>,
    /// Of the pool too.
    host: Arc<PythonHost>,
}

/// The compiled half of `manyhands.ThreadPool`: the way in, and what its threads are handed.
#[pyclass(frozen, subclass, module = "manyhands._core")]
pub struct PoolCore {
    opened: OnceLock<Opened>,
}

impl PoolCore {
    fn start_thread(slf: &Bound<'_, Self>, lane: Lane) {
        if let Err(error) = slf.call_method1("_start_thread", (lane as usize,)) {
            if let Some(opened) = slf.get().opened.get() {
                opened.pool.start_failed(lane);
            }
            error.write_unraisable(slf.py(), Some(slf.as_any()));
        }
    }

    /// Does what the core wants. The pool is at hand: a finalizer of what held it may come when no weak reference leads to it
    /// any more.
    fn perform(slf: &Bound<'_, Self>, pool: &CorePool, wanted: Wanted) {
        let wanted = if matches!(wanted, Wanted::Send) { pool.send() } else { wanted };
        match wanted {
            Wanted::Start(lane) => Self::start_thread(slf, lane),
            wanted => JobCore::perform(slf.py(), pool, wanted),
        }
    }

    fn opened(&self) -> PyResult<&Opened> {
        self.opened.get().ok_or_else(|| {
            PyRuntimeError::new_err("ThreadPool.__init__ was not called; a subclass has to call it first")
        })
    }

    /// The core, unless this is a forked child.
    pub fn core(&self, py: Python<'_>) -> PyResult<&Arc<CorePool>> {
        let opened = self.opened()?;
        match opened.pool.check_fork() {
            Ok(()) => Ok(&opened.pool),
            Err(error) => Err(errors::raise_about(py, error, &format!("pool {:?}", opened.name))),
        }
    }

    pub fn on_start(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.opened.get()?.on_start.as_ref().map(|hook| hook.clone_ref(py))
    }

    pub fn has_on_end(&self) -> bool {
        self.opened.get().is_some_and(|opened| opened.on_end.is_some())
    }

    /// Stops everything that is left when the pool is collected: like `shutdown(wait=False)`.
    fn abandon(&self) {
        if let Some(opened) = self.opened.get()
            && opened.pool.check_fork().is_ok()
        {
            opened.pool.close_entrance();
        }
    }
}

impl Drop for PoolCore {
    fn drop(&mut self) {
        self.abandon();
    }
}
