//! The compiled half of `manyhands.Job`.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use manyhands_core::owned::Owner;
use manyhands_core::pool::{
    AnswerError, Call as Wanted, Job, MeetError, Met, NobodyLeft, Outcome, Status, StopReason, Stopped,
};
use manyhands_core::sync::{Arc, Mutex};
use manyhands_core::watch::Occupant;
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, ffi, intern};

use crate::event_loop::LoopCore;
use crate::payload::{Call, Carried};
use crate::pool::{CorePool, Held, PoolCore};
use crate::{attach, current, errors};

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

/// What a stepwise job wants when it lets go of its thread.
enum Parking {
    LetGo,
    Sync { value: Py<PyAny>, timeout: Option<f64>, when_writable: bool },
}

/// What changes.
#[derive(Default)]
struct Late {
    work: Option<Work>,
    result: Option<Py<PyAny>>,
    error: Option<Py<PyAny>>,
    /// It gave up when it was told to stop.
    gave_up: bool,
    /// It was seen to the end: whoever asks for its end later is answered at once.
    concluded: bool,
    callbacks: Vec<Py<PyAny>>,
    /// Of the Future, made when somebody asks for it.
    condition: Option<Py<PyAny>>,
    answer: Option<Py<PyAny>>,
    parking: Option<Parking>,
    cleaned: bool,
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
    /// The function's `__qualname__`, if it has one.
    called: Option<Py<PyString>>,
    user: Option<Py<PyAny>>,
    owned: Option<Box<Owned>>,
    extras: Option<Box<Extras>>,
    context: Py<PyAny>,
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

fn member(py: Python<'_>, class: &str, index: usize) -> PyResult<Py<PyAny>> {
    static MEMBERS: PyOnceLock<[Vec<Py<PyAny>>; 2]> = PyOnceLock::new();
    let members = MEMBERS.get_or_try_init(py, || -> PyResult<_> {
        let module = py.import("manyhands._job")?;
        let of = |name| -> PyResult<Vec<Py<PyAny>>> {
            module.getattr(name)?.try_iter()?.map(|member| Ok(member?.unbind())).collect()
        };
        Ok([of("JobStatus")?, of("StopReason")?])
    })?;
    Ok(members[usize::from(class == "StopReason")][index].clone_ref(py))
}

/// The `JobStatus` of Python.
pub fn status_object(py: Python<'_>, status: Status) -> PyResult<Py<PyAny>> {
    member(py, "JobStatus", status as usize)
}

/// The `StopReason` of Python.
fn reason_object(py: Python<'_>, reason: StopReason) -> PyResult<Py<PyAny>> {
    member(py, "StopReason", reason as usize - 1)
}

macro_rules! python {
    ($py:expr, $module:literal, $name:literal) => {{
        static OBJECT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        OBJECT.import($py, $module, $name)
    }};
}

fn error(py: Python<'_>, class: PyResult<&Bound<'_, PyAny>>, reason: Option<StopReason>) -> PyErr {
    let made = || -> PyResult<_> {
        let reason = reason.map(|reason| reason_object(py, reason)).transpose()?;
        class?.call1((reason,))
    };
    match made() {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// `JobStopped`, with the reason.
pub fn job_stopped(py: Python<'_>, job: &Job) -> PyErr {
    error(py, python!(py, "manyhands.errors", "JobStopped"), job.reason())
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
        if !matches!(wanted, Wanted::Nobody) {
            attach::detached(py, || core.perform(wanted));
        }
    }

    /// Enters its context. The function to call, with its arguments.
    pub fn begin(slf: &Bound<'_, Self>) -> PyResult<Work> {
        let (this, py) = (slf.get(), slf.py());
        // SAFETY: attached, and `context` is a Context: it was made by PyContext_CopyCurrent.
        if unsafe { ffi::PyContext_Enter(this.context.as_ptr()) } != 0 {
            return Err(PyErr::fetch(py));
        }
        if this.job.traits.steps {
            let step = python!(py, "manyhands._running", "step")?.clone().unbind();
            return Ok(Work { function: step, args: PyTuple::new(py, [slf])?.unbind(), kwargs: None });
        }
        this.late(|late| late.work.take()).ok_or_else(|| PyRuntimeError::new_err("the job has begun before"))
    }

    /// Leaves its context.
    pub fn leave_context(&self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: as in `begin`.
        if unsafe { ffi::PyContext_Exit(self.context.as_ptr()) } != 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
    }

    /// Its function returned. True if that was not the end: it lets go of its thread.
    pub fn store_value(slf: &Bound<'_, Self>, value: Bound<'_, PyAny>) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        if !this.job.traits.steps {
            this.late(|late| late.result = Some(value.unbind()));
            return Ok(false);
        }
        let parking = this.late(|late| late.parking.take());
        match parking {
            None => {
                this.late(|late| late.result = Some(value.unbind()));
                return Ok(false);
            }
            Some(Parking::LetGo) => {
                this.set_thread(0);
                Self::perform(py, &this.core, this.core.let_go(&this.job));
            }
            Some(Parking::Sync { value, timeout, when_writable }) => {
                let timeout = attach::timeout("timeout", timeout)?;
                this.set_thread(0);
                match this.core.begin_meeting(&this.job, timeout) {
                    Ok((number, wanted)) => {
                        if let Err(error) = Self::invite(slf, number, value.into_bound(py), when_writable) {
                            error.write_unraisable(py, Some(slf.as_any()));
                            this.core.leave_meeting(&this.job, number, true);
                        }
                        Self::perform(py, &this.core, wanted);
                    }
                    // Told to stop, or left by its owner, meanwhile: its next step hears of it.
                    Err(_) => Self::perform(py, &this.core, this.core.let_go(&this.job)),
                }
            }
        }
        Ok(true)
    }

    /// Its function raised.
    pub fn store_error(&self, py: Python<'_>, raised: Bound<'_, PyAny>) -> PyResult<()> {
        let stopped = raised.is_instance(python!(py, "manyhands.errors", "JobStopped")?)?;
        // Not its status: that moves a moment after the job can hear of its stop.
        let asked = self.job.reason().is_some();
        let kept = if stopped && !asked {
            let error = PyRuntimeError::new_err(
                "the job raised JobStopped, or returned STOPPED, and nobody had told it to stop",
            );
            error.set_cause(py, Some(PyErr::from_value(raised)));
            Some(error.into_value(py).into_any())
        } else if stopped {
            None
        } else {
            Some(raised.unbind())
        };
        self.late(|late| {
            late.gave_up = stopped && asked;
            late.error = kept;
        });
        Ok(())
    }

    /// Whether nothing of the user's is owed at its end, so that it needs no Python to end.
    pub fn is_plain(&self) -> bool {
        self.extras.is_none()
            && self.owned.is_none()
            && self.late(|late| late.callbacks.is_empty() && late.condition.is_none())
    }

    pub fn has_callbacks(&self) -> bool {
        self.late(|late| !late.callbacks.is_empty())
    }

    /// Its end, once: its status, its place on the done queue. `held`: the caller holds the Future's condition. False if
    /// there is a condition and it is not held.
    pub fn conclude(slf: &Bound<'_, Self>, held: bool) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        this.core.ending();
        // Status and the Future's own state change under one lock: who asks for the condition later finds the end.
        let ended = this.late(|late| {
            if late.condition.is_some() && !held {
                return None;
            }
            late.concluded = true;
            let outcome = if late.gave_up { Outcome::GaveUp } else { Outcome::Finished };
            Some(if this.job.status().ended() {
                this.core.conclude(&this.job)
            } else {
                this.core.end(&this.job, outcome)
            })
        });
        let Some(ended) = ended else { return Ok(false) };
        this.set_thread(0);
        drop((ended.payload, ended.evicted));
        Self::perform(py, &this.core, ended.call);
        if let Some(owned) = this.owned() {
            if let Ok(event_loop) = owned.event_loop.get().core() {
                event_loop.disown(&owned.owner, &this.job);
            }
            if let Some(on_done) = this.extras.as_ref().and_then(|extras| extras.on_done.as_ref()) {
                Self::complete(slf, owned, "on_done", on_done.bind(py).clone(), PyTuple::new(py, [slf])?)?;
            }
        }
        Ok(true)
    }

    /// Runs a callback on the owner's strand.
    fn complete<'py>(
        slf: &Bound<'py, Self>,
        owned: &Owned,
        source: &'static str,
        callable: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        let py = slf.py();
        let mut call = Call::new(source, callable, args)?;
        // A copy: an earlier one may be inside.
        if let Some(context) = slf.get().extras.as_ref().and_then(|extras| extras.context.as_ref()) {
            call.context = context.call_method0(py, "copy")?;
        }
        if let Ok(event_loop) = owned.event_loop.get().core() {
            event_loop.complete(Some(owned.owner.strand()), Carried::Call(call));
        }
        Ok(())
    }

