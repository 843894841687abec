//! A task group's compiled half: its members, from their start to their end. Policy (what an error does, what an exit
//! raises) is Python's (`manyhands._tasks`).

use std::sync::Arc;

use manyhands_core::sync::Mutex;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::event_loop::{Core, LoopCore};
use crate::payload::copy_context;
use crate::scope::Scope;
use crate::strand::Strand;
use crate::task::{CoreTask, Task};
use crate::wait::Wait;

/// Who is in a group.
struct Members {
    places: Vec<Option<Py<Task>>>,
    free: Vec<u32>,
    living: usize,
    /// It takes nobody: it was not entered yet, or has ended.
    closed: bool,
    /// To be completed when nobody is left.
    empty: Option<Py<Wait>>,
}

/// The compiled half of `manyhands.TaskGroup`.
#[pyclass(frozen, subclass, weakref, module = "manyhands._core")]
pub struct Group {
    owner: Py<LoopCore>,
    core: Arc<Core>,
    /// What its members share, if they are kept together. A strand whose handle is gone ends with its last item.
    strand: Option<Py<Strand>>,
    /// What its members start in.
    scope: Option<Py<Scope>>,
    members: Mutex<Members>,
}

impl Group {
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Adds the living members.
    pub fn members(&self, py: Python<'_>, to: &mut Vec<Py<Task>>) {
        to.extend(self.members.lock().places.iter().flatten().map(|task| task.clone_ref(py)));
    }

    /// Whether its members start in this scope.
    pub fn starts_in(&self, scope: &Py<Scope>) -> bool {
        self.scope.as_ref().is_some_and(|own| own.is(scope))
    }

    /// A place for a task, if the group still takes any.
    fn reserve(&self) -> Option<usize> {
        let mut members = self.members.lock();
        if members.closed {
            return None;
        }
        members.living += 1;
        Some(match members.free.pop() {
            Some(place) => place as usize,
            None => {
                members.places.push(None);
                members.places.len() - 1
            }
        })
    }

    /// A place is free again; the wait to complete if it was the last one.
    fn release(&self, place: usize) -> (Option<Py<Task>>, Option<Py<Wait>>) {
        let mut members = self.members.lock();
        // The collector may have taken the places away.
        let task = members.places.get_mut(place).and_then(Option::take);
        members.living = members.living.saturating_sub(1);
        if members.living > 0 {
            members.free.push(place as u32);
            return (task, None);
        }
        members.places.clear();
        members.free.clear();
        (task, members.empty.take())
    }

    /// A task has ended, with an error or without.
    pub fn ended(task: &Bound<'_, Task>, error: Option<PyErr>) {
        let py = task.py();
        let group = task.get().group.bind(py);
        if let Some(error) = error
            && let Err(error) = group.call_method1("_member_failed", (task, error.into_value(py)))
        {
            error.write_unraisable(py, Some(task.as_any()));
        }
        group.get().leave(py, task.get().place);
    }

    /// A place is free again; whoever waits for the last one goes on.
    fn leave(&self, py: Python<'_>, place: usize) {
        let (held, empty) = self.release(place);
        drop(held);
        if let Some(empty) = empty {
            Wait::complete(empty.bind(py), None);
        }
    }

    fn refuse(coroutine: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
        // Else Python warns that it was never awaited, and the user has enough to read.
        _ = coroutine.call_method0("close");
        error
    }
}

