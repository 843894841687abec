//! A cancel scope's compiled half: whether what runs inside it is to stop.
//!
//! Cancellation is pulled: a task that is about to wait looks from its innermost scope outwards, until a scope is
//! cancelled or shields it from the rest. Whoever cancels first sets the flag, then goes through the tasks below and
//! aborts the waits of those that the look tells to stop. A task opens its wait before it looks. So one of the two sees
//! the other, and no cancellation is lost (`docs/design/task.md`). Policy (deadlines, what an exit swallows) is Python's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use manyhands_core::sync::Mutex;
use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::group::Group;
use crate::task::{self, Task};

/// The compiled half of `manyhands.CancelScope`.
#[pyclass(frozen, subclass, weakref, module = "manyhands._core")]
pub struct Scope {
    /// The scope around it; set when it is entered, once.
    parent: OnceLock<Option<Py<Scope>>>,
    /// The task that entered it, until it leaves.
    host: Mutex<Option<Py<Task>>>,
    /// The group whose tasks run inside it, if it is a group's; until it is left, when they have ended.
    group: Mutex<Option<Py<Group>>>,
    cancelled: AtomicBool,
    shield: AtomicBool,
}

impl Scope {
    /// Whether what runs inside is to stop: it, or a scope around it, is cancelled and no shield is between.
    pub fn effectively_cancelled(&self) -> bool {
        let mut scope = self;
        loop {
            if scope.cancelled.load(Ordering::SeqCst) {
                return true;
            }
            if scope.shield.load(Ordering::SeqCst) {
                return false;
            }
            match scope.parent.get() {
                Some(Some(parent)) => scope = parent.get(),
                _ => return false,
            }
        }
    }

    pub fn of_group(&self, group: Py<Group>) {
        let old = self.group.lock().replace(group);
        drop(old);
    }

    fn group_of(&self, py: Python<'_>) -> Option<Py<Group>> {
        self.group.lock().as_ref().map(|group| group.clone_ref(py))
    }

    /// Aborts the waits of those below that have to stop now.
    fn deliver(slf: &Bound<'_, Self>) {
        let py = slf.py();
        let host = slf.get().host.lock().as_ref().map(|host| host.clone_ref(py));
        let mut tasks: Vec<Py<Task>> = Vec::new();
        tasks.extend(host);
        let hosts = tasks.len();
        if let Some(group) = slf.get().group_of(py) {
            group.get().members(py, &mut tasks);
        }
        let mut at = 0;
        while at < tasks.len() {
            let task = tasks[at].clone_ref(py);
            // Of the host's groups only those that are inside of this scope; of the others' all.
            let until = (at < hosts).then_some(slf.get());
            at += 1;
            Self::groups_of(py, task.get(), until, |group| group.members(py, &mut tasks));
            task.get().interrupt_if_told(py);
        }
    }

    /// Every group that the task has open, up to one of its scopes.
    fn groups_of(py: Python<'_>, task: &Task, until: Option<&Scope>, mut found: impl FnMut(&Group)) {
        let own = task.group.get();
        let mut scope = task.innermost(py);
        while let Some(this) = scope {
            if until.is_some_and(|until| core::ptr::eq(this.get(), until)) {
                return;
            }
            if let Some(group) = this.get().group_of(py) {
                if core::ptr::eq(group.get(), own) {
                    return;
                }
                found(group.get());
            }
            scope = this.get().parent.get().and_then(|parent| parent.as_ref()).map(|parent| parent.clone_ref(py));
        }
    }
}