    /// Asks the owner to come: the callback of this sync is queued on its strand.
    fn invite(slf: &Bound<'_, Self>, number: u64, value: Bound<'_, PyAny>, when_writable: bool) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        let Some(owned) = this.owned() else { return Ok(()) };
        if when_writable {
            python!(py, "manyhands._running", "visit_when_writable")?.call1((slf, number, value))?;
            return Ok(());
        }
        let args = (slf, number, value).into_pyobject(py)?;
        Self::complete(slf, owned, "on_sync", python!(py, "manyhands._running", "visit")?.clone(), args)
    }

    /// What every sync asks first. None if nobody can answer any more.
    fn check_sync(&self, py: Python<'_>, timeout: Option<f64>, when_writable: bool) -> PyResult<Option<()>> {
        let on_sync = self.extras.as_ref().is_some_and(|extras| extras.on_sync.is_some());
        let Some(owned) = self.owned() else {
            return Err(PyValueError::new_err("sync() meets the owner: enqueue the job with owner= and on_sync="));
        };
        if !on_sync {
            return Err(PyValueError::new_err(
                "sync() calls on_sync on the owner's strand: enqueue the job with on_sync=",
            ));
        }
        if when_writable && !matches!(owned.owner, Owner::Watch(_)) {
            return Err(PyValueError::new_err("when_writable=True asks for an owner with a descriptor: a Watch"));
        }
        attach::timeout("timeout", timeout)?;
        self.check_fork(py)?;
        Ok((!self.job.orphaned()).then_some(()))
    }

    fn wait_ended(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.check_fork(py)?;
        if self.job.status().ended() {
            return Ok(());
        }
        let timeout = attach::timeout("timeout", timeout)?;
        let here = current::job(py);
        let mine = here.as_ref().filter(|here| current::holds_slot() && Arc::ptr_eq(&here.get().core, &self.core));
        let stuck = std::sync::atomic::AtomicBool::new(false);
        let (core, job, counted) = (&self.core, &self.job, mine.is_some());
        let ended = attach::wait(py, timeout, |limit| match core.wait_ended(job, limit, counted) {
            Ok(ended) => ended,
            Err(NobodyLeft) => {
                stuck.store(true, Ordering::Relaxed);
                true
            }
        })?;
        if stuck.load(Ordering::Relaxed) {
            let class = python!(py, "manyhands.errors", "WouldDeadlock")?;
            let waiting = match mine {
                Some(job) => job.repr()?.to_string(),
                None => String::new(),
            };
            let text = format!(
                "{waiting} waits for job {:?} of its own pool, and no thread of the pool is left to run it: give the pool \
                 more threads, use a second pool, or a stepwise job",
                self.name(py)?.bind(py).str()?.to_string()
            );
            return Err(PyErr::from_value(class.call_method1("about", (text,))?));
        }
        if ended { Ok(()) } else { Err(PyTimeoutError::new_err(format!("job {} has not ended in time", self.job.id))) }
    }

    /// The exception of a job that was stopped: made once.
    fn stopped_error(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(kept) = self.late(|late| late.error.as_ref().map(|error| error.clone_ref(py))) {
            return Ok(kept);
        }
        let made = match self.job.reason() {
            Some(StopReason::Caller) => error(py, python!(py, "manyhands.errors", "JobCancelled"), self.job.reason()),
            reason => error(py, python!(py, "manyhands._running", "aborted"), reason),
        };
        let mut made = Some(made.into_value(py).into_any());
        let kept = self.late(|late| {
            late.error = late.error.take().or_else(|| made.take());
            late.error.as_ref().map_or_else(|| py.None(), |error| error.clone_ref(py))
        });
        drop(made);
        Ok(kept)
    }

    fn cancelled(&self) -> bool {
        self.job.status() == Status::Stopped && self.job.reason() == Some(StopReason::Caller)
    }
}

