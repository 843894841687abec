//! The compiled half of `manyhands.Job`.

mod ending;
mod meeting;
mod methods;
mod words;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use manyhands_core::owned::Owner;
use manyhands_core::pool::{Call as Wanted, Job};
use manyhands_core::sync::{Arc, Mutex};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, ffi, intern};

use self::words::python;
pub use self::words::{job_stopped, status_object};
use crate::event_loop::LoopCore;
use crate::payload::Carried;
use crate::pool::{CorePool, Held, PoolCore};
use crate::{attach, errors};

/// The owner of a job.
pub struct Owned {
    /// What the user passed.
    pub object: Py<PyAny>,
    pub owner: Owner<Carried>,
    pub event_loop: Py<LoopCore>,
}

/// A function and what to call it with.
pub struct Work {
    pub function: Py<PyAny>,
    pub args: Py<PyTuple>,
    pub kwargs: Option<Py<PyDict>>,
}

/// The same, for Python.
pub type Callable = (Py<PyAny>, Py<PyTuple>, Option<Py<PyDict>>);

/// Callbacks that most jobs have none of.
#[derive(Default)]
pub struct Extras {
    pub cleanup: Option<Py<PyAny>>,
    pub on_sync: Option<Py<PyAny>>,
    pub on_done: Option<Py<PyAny>>,
    /// That of the enqueue, which the job does not change: for what runs on the owner's strand.
    pub context: Option<Py<PyAny>>,
}

/// A callback and the context that it runs in.
type Callback = (Py<PyAny>, Py<PyAny>);

/// What a stepwise job wants when it lets go of its thread.
enum Parking {
    LetGo,
    Sync { value: Py<PyAny>, timeout: Option<f64>, when_writable: bool },
}

/// What changes, and what it lets go of at its end.
#[derive(Default)]
struct Late {
    work: Option<Work>,
    context: Option<Py<PyAny>>,
    extras: Option<Box<Extras>>,
    /// Its `on_done`, on its way to the pool's errands.
    on_done: Option<Callback>,
    result: Option<Py<PyAny>>,
    error: Option<Py<PyAny>>,
    /// It gave up when it was told to stop.
    gave_up: bool,
    /// Its owner was asked to come when its descriptor can be written to, and a watch for that may be left.
    watched: bool,
    /// It was seen to the end: whoever asks for its end later is answered at once.
    concluded: bool,
    callbacks: Vec<Py<PyAny>>,
    /// Of the Future, made when somebody asks for it.
    condition: Option<Py<PyAny>>,
    answer: Option<Py<PyAny>>,
    parking: Option<Parking>,
}

/// What a job is made of; taken by `__new__`.
pub struct Parts {
    pub pool: Py<PoolCore>,
    pub core: Arc<CorePool>,
    pub job: Arc<Job>,
    pub name: Option<Py<PyAny>>,
    pub user: Option<Py<PyAny>>,
    pub owned: Option<Box<Owned>>,
    pub extras: Option<Box<Extras>>,
    pub context: Py<PyAny>,
    pub work: Work,
}

thread_local! {
    static PARTS: RefCell<Option<Parts>> = const { RefCell::new(None) };
}

/// The compiled half of `manyhands.Job`: its life, its waiting, its syncs.
#[pyclass(frozen, subclass, module = "manyhands._core")]
pub struct JobCore {
    pool: Py<PoolCore>,
    core: Arc<CorePool>,
    job: Arc<Job>,
    name: Option<Py<PyAny>>,
    /// The function's `__qualname__`, if it has one and the job has no name.
    called: Option<Py<PyString>>,
    user: Option<Py<PyAny>>,
    owned: Option<Box<Owned>>,
    /// `threading.get_ident()` of the thread that it runs on, 0 for none.
    thread: AtomicU64,
    late: Mutex<Late>,
}

/// Makes a job of Python's class.
pub fn make<'py>(class: &Bound<'py, PyType>, parts: Parts) -> PyResult<Bound<'py, JobCore>> {
    let py = class.py();
    PARTS.with(|cell| cell.replace(Some(parts)));
    let empty = PyTuple::empty(py);
    // SAFETY: attached; `class` is a type object, and a class made by a `class` statement has a tp_new. It is called as
    // the interpreter does, but for `__init__`, which a job has none of.
    let made = unsafe {
        let new = (*class.as_ptr().cast::<ffi::PyTypeObject>()).tp_new;
        match new {
            Some(new) => {
                Bound::from_owned_ptr_or_err(py, new(class.as_ptr().cast(), empty.as_ptr(), core::ptr::null_mut()))
            }
            None => Err(PyTypeError::new_err("the class of jobs cannot be instantiated")),
        }
    };
    PARTS.with(|cell| cell.replace(None));
    Ok(made?.cast_into()?)
}

impl JobCore {
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    pub fn core(&self) -> &Arc<CorePool> {
        &self.core
    }

    pub fn pool(&self) -> &Py<PoolCore> {
        &self.pool
    }

    pub fn owned(&self) -> Option<&Owned> {
        self.owned.as_deref()
    }

    fn late<R>(&self, look: impl FnOnce(&mut Late) -> R) -> R {
        look(&mut self.late.lock())
    }

