//! Permits for Python: what locks, semaphores and limiters stand on.

use manyhands_core::permits::{Asked, Waiter};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::awaiting::{Awaiting, Next, go_on};
use crate::payload::Carried;
use crate::wait::{cancelled, stop};

/// So many may go on at a time, first come, first served.
///
/// Args:
///     free: How many are free.
///     limit: A release beyond so many is refused; None for any number.
///
/// Threads: any; also a finalizer or a handler of signals, but for `acquire()`, which is a task's.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Permits {
    permits: manyhands_core::Permits<Carried>,
}

#[pymethods]
impl Permits {
    #[new]
    #[pyo3(signature = (free, limit=None))]
    fn new(free: i64, limit: Option<i64>) -> PyResult<Self> {
        let limit = limit.unwrap_or(i64::MAX);
        if !(0..=limit).contains(&free) {
            return Err(PyValueError::new_err(format!("free must be from 0 to {limit}, and got {free}")));
        }
        Ok(Self { permits: manyhands_core::Permits::new(free, limit) })
    }

    /// Take one if one is free; whether it was.
    fn acquire_nowait(&self) -> bool {
        self.permits.take()
    }

    /// Take one, waiting in line for it.
    fn acquire(slf: Bound<'_, Self>) -> Acquiring {
        Acquiring { permits: slf.unbind(), awaiting: Awaiting::new() }
    }

    /// Give so many back, to the first in line. False, and nothing is done, if there would be more than `limit`.
    #[pyo3(signature = (n=1))]
    fn release(&self, py: Python<'_>, n: u32) -> bool {
        self.add(py, n.into())
    }

    /// Make so many more of them, or fewer; what is free may fall below 0. False as for `release`.
    fn add(&self, py: Python<'_>, n: i64) -> bool {
        let mut decided = Vec::new();
        let added = self.permits.add(n, &mut decided);
        go_on(py, decided);
        added
    }

    /// How many are free; below 0 if more are out than there are.
    #[getter]
    fn free(&self) -> i64 {
        self.permits.free()
    }

    /// How many tasks wait for one.
    #[getter]
    fn waiting(&self) -> usize {
        self.permits.waiting()
    }
}

/// One `await` of a permit. Made by `Permits.acquire`.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Acquiring {
    permits: Py<Permits>,
    awaiting: Awaiting,
}

#[pymethods]
impl Acquiring {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let permits = &self.permits.get().permits;
        match self.awaiting.next(py)? {
            Next::Yield => Ok(Some(py.None())),
            Next::Try(task) => {
                let (owner, core) = (task.get().loop_core(), &task.get().core);
                match permits.ask(|| Waiter::open(owner, core)) {
                    Asked::Given => stop(py, None),
                    Asked::Waits(place) => self.awaiting.stand(py, task.get(), place),
                }
            }
            Next::Decided { place, aborted } => {
                permits.leave(place);
                if aborted { Err(cancelled(py)) } else { stop(py, None) }
            }
        }
    }
}

impl Drop for Acquiring {
    fn drop(&mut self) {
        // Its coroutine was thrown away; what it was given is the next one's.
        if let Some(place) = self.awaiting.left()
            && self.permits.get().permits.leave(place)
        {
            // SAFETY: an object of Python's is dropped on attached threads only.
            self.permits.get().release(unsafe { Python::assume_attached() }, 1);
        }
    }
}