#[pymethods]
impl Scope {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, pyo3::types::PyTuple>, _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>) -> Self {
        Self {
            parent: OnceLock::new(),
            host: Mutex::new(None),
            group: Mutex::new(None),
            cancelled: AtomicBool::new(false),
            shield: AtomicBool::new(false),
        }
    }

    /// The running task goes into it. Once.
    fn enter(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let task = task::current(py).ok_or_else(|| {
            PyRuntimeError::new_err("a cancel scope is entered by a task: use it inside of manyhands.run()")
        })?;
        let parent = task.get().innermost(py);
        if slf.get().parent.set(parent).is_err() {
            return Err(PyRuntimeError::new_err("a cancel scope is entered once: make a new one for every use"));
        }
        *slf.get().host.lock() = Some(task.clone().unbind());
        task.get().enter_scope(Some(slf.clone().unbind()));
        Ok(())
    }

    /// The running task goes out of it. It must be the innermost one.
    fn leave(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        // Only a look: until it is left for good, whoever cancels has to find the host.
        let host = slf.get().host.lock().as_ref().map(|host| host.clone_ref(py));
        let Some(task) = task::current(py).filter(|task| host.as_ref().is_some_and(|host| host.is(task))) else {
            return Err(PyRuntimeError::new_err("a cancel scope is left by the task that entered it, once"));
        };
        let innermost = task.get().innermost(py);
        if !innermost.as_ref().is_some_and(|innermost| innermost.is(slf)) {
            return Err(PyRuntimeError::new_err(
                "a cancel scope was left out of order: scopes nest, and the task that entered one leaves it \
                 (an async generator that yields inside of a scope breaks that)",
            ));
        }
        let parent = slf.get().parent.get().and_then(|parent| parent.as_ref()).map(|parent| parent.clone_ref(py));
        task.get().enter_scope(parent);
        // A group and its scope hold each other: without this the collector would have to come for every group.
        let held = (slf.get().host.lock().take(), slf.get().group.lock().take());
        drop(held);
        Ok(())
    }

    /// Whether the running task is in it, and in none that is further inside.
    #[getter]
    fn innermost(slf: &Bound<'_, Self>) -> bool {
        let py = slf.py();
        task::current(py).and_then(|task| task.get().innermost(py)).is_some_and(|innermost| innermost.is(slf))
    }

    /// Cancel what runs inside; True if it was not cancelled before. Any thread.
    fn set_cancelled(slf: &Bound<'_, Self>) -> bool {
        let first = !slf.get().cancelled.swap(true, Ordering::SeqCst);
        if first {
            Self::deliver(slf);
        }
        first
    }

    /// Whether it was cancelled itself.
    #[getter]
    fn cancel_called(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Whether a cancellation from outside passes it by.
    #[getter]
    fn shield(&self) -> bool {
        self.shield.load(Ordering::SeqCst)
    }

    #[setter]
    fn set_shield(slf: &Bound<'_, Self>, shield: bool) {
        slf.get().shield.store(shield, Ordering::SeqCst);
        if !shield {
            Self::deliver(slf);
        }
    }

    /// Whether what runs inside is to stop now.
    #[getter]
    fn stopping(&self) -> bool {
        self.effectively_cancelled()
    }

    /// Whether a scope around it tells it to stop.
    #[getter]
    fn parent_stopping(&self) -> bool {
        if self.shield.load(Ordering::SeqCst) {
            return false;
        }
        self.parent.get().and_then(|parent| parent.as_ref()).is_some_and(|parent| parent.get().effectively_cancelled())
    }

    /// The group whose tasks run inside it, if it is a group's.
    #[getter]
    fn group(&self, py: Python<'_>) -> Option<Py<Group>> {
        self.group_of(py)
    }

    /// The scope around it, once it has been entered.
    #[getter]
    fn parent(&self, py: Python<'_>) -> Option<Py<Scope>> {
        self.parent.get().and_then(|parent| parent.as_ref()).map(|parent| parent.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(parent) = self.parent.get() {
            visit.call(parent)?;
        }
        if let Some(group) = self.group.try_lock() {
            visit.call(&*group)?;
        }
        if let Some(host) = self.host.try_lock() {
            visit.call(&*host)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let held = (self.host.lock().take(), self.group.lock().take());
        drop(held);
    }
}