    fn check_fork(&self, py: Python<'_>) -> PyResult<()> {
        self.core.check_fork().map_err(|error| {
            let name = format!("job {}", self.job.id);
            errors::raise_about(py, error, &name)
        })
    }

    pub fn set_thread(&self, thread: u64) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// Does what a call of the pool wants, detached: the thread it wakes may want the interpreter.
    pub fn perform(py: Python<'_>, core: &CorePool, wanted: Wanted) {
        match wanted {
            Wanted::Nobody => {}
            // That touches what is the interpreter's.
            Wanted::Send => core.perform(wanted),
            _ => attach::detached(py, || core.perform(wanted)),
        }
    }

    /// Enters its context. The function to call, with its arguments.
    pub fn begin(slf: &Bound<'_, Self>) -> PyResult<Work> {
        let (this, py) = (slf.get(), slf.py());
        let context = this.context(py)?;
        let work = if this.job.steps() {
            let step = python!(py, "manyhands._running", "step")?.clone().unbind();
            Work { function: step, args: PyTuple::new(py, [slf])?.unbind(), kwargs: None }
        } else {
            let work = this.late(|late| late.work.take());
            work.ok_or_else(|| PyRuntimeError::new_err("the job has begun before"))?
        };
        // Last: nobody leaves it if this fails.
        // SAFETY: attached, and `context` is a Context: it was made by PyContext_CopyCurrent.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 { Err(PyErr::fetch(py)) } else { Ok(work) }
    }

    /// Its own, a copy of that of the enqueue; gone once it has ended.
    fn context(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let context = self.late(|late| late.context.as_ref().map(|context| context.clone_ref(py)));
        context.ok_or_else(|| PyRuntimeError::new_err(format!("job {} has ended", self.job.id)))
    }

    /// One of its callbacks, or the context for them.
    fn extra(&self, py: Python<'_>, which: impl FnOnce(&Extras) -> &Option<Py<PyAny>>) -> Option<Py<PyAny>> {
        self.late(|late| which(late.extras.as_deref()?).as_ref().map(|extra| extra.clone_ref(py)))
    }

    /// It has ended, and nothing of it is called any more: lets go of what it needed for that. Under no lock, of Python's
    /// neither.
    pub fn let_go(&self) {
        let gone = self.late(|late| (late.context.take(), late.extras.take()));
        drop(gone);
    }

    /// Leaves its context.
    pub fn leave_context(&self, py: Python<'_>) -> PyResult<()> {
        let context = self.context(py)?;
        // SAFETY: as in `begin`.
        if unsafe { ffi::PyContext_Exit(context.as_ptr()) } != 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
    }

    /// Whether nothing of the user's is owed before its end, so that it needs no Python to end.
    pub fn is_plain(&self) -> bool {
        self.late(|late| {
            let cleanup = late.extras.as_ref().is_some_and(|extras| extras.cleanup.is_some());
            !cleanup && !late.watched && late.callbacks.is_empty() && late.condition.is_none()
        })
    }

    pub fn has_callbacks(&self) -> bool {
        self.late(|late| !late.callbacks.is_empty())
    }

    /// Of the parts that [`make`] has put down.
    fn of_parts(py: Python<'_>) -> PyResult<Self> {
        let parts = PARTS.with(|cell| cell.replace(None));
        let parts = parts.ok_or_else(|| PyTypeError::new_err("a Job is made by a pool: use submit() or enqueue()"))?;
        let Parts { pool, core, job, name, user, owned, extras, context, work } = parts;
        let called = || work.function.bind(py).getattr(intern!(py, "__qualname__")).ok()?.cast_into::<PyString>().ok();
        let called = if name.is_none() { called().map(Bound::unbind) } else { None };
        let late = Mutex::new(Late { work: Some(work), context: Some(context), extras, ..Late::default() });
        Ok(Self { pool, core, job, name, called, user, owned, thread: AtomicU64::new(0), late })
    }

    /// Shows the collector what it holds.
    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.pool)?;
        visit.call(&self.name)?;
        visit.call(&self.user)?;
        if let Some(owned) = &self.owned {
            visit.call(&owned.object)?;
            visit.call(&owned.event_loop)?;
        }
        // A thread that changes it holds what it changes: to the collector that is a reference from outside.
        let Some(late) = self.late.try_lock() else { return Ok(()) };
        if let Some(work) = &late.work {
            visit.call(&work.function)?;
            visit.call(&work.args)?;
            visit.call(&work.kwargs)?;
        }
        visit.call(&late.context)?;
        if let Some(extras) = &late.extras {
            visit.call(&extras.cleanup)?;
            visit.call(&extras.on_sync)?;
            visit.call(&extras.on_done)?;
            visit.call(&extras.context)?;
        }
        if let Some((on_done, context)) = &late.on_done {
            visit.call(on_done)?;
            visit.call(context)?;
        }
        if let Some(Parking::Sync { value, .. }) = &late.parking {
            visit.call(value)?;
        }
        visit.call(&late.result)?;
        visit.call(&late.error)?;
        visit.call(&late.condition)?;
        visit.call(&late.answer)?;
        late.callbacks.iter().try_for_each(|callback| visit.call(callback))
    }
}

impl Held {
    /// The job that is carried.
    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, JobCore> {
        self.0.bind(py)
    }
}
