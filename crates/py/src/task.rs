//! A task: a coroutine, stepped by whichever joined thread is free, one at a time.
//!
//! The coroutine is resumed with None always, and what it waits for keeps the result: the interpreter's fast path for
//! `await` takes only None. What it awaits in the end is one of ours (`wait`, `stream`): it opens the task's wait before
//! it yields. A coroutine that yields with no wait open has awaited something foreign, and gets a TypeError there.
//!
//! The core keeps a task's address and no count. It is alive until it has finished, because its group holds it until
//! then, and the loop holds the group; a task that dies otherwise (the loop was dropped) is finished in `drop`.

use core::cell::Cell;
use std::sync::Arc;

use manyhands_core::task::{TaskPhase, WaitPhase};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::event_loop::Core;
use crate::group::Group;
use crate::inside::Inside;
use crate::once::Once;
use crate::payload::Carried;
use crate::scope::Scope;

pub type CoreTask = manyhands_core::Task<Carried>;

/// Operations that complete at once, in a row, before the task gives its thread to others. tokio's is 128, trio's 1.
const BUDGET: u32 = 32;

thread_local! {
    /// The task that the thread is inside of, borrowed: `step` holds it.
    static CURRENT: Cell<*mut ffi::PyObject> = const { Cell::new(core::ptr::null_mut()) };
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// A coroutine that the loop runs. Made by a task group.
#[pyclass(frozen, weakref, module = "manyhands")]
pub struct Task {
    pub core: Arc<CoreTask>,
    pub group: Py<Group>,
    /// Its place in the group.
    pub place: usize,
    own: Inside<Own>,
    name: Option<Py<PyAny>>,
}

/// What the thread inside changes: all is taken when the task has finished.
#[derive(Default)]
struct Own {
    coroutine: Option<Py<PyAny>>,
    /// A `contextvars.Context`.
    context: Option<Py<PyAny>>,
    /// The innermost cancel scope that it is in.
    scope: Option<Py<Scope>>,
}

impl Own {
    fn stops(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.get().effectively_cancelled())
    }
}

/// How a step ended.
enum Stepped {
    Suspended,
    Returned,
    Raised(PyErr),
}

impl Task {
    pub fn new(
        core: Arc<CoreTask>,
        group: Py<Group>,
        place: usize,
        (coroutine, context): (Py<PyAny>, Py<PyAny>),
        scope: Option<Py<Scope>>,
        name: Option<Py<PyAny>>,
    ) -> Self {
        Self {
            core,
            group,
            place,
            own: Inside::new(Own { coroutine: Some(coroutine), context: Some(context), scope }),
            name,
        }
    }

    /// The loop that it runs on.
    pub fn loop_core(&self) -> &Arc<Core> {
        self.group.get().core()
    }

    pub fn innermost(&self, py: Python<'_>) -> Option<Py<Scope>> {
        self.own.look(|own| own.scope.as_ref().map(|scope| scope.clone_ref(py)))
    }

    /// The thread inside goes into a scope or out of one.
    pub fn enter_scope(&self, scope: Option<Py<Scope>>) {
        let old = self.own.change(|own| core::mem::replace(&mut own.scope, scope));
        drop(old);
    }

    /// The thread inside: whether whatever it awaits next is to be interrupted.
    pub fn told_to_stop(&self) -> bool {
        debug_assert!(core::ptr::eq(CURRENT.get().cast_const().cast(), self.core.object() as *const ()));
        // SAFETY: the thread is inside. Flags are read and pointers followed: nothing of it runs code or drops anything.
        unsafe { self.own.look_unlocked(Own::stops) }
    }

    /// Ends the wait that it is in, if that may be aborted and the task is to stop. Anybody.
    pub fn interrupt_if_told(&self, py: Python<'_>) {
        if let Some(schedule) = self.core.interrupt(|| self.own.look(Own::stops)) {
            self.queue(py, schedule);
        }
    }

    /// Puts it into the run queue, if its word says so.
    pub fn queue(&self, py: Python<'_>, schedule: manyhands_core::Schedule) {
        let core = self.loop_core();
        let wake = core.queue_task(&self.core, schedule);
        if wake.needed() {
            // Whoever is woken may want the interpreter at once.
            py.detach(|| core.wake(wake));
        }
    }