#[pymethods]
impl Group {
    #[new]
    #[pyo3(signature = (owner, strand, scope, *_args, **_kwargs))]
    fn new(
        owner: &Bound<'_, LoopCore>,
        strand: Option<&Bound<'_, Strand>>,
        scope: Option<Py<Scope>>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> PyResult<Self> {
        let core = owner.get().open_core()?.clone();
        let strand = strand.map(|strand| strand.clone().unbind());
        let members = Members { places: Vec::new(), free: Vec::new(), living: 0, closed: true, empty: None };
        Ok(Self { owner: owner.clone().unbind(), core, strand, scope, members: Mutex::new(members) })
    }

    /// Binds the scope that the members start in to the group, which takes members from now on.
    ///
    /// Whoever calls it sees to it that the group is alive while it has members: the run queue does not hold them.
    fn adopt(slf: &Bound<'_, Self>) {
        if let Some(scope) = &slf.get().scope {
            scope.get().of_group(slf.clone().unbind());
        }
        slf.get().members.lock().closed = false;
    }

    /// The loop that its members run on.
    #[getter]
    fn owner(&self, py: Python<'_>) -> Py<LoopCore> {
        self.owner.clone_ref(py)
    }

    /// The scope that its members start in.
    #[getter]
    fn scope(&self, py: Python<'_>) -> Option<Py<Scope>> {
        self.scope.as_ref().map(|scope| scope.clone_ref(py))
    }

    /// How many members have not ended.
    #[getter]
    fn living(&self) -> usize {
        self.members.lock().living
    }

    /// The members that have not ended.
    fn tasks(&self, py: Python<'_>) -> Vec<Py<Task>> {
        let mut tasks = Vec::new();
        self.members(py, &mut tasks);
        tasks
    }

    /// Start a coroutine as a member.
    #[pyo3(signature = (coroutine, name=None, context=None))]
    fn add<'py>(
        slf: &Bound<'py, Self>,
        coroutine: Bound<'py, PyAny>,
        name: Option<Py<PyAny>>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, Task>> {
        let (this, py) = (slf.get(), slf.py());
        // SAFETY: attached; the check reads the type only.
        if unsafe { pyo3::ffi::PyCoro_CheckExact(coroutine.as_ptr()) } == 0 && !is_coroutine(&coroutine)? {
            return Err(PyTypeError::new_err(format!(
                "a task is a coroutine, the result of calling an async def function, and got {}",
                coroutine.repr()?
            )));
        }
        if let Err(error) = this.owner.get().open_core() {
            return Err(Self::refuse(&coroutine, error));
        }
        let context = match context {
            Some(context) => context,
            None => copy_context(py)?,
        };
        let Some(place) = this.reserve() else {
            let error = PyRuntimeError::new_err(
                "the task group takes no tasks: it has ended, or was not entered yet (use it in `async with`)",
            );
            return Err(Self::refuse(&coroutine, error));
        };
        let core: Arc<CoreTask> =
            manyhands_core::Task::new(this.strand.as_ref().map(|strand| strand.get().strand.clone()));
        let scope = this.scope.as_ref().map(|scope| scope.clone_ref(py));
        let held = (coroutine.unbind(), context);
        let task = match Bound::new(py, Task::new(core, slf.clone().unbind(), place, held, scope, name)) {
            Ok(task) => task,
            Err(error) => {
                this.leave(py, place);
                return Err(error);
            }
        };
        let core = &task.get().core;
        core.stand_for(task.as_ptr() as usize);
        let held = task.clone().unbind();
        this.members.lock().places[place] = Some(held);
        let wake = this.core.start_task(core);
        if wake.needed() {
            py.detach(|| this.core.wake(wake));
        }
        Ok(task)
    }

    /// Start `function(*args)` as a task.
    ///
    /// Raises:
    ///     TypeError: the function gives no coroutine.
    ///     RuntimeError: the group has ended.
    ///
    /// Threads: any.
    #[pyo3(signature = (function, *args, name=None))]
    fn start_soon(
        slf: &Bound<'_, Self>,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        name: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        Self::add(slf, function.call1(args)?, name, None).map(drop)
    }

    /// Have `wait` completed when nobody is left. False if nobody is left now: then the group takes nobody any more.
    fn when_empty(&self, wait: Py<Wait>) -> bool {
        let mut members = self.members.lock();
        if members.living == 0 {
            members.closed = true;
            drop(members);
            return false;
        }
        let old = members.empty.replace(wait);
        drop(members);
        drop(old);
        true
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        visit.call(&self.scope)?;
        visit.call(&self.strand)?;
        if let Some(members) = self.members.try_lock() {
            visit.call(&members.empty)?;
            for task in members.places.iter().flatten() {
                visit.call(task)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let mut members = self.members.lock();
        let held = (core::mem::take(&mut members.places), members.empty.take());
        drop(members);
        drop(held);
    }
}

/// A coroutine of another make: Cython's, for example.
fn is_coroutine(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    static COROUTINE: crate::once::Once<Py<PyAny>> = crate::once::Once::new();
    object.is_instance(COROUTINE.import(object.py(), "collections.abc", "Coroutine")?)
}