#[pymethods]
impl JobCore {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let parts = PARTS.with(|cell| cell.replace(None));
        let parts = parts.ok_or_else(|| PyTypeError::new_err("a Job is made by a pool: use submit() or enqueue()"))?;
        let Parts { pool, core, job, name, user, owned, extras, context, work } = parts;
        let called = work.function.bind(py).getattr(intern!(py, "__qualname__"));
        let called = called.ok().and_then(|called| called.cast_into::<PyString>().ok()).map(Bound::unbind);
        let late = Mutex::new(Late { work: Some(work), ..Late::default() });
        Ok(Self { pool, core, job, name, called, user, owned, extras, context, thread: AtomicU64::new(0), late })
    }

    /// Unique in the process; a later job has a larger one.
    #[getter]
    fn id(&self) -> u64 {
        self.job.id
    }

    /// The name given at `enqueue`, or the function's with the job's number.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.name {
            Some(name) => Ok(name.clone_ref(py)),
            None => {
                let called = self.called.as_ref().map_or("job", |called| called.bind(py).to_str().unwrap_or("job"));
                Ok(format!("{called}-{}", self.job.id).into_pyobject(py)?.into_any().unbind())
            }
        }
    }

    /// Where it is now, a `JobStatus`. Looking does not reap it.
    #[getter]
    fn status(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        status_object(py, self.job.status())
    }

    /// Why it was told to stop, a `StopReason`; None if it was not.
    #[getter]
    fn reason(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.job.reason().map(|reason| reason_object(py, reason)).transpose()
    }

    /// Whether it was told to stop.
    #[getter]
    fn stop_requested(&self) -> bool {
        self.job.reason().is_some()
    }

    /// The watch or strand that it belongs to; None without one, after `detach()`, and when it has outlived it.
    #[getter]
    fn owner(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        if self.job.orphaned() { None } else { self.owned().map(|owned| owned.object.clone_ref(py)) }
    }

    /// What was given as `user=`.
    #[getter]
    fn user(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.user.as_ref().map(|user| user.clone_ref(py))
    }

    /// What the owner answered to the last sync.
    #[getter]
    fn answered(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.late(|late| late.answer.as_ref().map(|answer| answer.clone_ref(py)))
    }

    #[getter]
    fn _pool(&self, py: Python<'_>) -> Py<PoolCore> {
        self.pool.clone_ref(py)
    }

    /// What was given as `owner=`, also when it is gone.
    #[getter]
    fn _owned(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.owned().map(|owned| owned.object.clone_ref(py))
    }

    #[getter]
    fn _event_loop(&self, py: Python<'_>) -> Option<Py<LoopCore>> {
        self.owned().map(|owned| owned.event_loop.clone_ref(py))
    }

    #[getter]
    fn _thread(&self) -> u64 {
        self.thread.load(Ordering::Relaxed)
    }

    #[getter]
    fn _context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    /// That of the enqueue.
    #[getter]
    fn _enqueue_context(&self, py: Python<'_>) -> Py<PyAny> {
        let own = self.extras.as_ref().and_then(|extras| extras.context.as_ref());
        own.unwrap_or(&self.context).clone_ref(py)
    }

    /// Tell it to stop: a queued one never runs, a running one hears of it at its next check-in.
    ///
    /// Returns:
    ///     True if it will never run, or was told, now or before. False if it had ended.
    ///
    /// Threads: any; also a handler of signals or a finalizer. Blocks: never.
    fn stop(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_fork(py)?;
        let (core, job) = (&self.core, &self.job);
        Ok(core.stop(job, StopReason::Caller) != Stopped::Ended)
    }

    /// As `concurrent.futures.Future.cancel`: a queued job is cancelled, a running one is told to stop.
    ///
    /// Returns:
    ///     True if it is cancelled. False if it runs, and was told, or if it has finished.
    fn cancel(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_fork(py)?;
        Ok(match self.core.stop(&self.job, StopReason::Caller) {
            Stopped::Never => true,
            Stopped::Ended => self.cancelled(),
            // It hears of it, and what it does then is its own.
            Stopped::Told | Stopped::Asked => false,
        })
    }

    /// Whether it was stopped by its caller: it never ran, or gave up because of that.
    #[pyo3(name = "cancelled")]
    fn py_cancelled(&self) -> bool {
        self.cancelled()
    }

    /// Whether it has begun and not ended: it is RUNNING, SYNCING or STOPPING.
    fn running(&self) -> bool {
        matches!(self.job.status(), Status::Running | Status::Syncing | Status::Stopping)
    }

    /// Whether it has ended: it is FINISHED or STOPPED.
    fn done(&self) -> bool {
        self.job.status().ended()
    }

    /// Wait for it to end, and return what its function returned.
    ///
    /// Args:
    ///     timeout: Seconds; None for ever.
    ///
    /// Raises:
    ///     Exception: what its function raised.
    ///     JobCancelled: it was stopped by `stop()` or `cancel()`.
    ///     JobAborted: it was stopped for another reason, which the error has.
    ///     TimeoutError: it has not ended in time.
    ///     WouldDeadlock: a job asked, and no thread of the pool is left to run this one.
    #[pyo3(signature = (timeout = None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        self.wait_ended(py, timeout)?;
        if self.job.status() == Status::Stopped {
            return Err(PyErr::from_value(self.stopped_error(py)?.into_bound(py)));
        }
        let copy = |kept: &Option<Py<PyAny>>| kept.as_ref().map(|kept| kept.clone_ref(py));
        let (result, error) = self.late(|late| (copy(&late.result), copy(&late.error)));
        match error {
            Some(error) => Err(PyErr::from_value(error.into_bound(py))),
            None => Ok(result.unwrap_or_else(|| py.None())),
        }
    }

    /// Wait for it to end, and return what its function raised, or None.
    ///
    /// Of a job that was stopped by another than its caller it is a `JobAborted`.
    ///
    /// Args:
    ///     timeout: Seconds; None for ever.
    ///
    /// Raises:
    ///     JobCancelled: it was stopped by `stop()` or `cancel()`.
    ///     TimeoutError, WouldDeadlock: as `result`.
    #[pyo3(signature = (timeout = None))]
    fn exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        self.wait_ended(py, timeout)?;
        if self.cancelled() {
            return Err(PyErr::from_value(self.stopped_error(py)?.into_bound(py)));
        }
        if self.job.status() == Status::Stopped {
            return self.stopped_error(py).map(Some);
        }
        Ok(self.late(|late| late.error.as_ref().map(|error| error.clone_ref(py))))
    }

    /// On its own thread: raise `JobStopped` if it was told to stop.
    ///
    /// The first call after the stop raises, and then one in each second, for a job that went on all the same.
    ///
    /// Raises:
    ///     JobStopped: it was told to stop; the error has the reason.
    ///     RuntimeError: the calling thread does not run this job.
    fn check_in(&self, py: Python<'_>) -> PyResult<()> {
        if !current::runs(&self.job) {
            return Err(PyRuntimeError::new_err(format!(
                "check_in() of job {} is for the thread that runs it",
                self.job.id
            )));
        }
        if self.job.check_in() { Err(job_stopped(py, &self.job)) } else { Ok(()) }
    }

    /// Meet the owner: `on_sync(job, value)` runs on its strand while the job waits, and somebody calls `answer()`.
    ///
    /// Args:
    ///     value: For `on_sync`.
    ///     timeout: Seconds; then the job is stopped with SYNC_TIMEOUT. None for ever.
    ///     when_writable: Call `on_sync` when the owner's descriptor can be written to; the owner is a Watch.
    ///
    /// Returns:
    ///     What was answered. None if the owner is gone and the job outlives it.
    ///
    /// Raises:
    ///     JobStopped: it was told to stop, or nobody answered in time, or `on_sync` raised.
    ///     ValueError: it has no owner or no `on_sync`.
    ///     RuntimeError: the calling thread does not run this job, or the job is stepwise (`yield mh.SYNC(value)`).
    #[pyo3(signature = (value = None, timeout = Some(30.0), *, when_writable = false),
           text_signature = "($self, value=None, timeout=30.0, *, when_writable=False)")]
    fn sync(
        slf: &Bound<'_, Self>,
        value: Option<Bound<'_, PyAny>>,
        timeout: Option<f64>,
        when_writable: bool,
    ) -> PyResult<Option<Py<PyAny>>> {
        let (this, py) = (slf.get(), slf.py());
        if !current::runs(&this.job) {
            let message = format!("sync() of job {} is for the thread that runs it", this.job.id);
            return Err(PyRuntimeError::new_err(message));
        }
        if this.job.traits.steps {
            return Err(PyRuntimeError::new_err("a stepwise job meets its owner by `yield manyhands.SYNC(value)`"));
        }
        let limit = attach::timeout("timeout", timeout)?;
        if let Some(owned) = this.owned()
            && owned.event_loop.get().core()?.strand_occupant(owned.owner.strand()) == Occupant::Me
        {
            let class = python!(py, "manyhands.errors", "WouldDeadlock")?;
            let text = "sync() waits for the owner's strand, and this thread is inside it: run the job on the pool";
            return Err(PyErr::from_value(class.call_method1("about", (text,))?));
        }
        if this.check_sync(py, timeout, when_writable)?.is_none() {
            return Ok(None);
        }
        let stale = this.late(|late| late.answer.take());
        drop(stale);
        let number = match this.core.begin_meeting(&this.job, None) {
            Ok((number, _)) => number,
            Err(MeetError::NoOwner) => return Ok(None),
            Err(MeetError::Stopping | MeetError::NotRunning) => {
                this.job.check_in();
                return Err(job_stopped(py, &this.job));
            }
        };
        let value = value.unwrap_or_else(|| py.None().into_bound(py));
        if let Err(error) = Self::invite(slf, number, value, when_writable) {
            this.core.leave_meeting(&this.job, number, true);
            return Err(error);
        }
        let met = attach::wait(py, limit, |limit| this.core.wait_met(&this.job, limit).is_some());
        if !matches!(met, Ok(true)) {
            let reason = if met.is_ok() { StopReason::SyncTimeout } else { StopReason::SyncFailed };
            this.core.stop(&this.job, reason);
        }
        // A callback that is inside is waited for: the two never run at the same time.
        let end = attach::detached(py, || this.core.wait_met(&this.job, None));
        met?;
        match end {
            Some(Met::Answered) => Ok(this.answered(py)),
            Some(Met::Stopping) | None => {
                this.job.check_in();
                Err(job_stopped(py, &this.job))
            }
        }
    }

    /// The owner's side of a sync: let the job go on with this value. Once for each sync, in `on_sync` or later.
    ///
    /// Raises:
    ///     RuntimeError: the job waits for no answer, or has one.
    ///
    /// Threads: any. Blocks: never.
    #[pyo3(signature = (value = None))]
    fn answer(&self, py: Python<'_>, value: Option<Py<PyAny>>) -> PyResult<()> {
        self.check_fork(py)?;
        let value = value.unwrap_or_else(|| py.None());
        let mut spare = Some(value);
        let answered = self.late(|late| {
            core::mem::swap(&mut late.answer, &mut spare);
            let answered = self.core.answer(&self.job);
            if answered.is_err() {
                core::mem::swap(&mut late.answer, &mut spare);
            }
            answered
        });
        drop(spare);
        match answered {
            Ok(wanted) => {
                Self::perform(py, &self.core, wanted);
                Ok(())
            }
            Err(AnswerError::Answered) => {
                Err(PyRuntimeError::new_err(format!("job {} has its answer already: one for each sync", self.job.id)))
            }
            Err(AnswerError::NotSyncing(status)) => Err(PyRuntimeError::new_err(format!(
                "job {} is {} and waits for no answer: answer() is for a job that is SYNCING",
                self.job.id,
                format!("{status:?}").to_uppercase()
            ))),
        }
    }

    /// Take it off its pool's done queue, once.
    ///
    /// Returns:
    ///     Its status, FINISHED or STOPPED.
    ///
    /// Raises:
    ///     RuntimeError: it has not ended, or has no place there: it has no owner, was detached, was reaped before, or
    ///         was dropped because more than `max_done` waited.
    fn reap(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_fork(py)?;
        let (reaped, payload) = self.core.reap(&self.job);
        drop(payload);
        if reaped {
            return status_object(py, self.job.status());
        }
        let why = if self.job.status().ended() { "it is not on the done queue" } else { "it has not ended" };
        Err(PyRuntimeError::new_err(format!("job {} cannot be reaped: {why}", self.job.id)))
    }

    /// Part it from its owner: it goes on when that ends, and reaps itself. Idempotent.
    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        self.check_fork(py)?;
        if let Some(owned) = self.owned()
            && let Ok(event_loop) = owned.event_loop.get().core()
        {
            event_loop.disown(&owned.owner, &self.job);
        }
        let (payload, wanted) = self.core.disown(&self.job);
        drop(payload);
        Self::perform(py, &self.core, wanted);
        Ok(())
    }

    fn _take_work(&self) -> Option<Callable> {
        self.late(|late| late.work.take()).map(|work| (work.function, work.args, work.kwargs))
    }

    fn _take_cleanup(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        if self.late(|late| core::mem::replace(&mut late.cleaned, true)) {
            return None;
        }
        // What it was called with is not needed any more; it is dropped here, under no lock.
        drop(self.late(|late| late.work.take()));
        self.extras.as_ref()?.cleanup.as_ref().map(|cleanup| cleanup.clone_ref(py))
    }

    fn _take_callbacks(&self) -> Vec<Py<PyAny>> {
        self.late(|late| core::mem::take(&mut late.callbacks))
    }

    /// False if it has been concluded: then the caller calls it.
    fn _add_callback(&self, callback: Py<PyAny>) -> bool {
        let refused = self.late(|late| {
            if late.concluded {
                return Some(callback);
            }
            late.callbacks.push(callback);
            None
        });
        refused.is_none()
    }

    #[getter]
    fn _concluded(&self) -> bool {
        self.late(|late| late.concluded)
    }

    #[getter]
    fn _conditioned(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.late(|late| late.condition.as_ref().map(|condition| condition.clone_ref(py)))
    }

    /// The Future's condition from now on, if there is none yet; returns the one that is.
    fn _set_condition(&self, py: Python<'_>, condition: Py<PyAny>) -> Py<PyAny> {
        let mut spare = Some(condition);
        let kept = self.late(|late| match &late.condition {
            Some(kept) => kept.clone_ref(py),
            None => {
                late.condition = spare.take();
                late.condition.as_ref().map_or_else(|| py.None(), |kept| kept.clone_ref(py))
            }
        });
        drop(spare);
        kept
    }

    #[pyo3(name = "_conclude")]
    fn py_conclude(slf: &Bound<'_, Self>, held: bool) -> PyResult<bool> {
        Self::conclude(slf, held)
    }

    fn _on_sync(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.extras.as_ref()?.on_sync.as_ref().map(|on_sync| on_sync.clone_ref(py))
    }

    fn _enter_meeting(&self, number: u64) -> bool {
        self.core.enter_meeting(&self.job, number)
    }

    fn _leave_meeting(&self, number: u64, failed: bool) {
        self.core.leave_meeting(&self.job, number, failed);
    }

    /// Whether others that could go on wait for a thread.
    fn _others_wait(&self) -> bool {
        self.core.others_wait()
    }

    /// What this stepwise job does when its step has returned.
    fn _park(&self) {
        self.late(|late| late.parking = Some(Parking::LetGo));
    }

    /// False if nobody can answer any more: the step goes on.
    fn _park_for_sync(
        &self,
        py: Python<'_>,
        value: Py<PyAny>,
        timeout: Option<f64>,
        when_writable: bool,
    ) -> PyResult<bool> {
        let open = self.check_sync(py, timeout, when_writable)?.is_some();
        let stale = self.late(|late| {
            if open {
                late.parking = Some(Parking::Sync { value, timeout, when_writable });
            }
            late.answer.take()
        });
        drop(stale);
        Ok(open)
    }

    /// Whether the stop is to be told now: once for a stepwise job.
    fn _told(&self) -> bool {
        self.job.reason().is_some() && !self.job.was_told() && self.job.check_in()
    }

    fn _want_on_stop(&self, want: bool) -> bool {
        self.core.want_on_stop(&self.job, want)
    }

    #[getter]
    fn _value(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.late(|late| late.result.as_ref().map(|result| result.clone_ref(py)))
    }

    #[getter]
    fn _error(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.job.status() == Status::Stopped {
            return self.stopped_error(py).map(Some);
        }
        Ok(self.late(|late| late.error.as_ref().map(|error| error.clone_ref(py))))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.pool)?;
        visit.call(&self.name)?;
        visit.call(&self.user)?;
        visit.call(&self.context)?;
        if let Some(owned) = &self.owned {
            visit.call(&owned.object)?;
            visit.call(&owned.event_loop)?;
        }
        if let Some(extras) = &self.extras {
            visit.call(&extras.cleanup)?;
            visit.call(&extras.on_sync)?;
            visit.call(&extras.on_done)?;
            visit.call(&extras.context)?;
        }
        // A thread that changes it holds what it changes: to the collector that is a reference from outside.
        let Some(late) = self.late.try_lock() else { return Ok(()) };
        if let Some(work) = &late.work {
            visit.call(&work.function)?;
            visit.call(&work.args)?;
            visit.call(&work.kwargs)?;
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

    fn __clear__(&self) {
        let late = self.late(core::mem::take);
        drop(late);
    }
}

impl Held {
    /// The job that is carried.
    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, JobCore> {
        self.0.bind(py)
    }
}