    fn run(&self, py: Python<'_>, thrown: Option<PyErr>) -> Stepped {
        let address = |held: &Option<Py<PyAny>>| held.as_ref().map_or(core::ptr::null_mut(), Py::as_ptr);
        // SAFETY: the thread is inside. Neither is taken away but by the end of this very step.
        let (coroutine, context) =
            unsafe { self.own.look_unlocked(|own| (address(&own.coroutine), address(&own.context))) };
        if coroutine.is_null() || context.is_null() {
            // The collector has cleared it, so nobody can want it any more.
            return Stepped::Returned;
        }
        // SAFETY: attached, and it is a Context.
        if unsafe { ffi::PyContext_Enter(context) } != 0 {
            return Stepped::Raised(PyErr::fetch(py));
        }
        let stepped = match thrown {
            None => send(py, coroutine),
            Some(error) => throw(py, coroutine, error),
        };
        // SAFETY: as above; what the coroutine raised was fetched.
        if unsafe { ffi::PyContext_Exit(context) } != 0 {
            return Stepped::Raised(PyErr::fetch(py));
        }
        stepped
    }
}

/// Resumes a coroutine with None.
fn send(py: Python<'_>, coroutine: *mut ffi::PyObject) -> Stepped {
    let mut result = core::ptr::null_mut();
    // SAFETY: attached; the coroutine is held by its task, and this thread alone is inside it: the task's word says so.
    let sent = unsafe { ffi::PyIter_Send(coroutine, ffi::Py_None(), &mut result) };
    // SAFETY: a new reference, or null.
    let result = unsafe { Bound::from_owned_ptr_or_opt(py, result) };
    match (sent, result) {
        (ffi::PySendResult::PYGEN_NEXT, _) => Stepped::Suspended,
        (ffi::PySendResult::PYGEN_RETURN, _) => Stepped::Returned,
        (ffi::PySendResult::PYGEN_ERROR, _) => Stepped::Raised(PyErr::fetch(py)),
    }
}

fn throw(py: Python<'_>, coroutine: *mut ffi::PyObject, error: PyErr) -> Stepped {
    // SAFETY: as in `send`.
    let coroutine = unsafe { Bound::from_borrowed_ptr(py, coroutine) };
    match coroutine.call_method1("throw", (error.into_value(py),)) {
        Ok(_) => Stepped::Suspended,
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyStopIteration>(py) => Stepped::Returned,
        Err(error) => Stepped::Raised(error),
    }
}

/// The task that the calling thread is inside of.
pub fn current<'py>(py: Python<'py>) -> Option<Bound<'py, Task>> {
    let task = CURRENT.get();
    // SAFETY: null, or the task of the `step` that the thread is inside of, which holds it.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, task).map(|task| task.cast_into_unchecked()) }
}

/// Whether the calling thread is inside this task.
pub fn is_current(task: &Bound<'_, Task>) -> bool {
    core::ptr::eq(CURRENT.get(), task.as_ptr())
}

/// An operation completed at once; whether the task should let others run first.
pub fn spend() -> bool {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    left == 0
}

/// Steps a task once.
pub fn step(py: Python<'_>, core: &Arc<Core>, task: &Arc<CoreTask>) {
    // SAFETY: the task has begun and not finished, so its group holds the object.
    let this: Bound<'_, Task> =
        unsafe { Bound::from_borrowed_ptr(py, task.object() as *mut ffi::PyObject).cast_into_unchecked() };
    let before = CURRENT.replace(this.as_ptr());
    LEFT.set(BUDGET);
    let mut stepped = this.get().run(py, None);
    while let Stepped::Suspended = stepped
        && task.word().wait == WaitPhase::None
    {
        let error = PyTypeError::new_err(
            "a task awaited something that is not manyhands' own (asyncio's, perhaps): \
             await only what this library or a coroutine on it gives; for another library's blocking call use run_job()",
        );
        stepped = this.get().run(py, Some(error));
    }
    CURRENT.set(before);
    if core.check_fork().is_err() {
        // The task forked and this is the child: the loop's locks may be held for ever.
        return;
    }
    match stepped {
        Stepped::Suspended => core.suspend_task(task),
        Stepped::Returned => finish(&this, None),
        Stepped::Raised(error) => finish(&this, Some(error)),
    }
}

