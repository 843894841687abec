//! The one way in which a task waits for something that Python decides, and the two awaitables that wait for nothing.
//!
//! A `Wait` has one outcome. `complete`, `fail` and a cancellation race for it, and the task's word says who won; the
//! loser is told so. Its lock is held across the word's change, so the task, woken on another thread, finds the outcome
//! stored.

use manyhands_core::sync::Mutex;
use manyhands_core::task::WaitPhase;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::once::Once;
use crate::task::{self, Task};

/// What became of a wait.
enum Outcome {
    Pending,
    Value(Option<Py<PyAny>>),
    Error(Py<PyAny>),
    /// The task was cancelled first, or has taken the outcome.
    Gone,
}

struct Inside {
    outcome: Outcome,
    /// The ticket of the task that waits.
    ticket: Option<u32>,
}

/// Something that a task waits for, decided once, by anybody.
///
/// Made in the task that will await it, and awaited there, once.
///
/// Args:
///     abortable: Whether a cancellation ends it.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Wait {
    task: Py<Task>,
    abortable: bool,
    inside: Mutex<Inside>,
}

/// The error of a task that is told to stop.
pub fn cancelled(py: Python<'_>) -> PyErr {
    static CANCELLED: Once<Py<PyAny>> = Once::new();
    match CANCELLED.import(py, "manyhands.errors", "Cancelled").and_then(|class| class.call0()) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Ends an `await` with a value: what `__next__` returns then. None is what most awaits give.
pub fn stop(py: Python<'_>, value: Option<Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
    if let Some(value) = value {
        // A tuple or an exception would be taken apart by the constructor, so those go by the long way.
        if value.is_instance_of::<pyo3::types::PyTuple>() || value.is_instance_of::<pyo3::exceptions::PyBaseException>()
        {
            return Err(PyStopIteration::new_err((value.unbind(),)));
        }
        // SAFETY: attached, and no error is set. PyO3 passes the null that `Ok(None)` becomes on, and leaves the error be.
        unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
    }
    _ = py;
    Ok(None)
}

/// The running task, which is about to wait; it has to be this one.
fn must_run(task: &Bound<'_, Task>) -> PyResult<()> {
    if task::is_current(task) {
        Ok(())
    } else {
        Err(PyRuntimeError::new_err(format!("this is awaited by {}, and only the task that made it may", task.repr()?)))
    }
}

/// The task has opened its wait: it has to see a cancellation that came before.
pub fn look_again(task: &Task, ticket: u32) {
    task.core.look_again(ticket, || task.told_to_stop());
}

impl Wait {
    fn decide(slf: &Bound<'_, Self>, outcome: Outcome) -> bool {
        let this = slf.get();
        let mut inside = this.inside.lock();
        let schedule = match (&inside.outcome, inside.ticket) {
            (Outcome::Pending, None) => None,
            (Outcome::Pending, Some(ticket)) => match this.task.get().core.complete(ticket) {
                Some(schedule) => Some(schedule),
                None => {
                    drop(inside);
                    drop(outcome);
                    return false;
                }
            },
            _ => {
                drop(inside);
                drop(outcome);
                return false;
            }
        };
        inside.outcome = outcome;
        drop(inside);
        if let Some(schedule) = schedule {
            this.task.get().queue(slf.py(), schedule);
        }
        true
    }

    /// Decides it with a value; whether that was in time.
    pub fn complete(slf: &Bound<'_, Self>, value: Option<Py<PyAny>>) -> bool {
        Self::decide(slf, Outcome::Value(value))
    }
}

#[pymethods]
impl Wait {
    #[new]
    #[pyo3(signature = (abortable=true))]
    fn new(py: Python<'_>, abortable: bool) -> PyResult<Self> {
        let task = task::current(py)
            .ok_or_else(|| PyRuntimeError::new_err("only a task can wait: use this inside of manyhands.run()"))?;
        let inside = Mutex::new(Inside { outcome: Outcome::Pending, ticket: None });
        Ok(Self { task: task.unbind(), abortable, inside })
    }

    /// Decide it: the task goes on with `value`. False if it was decided before, or the task was cancelled.
    ///
    /// Threads: any; also in finalizers and signal handlers.
    #[pyo3(name = "complete", signature = (value=None))]
    fn py_complete(slf: &Bound<'_, Self>, value: Option<Py<PyAny>>) -> bool {
        Self::complete(slf, value)
    }

    /// Decide it: the task goes on with an exception. False if it was decided before, or the task was cancelled.
    fn fail(slf: &Bound<'_, Self>, error: Py<PyAny>) -> bool {
        Self::decide(slf, Outcome::Error(error))
    }

    /// Whether it is decided.
    #[getter]
    fn done(&self) -> bool {
        let inside = self.inside.lock();
        !matches!(inside.outcome, Outcome::Pending)
    }

    /// The task that waits.
    #[getter]
    fn task(&self, py: Python<'_>) -> Py<Task> {
        self.task.clone_ref(py)
    }

    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let (this, py) = (slf.get(), slf.py());
        let task = this.task.bind(py);
        must_run(task)?;
        let mut inside = this.inside.lock();
        if inside.ticket.is_some() {
            let aborted = task.get().core.word().wait == WaitPhase::Ready && task.get().core.take();
            if aborted {
                inside.outcome = Outcome::Gone;
                drop(inside);
                return Err(cancelled(py));
            }
        } else if matches!(inside.outcome, Outcome::Pending) {
            if this.abortable && task.get().told_to_stop() {
                inside.outcome = Outcome::Gone;
                drop(inside);
                return Err(cancelled(py));
            }
            if task.get().core.word().wait != WaitPhase::None {
                drop(inside);
                return Err(PyRuntimeError::new_err(
                    "the task waits for something already, and can wait for one thing at a time",
                ));
            }
            let ticket = task.get().core.open(this.abortable);
            inside.ticket = Some(ticket);
            drop(inside);
            if this.abortable {
                look_again(task.get(), ticket);
            }
            return Ok(Some(py.None()));
        }
        let outcome = core::mem::replace(&mut inside.outcome, Outcome::Gone);
        drop(inside);
        match outcome {
            Outcome::Value(value) => stop(py, value.map(|value| value.into_bound(py))),
            Outcome::Error(error) => Err(PyErr::from_value(error.into_bound(py))),
            Outcome::Pending | Outcome::Gone => {
                Err(PyRuntimeError::new_err("a wait is awaited once: make a new one for every wait"))
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.task)?;
        if let Some(inside) = self.inside.try_lock() {
            match &inside.outcome {
                Outcome::Value(value) => visit.call(value)?,
                Outcome::Error(error) => visit.call(error)?,
                Outcome::Pending | Outcome::Gone => {}
            }
        }
        Ok(())
    }
}

/// An `await` that lets others run, and notices a cancellation.
///
/// It keeps nothing: whether it has yielded already is what the task's word says.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Checkpoint {
    abortable: bool,
}

#[pymethods]
impl Checkpoint {
    #[new]
    fn new(abortable: bool) -> Self {
        Self { abortable }
    }

    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let task = task::current(py).ok_or_else(|| {
            PyRuntimeError::new_err("only a task has checkpoints: use this inside of manyhands.run()")
        })?;
        let core = &task.get().core;
        let waits = core.word().wait;
        if waits == WaitPhase::Ready {
            core.take();
        }
        // Before it yields, and after: it may have been in the queue for long.
        if self.abortable && task.get().told_to_stop() {
            return Err(cancelled(py));
        }
        match waits {
            WaitPhase::Ready => Ok(None),
            WaitPhase::None => {
                core.yield_now();
                Ok(Some(py.None()))
            }
            WaitPhase::Open => Err(PyRuntimeError::new_err("the task waits for something already")),
        }
    }
}