fn finish(task: &Bound<'_, Task>, error: Option<PyErr>) {
    let this = task.get();
    this.core.finish();
    let held = this.own.change(|own| (own.coroutine.take(), own.context.take()));
    drop(held);
    let scope = this.own.change(|own| own.scope.take());
    let error = match scope {
        Some(scope) if !this.group.get().starts_in(&scope) => Some(left_open(task, scope, error)),
        _ => error,
    };
    Group::ended(task, error);
}

/// The task has ended inside of scopes that it entered: what is left in them is cancelled and held, and somebody told.
fn left_open(task: &Bound<'_, Task>, scope: Py<Scope>, error: Option<PyErr>) -> PyErr {
    static LEFT_OPEN: Once<Py<PyAny>> = Once::new();
    let py = task.py();
    let told = LEFT_OPEN
        .import(py, "manyhands._tasks._scope", "left_open")
        .and_then(|left_open| left_open.call1((task, scope)));
    match (error, told) {
        (Some(error), _) | (None, Err(error)) => error,
        (None, Ok(told)) => PyErr::from_value(told),
    }
}

#[pymethods]
impl Task {
    /// What it is called: as it was named, or its coroutine's qualified name.
    #[getter]
    fn name<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(name) = &self.name {
            return Ok(name.bind(py).clone());
        }
        let coroutine = self.own.look(|own| own.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py)));
        match coroutine {
            Some(coroutine) => coroutine.bind(py).getattr("__qualname__"),
            None => Ok("a task that has ended".into_pyobject(py)?.into_any()),
        }
    }

    /// The group that it was started in.
    #[getter]
    fn group(&self, py: Python<'_>) -> Py<Group> {
        self.group.clone_ref(py)
    }

    /// Whether it has ended.
    #[getter]
    fn done(&self) -> bool {
        self.core.word().phase == TaskPhase::Finished
    }

    /// "SUSPENDED", "QUEUED", "RUNNING" or "FINISHED".
    #[getter]
    fn state(&self) -> &'static str {
        match self.core.word().phase {
            TaskPhase::Suspended => "SUSPENDED",
            TaskPhase::Queued => "QUEUED",
            TaskPhase::Running => "RUNNING",
            TaskPhase::Finished => "FINISHED",
        }
    }

    /// The coroutine, for a look at its stack; None when it has ended.
    #[getter]
    fn coroutine(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.own.look(|own| own.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py)))
    }

    /// The innermost cancel scope that it is in.
    #[getter]
    fn scope(&self, py: Python<'_>) -> Option<Py<Scope>> {
        self.innermost(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<manyhands.Task {} {}>", self.name(py)?.repr()?, self.state()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.group)?;
        visit.call(&self.name)?;
        // SAFETY: it is the collector.
        unsafe {
            self.own.look_unlocked(|own| {
                visit.call(&own.coroutine)?;
                visit.call(&own.context)?;
                visit.call(&own.scope)
            })?;
        }
        Ok(())
    }

    /// End it where it is, without waiting for anything. Only when nobody serves its loop any more.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.core.finish();
        let held = self.own.change(core::mem::take);
        held.coroutine.map_or(Ok(()), |coroutine| coroutine.bind(py).call_method0("close").map(drop))
    }

    fn __clear__(&self) {
        // Nobody may step it any more, whatever the run queue has of it.
        self.core.finish();
        let held = self.own.change(core::mem::take);
        drop(held);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Its address means nothing any more: whoever finds the core's half must not look behind it.
        self.core.finish();
    }
}

/// The task that runs on the calling thread; None outside of tasks.
#[pyfunction]
pub fn running_task(py: Python<'_>) -> Option<Bound<'_, Task>> {
    current(py)
}

/// Whether the task that runs on the calling thread is to stop: its next await raises `Cancelled`. False outside of tasks.
#[pyfunction]
pub fn told_to_stop(py: Python<'_>) -> bool {
    current(py).is_some_and(|task| task.get().told_to_stop())
}
