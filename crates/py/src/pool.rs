//! The compiled half of `manyhands.ThreadPool`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manyhands_core::Payload;
use manyhands_core::owned::Owner;
use manyhands_core::pool::{Call as Wanted, Entrance, Host, Job, Lane, Pool, PoolOptions, Refusal, StopReason, Traits};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyString, PyTuple, PyType, PyWeakrefReference};

use crate::arguments::callable;
use crate::event_loop::LoopCore;
use crate::job::{Extras, JobCore, Owned, Parts, Work, make, status_object};
use crate::payload::copy_context;
use crate::strand::Strand;
use crate::watch::Watch;
use crate::worker::Worker;
use crate::{alarm, attach, current, errors, in_place};

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
}

/// The compiled half of `manyhands.ThreadPool`: the way in, and what its threads are handed.
#[pyclass(frozen, subclass, module = "manyhands._core")]
pub struct PoolCore {
    opened: OnceLock<Opened>,
}

/// Starts threads by `ThreadPool._start_thread`, which takes no lock of Python's in the calling thread.
struct PythonHost {
    pool: OnceLock<Py<PyWeakrefReference>>,
    core: OnceLock<std::sync::Weak<CorePool>>,
}

/// Made before the pool that it serves.
struct SharedHost(Arc<PythonHost>);

impl Host for SharedHost {
    fn start_thread(&self, lane: Lane) {
        // None once the interpreter finalises: then nobody needs a thread any more.
        let started = Python::try_attach(|py| {
            let pool = self.0.pool.get().and_then(|pool| pool.bind(py).upgrade());
            let Some(pool) = pool.and_then(|pool| pool.cast_into::<PoolCore>().ok()) else { return false };
            PoolCore::start_thread(&pool, lane);
            true
        });
        if started != Some(true)
            && let Some(core) = self.0.core.get().and_then(std::sync::Weak::upgrade)
        {
            core.start_failed(lane);
        }
    }

    fn expires_sooner(&self) {
        alarm::ring();
    }
}

/// Everything that `enqueue` takes besides the function and its arguments.
#[derive(Default)]
struct Wishes<'py> {
    owner: Option<Bound<'py, PyAny>>,
    name: Option<Bound<'py, PyAny>>,
    user: Option<Bound<'py, PyAny>>,
    cleanup: Option<Bound<'py, PyAny>>,
    on_sync: Option<Bound<'py, PyAny>>,
    on_done: Option<Bound<'py, PyAny>>,
    traits: Traits,
}

/// Whether a place was taken on this joined thread, and nothing was promised for it yet.
struct Placed(bool);

impl Drop for Placed {
    fn drop(&mut self) {
        if self.0 {
            in_place::give_back(None);
        }
    }
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

    /// Reads what a user wishes for a job; what cannot be is refused before anything is made.
    fn wishes<'py>(
        function: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
        steps: bool,
    ) -> PyResult<Wishes<'py>> {
        callable("function", function)?;
        let mut wishes = Wishes { traits: Traits { steps, ..Traits::default() }, ..Wishes::default() };
        let mut keep = None;
        for (key, value) in options.into_iter().flat_map(|options| options.iter()) {
            let key = key.cast_into::<PyString>()?;
            let key = key.to_str()?;
            let given = || (!value.is_none()).then(|| value.clone());
            match key {
                "owner" => wishes.owner = given(),
                "name" => match given() {
                    Some(name) if !name.is_instance_of::<PyString>() => {
                        return Err(PyTypeError::new_err(format!("name must be a str, and got {}", name.repr()?)));
                    }
                    name => wishes.name = name,
                },
                "user" => wishes.user = given(),
                "cleanup" => wishes.cleanup = checked(key, given())?,
                "on_sync" => wishes.on_sync = checked(key, given())?,
                "on_done" => wishes.on_done = checked(key, given())?,
                "deadline" => wishes.traits.deadline = deadline(given())?,
                "priority" => wishes.traits.priority = priority(&value)?,
                "outlive" => wishes.traits.outlive = value.is_truthy()?,
                "slow" => wishes.traits.slow = value.is_truthy()?,
                "in_place" => wishes.traits.in_place = if value.is_truthy()? { in_place::serves() } else { 0 },
                "keep" => keep = given().map(|keep| keep.is_truthy()).transpose()?,
                _ => {
                    return Err(PyTypeError::new_err(format!(
                        "a job has no option {key:?}; to pass a keyword to the function use functools.partial or \
                         submit()"
                    )));
                }
            }
        }
        wishes.traits.keep = keep.unwrap_or(wishes.owner.is_some());
        if wishes.owner.is_none() {
            if wishes.on_done.is_some() {
                return Err(PyValueError::new_err(
                    "on_done runs on the owner's strand: pass owner=, or use add_done_callback()",
                ));
            }
            if wishes.traits.outlive {
                return Err(PyValueError::new_err("outlive=True is for a job with an owner: pass owner="));
            }
        }
        Ok(wishes)
    }

    /// Who a job is to belong to.
    fn owned(owner: Bound<'_, PyAny>) -> PyResult<Owned> {
        let py = owner.py();
        let strand = match owner.cast::<Watch>() {
            Ok(watch) => {
                let this = watch.get();
                let event_loop = this.owner.clone_ref(py);
                let core = Owner::Watch(this.watch.clone());
                return Ok(Owned { object: owner.unbind(), owner: core, event_loop });
            }
            Err(_) => match owner.cast::<Strand>() {
                Ok(strand) => strand.clone(),
                Err(_) => owner
                    .getattr("strand")
                    .ok()
                    .and_then(|strand| strand.cast_into::<Strand>().ok())
                    .ok_or_else(|| match owner.repr() {
                        Ok(repr) => PyTypeError::new_err(format!("owner must be a Watch or a Strand, and got {repr}")),
                        Err(error) => error,
                    })?,
            },
        };
        let this = strand.get();
        let (event_loop, core) = (this.owner.clone_ref(py), Owner::Strand(this.strand.clone()));
        Ok(Owned { object: owner.unbind(), owner: core, event_loop })
    }

    /// Takes a job, or refuses it and leaves nothing behind.
    fn take<'py>(
        slf: &Bound<'py, Self>,
        work: Work,
        wishes: Wishes<'py>,
        when_full: WhenFull,
    ) -> PyResult<Bound<'py, JobCore>> {
        let (this, py) = (slf.get(), slf.py());
        let opened = this.opened()?;
        let pool = this.core(py)?;
        let Wishes { owner, name, user, cleanup, on_sync, on_done, traits } = wishes;
        let owned = owner.map(Self::owned).transpose()?.map(Box::new);
        let mut extras = (cleanup.is_some() || on_sync.is_some() || on_done.is_some()).then(|| {
            Box::new(Extras {
                cleanup: cleanup.map(Bound::unbind),
                on_sync: on_sync.map(Bound::unbind),
                on_done: on_done.map(Bound::unbind),
                context: None,
            })
        });
        if let Some(extras) = &mut extras {
            extras.context = Some(copy_context(py)?);
        }
        let job = Arc::new(Job::new(traits));
        let object = make(
            opened.job_class.bind(py),
            Parts {
                pool: slf.clone().unbind(),
                core: pool.clone(),
                job: job.clone(),
                name: name.map(Bound::unbind),
                user: user.map(Bound::unbind),
                owned,
                extras,
                context: copy_context(py)?,
                work,
            },
        )?;
        let mut placed = Placed(traits.in_place != 0 && current::job(py).is_none() && in_place::take_place());
        if placed.0 && Self::take_in_place(slf, &object)? {
            placed.0 = false;
            return Self::taken(slf, object);
        }
        let mut entrance = Entrance::Queue;
        let mut deadline = None;
        loop {
            let held = Held(object.clone().unbind());
            match pool.admit(&job, held, entrance) {
                Ok(()) => break,
                Err((Refusal::Finished, held)) => {
                    drop(held);
                    return Err(errors::pool_finished(py, &opened.name));
                }
                Err((Refusal::Full, held)) => {
                    drop(held);
                    match when_full {
                        WhenFull::RunHere => entrance = Entrance::Here,
                        WhenFull::Wait if !attach::lent() => {
                            let limit = attach::timeout("full_timeout", opened.full_timeout)?;
                            let now = std::time::Instant::now();
                            let until = *deadline.get_or_insert(limit.map(|limit| now + limit));
                            let left = until.map(|until| until.saturating_duration_since(now));
                            let room = attach::wait(py, left, |limit| pool.wait_room(limit))?;
                            if !room {
                                return Err(this.full(slf, pool));
                            }
                        }
                        WhenFull::Wait | WhenFull::Refuse => return Err(this.full(slf, pool)),
                    }
                }
            }
        }
        if let Err(error) = object.get().join_owner(py) {
            let withdrawn = pool.withdraw(&job);
            if withdrawn.is_some() {
                drop(withdrawn);
                return Err(error);
            }
            // Told to stop meanwhile: it was taken, and is cleaned up.
        }
        if entrance == Entrance::Here {
            drop(placed);
            pool.keep_slot(&job);
            let object = Self::taken(slf, object)?;
            slf.call_method1("_run_here", (Worker::here(py, object.clone().unbind())?, &object))?;
            return Ok(object);
        }
        let wanted = pool.enqueue(&job, placed.0);
        if placed.0 {
            placed.0 = false;
            in_place::take_later(pool);
        }
        let starts = matches!(wanted, Wanted::Start(_));
        Self::perform(slf, pool, wanted);
        if starts && !pool.has_threads(Lane::Jobs) {
            object.get().leave_owner();
            if let Some(held) = pool.withdraw(&job) {
                drop(held);
                return Err(PyRuntimeError::new_err(format!(
                    "pool {:?} has no thread and could not start one: the process has as many as it may",
                    opened.name
                )));
            }
        }
        Self::taken(slf, object)
    }

    /// Tries to give it a slot on this joined thread, where a place was taken for it; false if it has to be queued.
    fn take_in_place(slf: &Bound<'_, Self>, object: &Bound<'_, JobCore>) -> PyResult<bool> {
        let py = slf.py();
        let pool = slf.get().core(py)?;
        let job = object.get().job();
        if let Err((_, held)) = pool.admit(job, Held(object.clone().unbind()), Entrance::InPlace) {
            drop(held);
            return Ok(false);
        }
        if let Err(error) = object.get().join_owner(py) {
            let withdrawn = pool.withdraw(job);
            if withdrawn.is_some() {
                drop(withdrawn);
                return Err(error);
            }
            // Told to stop meanwhile: it was taken, and this thread gives its slot back.
        }
        pool.keep_slot(job);
        in_place::run_later(object);
        Ok(true)
    }

    fn taken<'py>(slf: &Bound<'py, Self>, object: Bound<'py, JobCore>) -> PyResult<Bound<'py, JobCore>> {
        if let Some(hook) = slf.get().opened()?.on_submit.as_ref() {
            slf.call_method1("_call_hook", ("on_submit", hook, &object))?;
        }
        Ok(object)
    }

    fn full(&self, slf: &Bound<'_, Self>, pool: &CorePool) -> PyErr {
        pool.count_refused();
        errors::pool_full(slf.py(), slf.as_any(), pool.options().max_queue_depth.unwrap_or(0))
    }

    fn work(function: Bound<'_, PyAny>, args: Bound<'_, PyTuple>, kwargs: Option<Bound<'_, PyDict>>) -> Work {
        Work { function: function.unbind(), args: args.unbind(), kwargs: kwargs.map(Bound::unbind) }
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

fn checked<'py>(name: &str, callback: Option<Bound<'py, PyAny>>) -> PyResult<Option<Bound<'py, PyAny>>> {
    callback.iter().try_for_each(|callback| callable(name, callback))?;
    Ok(callback)
}

fn deadline(value: Option<Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    let seconds: f64 = value.extract().map_err(|_| {
        PyTypeError::new_err(format!(
            "deadline must be a point in time on manyhands.now(), in seconds, and got {value:?}"
        ))
    })?;
    if seconds == f64::INFINITY {
        return Ok(None);
    }
    attach::nanoseconds("deadline", seconds).map(Some)
}

fn priority(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    if value.is_instance_of::<PyBool>() || !value.is_instance_of::<PyInt>() {
        return Err(PyTypeError::new_err(format!(
            "priority must be an int, the higher the sooner, and got {}",
            value.repr()?
        )));
    }
    value.extract().map_err(|_| PyValueError::new_err(format!("priority must fit 32 bits, and got {value}")))
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Counts of a pool.
#[pyclass(frozen, get_all, module = "manyhands._core")]
pub struct PoolCounts {
    threads: usize,
    busy: usize,
    queued: usize,
    oldest_wait: Option<f64>,
    submitted: u64,
    refused: u64,
    running: usize,
    syncing_held: usize,
    syncing_parked: usize,
    stopping: usize,
    finished: u64,
    stopped: u64,
    done: usize,
    dropped: u64,
    wait_times: Vec<u64>,
    run_times: Vec<u64>,
}

/// A job, its status, its age in seconds.
type View = (Py<JobCore>, Py<PyAny>, f64);

#[pymethods]
impl PoolCore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { opened: OnceLock::new() }
    }

    #[expect(clippy::too_many_arguments, reason = "called once, by ThreadPool.__init__, by keyword")]
    #[pyo3(signature = (*, name, threads, errand_threads, max_queue_depth, max_done, max_slow, stop_warning, idle_look,
                        when_full, full_timeout, job_class, on_submit, on_start, on_end))]
    fn _open(
        slf: &Bound<'_, Self>,
        name: String,
        threads: usize,
        errand_threads: usize,
        max_queue_depth: Option<usize>,
        max_done: usize,
        max_slow: usize,
        stop_warning: f64,
        idle_look: Option<f64>,
        when_full: &str,
        full_timeout: Option<f64>,
        job_class: Py<PyType>,
        on_submit: Option<Py<PyAny>>,
        on_start: Option<Py<PyAny>>,
        on_end: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let nanoseconds = |duration: Duration| duration.as_nanos() as u64;
        let options = PoolOptions {
            threads,
            errand_threads,
            max_queue_depth,
            max_done,
            max_slow,
            stop_warning: nanoseconds(attach::duration("stop_warning", stop_warning)?),
            idle_look: idle_look.map(|look| attach::duration("idle_look", look)).transpose()?.map(nanoseconds),
        };
        let when_full = match when_full {
            "wait" => WhenFull::Wait,
            "run_here" => WhenFull::RunHere,
            _ => WhenFull::Refuse,
        };
        let host = Arc::new(PythonHost { pool: OnceLock::new(), core: OnceLock::new() });
        _ = host.pool.set(PyWeakrefReference::new(slf.as_any())?.unbind());
        let pool = Pool::new(options, Box::new(SharedHost(host.clone())));
        _ = host.core.set(Arc::downgrade(&pool));
        let opened = Opened { pool, name, when_full, full_timeout, job_class, on_submit, on_start, on_end };
        if slf.get().opened.set(opened).is_err() {
            return Err(PyRuntimeError::new_err("ThreadPool.__init__ was called twice"));
        }
        Ok(())
    }

    /// The name given to the constructor: part of its threads' names.
    #[getter]
    fn name(&self) -> &str {
        self.opened.get().map_or("pool", |opened| opened.name.as_str())
    }

    /// Have a function called on a thread of the pool; as `concurrent.futures.Executor.submit`.
    ///
    /// A full queue makes the caller wait for a place.
    ///
    /// Returns:
    ///     A `Job`, which is a `concurrent.futures.Future`.
    ///
    /// Raises:
    ///     QueueFull: the queue is full, and the calling thread is lent, so that it must not wait.
    ///     PoolFinished: the pool takes no more jobs.
    ///     TypeError: the function cannot be called.
    ///
    /// Threads: any; also a handler of signals or a finalizer, while the queue is not full.
    #[pyo3(signature = (function, /, *args, **kwargs))]
    fn submit<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, JobCore>> {
        callable("function", &function)?;
        let when_full = match slf.get().opened()?.when_full {
            WhenFull::RunHere => WhenFull::RunHere,
            _ => WhenFull::Wait,
        };
        Self::take(slf, Self::work(function, args, kwargs), Wishes::default(), when_full)
    }

    /// Have `function(*args)` called on a thread of the pool, with everything that a job can have.
    ///
    /// Args:
    ///     owner: A Watch or a Strand: when it ends, the job is stopped with OWNER_GONE.
    ///     name: What `jobs()`, `dump()` and the log call it.
    ///     user: Any object, kept as `job.user`.
    ///     cleanup: Called once as `cleanup(job)` on every path, also if the job never runs; not if it is refused here.
    ///     on_sync: Called as `on_sync(job, value)` on the owner's strand at each sync.
    ///     on_done: Called once as `on_done(job)` on the owner's strand when the job has ended.
    ///     deadline: On `manyhands.now()`: then it is stopped with DEADLINE.
    ///     priority: The higher, the sooner; first in, first out within one.
    ///     outlive: It goes on when its owner ends.
    ///     slow: It takes long: such jobs have at most their share of the threads.
    ///     in_place: Run it on this joined thread when the handler has ended, if another thread serves the loop meanwhile.
    ///     keep: Whether it stays on the done queue until it is reaped; by default, if it has an owner.
    ///
    /// Raises:
    ///     QueueFull: as many jobs wait as may (`when_full` chooses what happens).
    ///     PoolFinished: the pool takes no more jobs.
    ///     StrandClosed, WatchRemoved, LoopClosed: the owner has ended.
    ///     TypeError, ValueError: an option that cannot be.
    #[pyo3(signature = (function, /, *args, **options),
           text_signature = "($self, function, /, *args, owner=None, name=None, user=None, cleanup=None, on_sync=None, \
                             on_done=None, deadline=None, priority=0, outlive=False, slow=False, in_place=False, \
                             keep=None)")]
    fn enqueue<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        options: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, JobCore>> {
        let wishes = Self::wishes(&function, options.as_ref(), false)?;
        let when_full = slf.get().opened()?.when_full;
        Self::take(slf, Self::work(function, args, None), wishes, when_full)
    }

    /// As `enqueue`, for a generator function: the job is run step by step, and holds no thread between two steps.
    #[pyo3(signature = (function, /, *args, **options),
           text_signature = "($self, function, /, *args, owner=None, name=None, user=None, cleanup=None, on_sync=None, \
                             on_done=None, deadline=None, priority=0, outlive=False, slow=False, in_place=False, \
                             keep=None)")]
    fn enqueue_steps<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        options: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, JobCore>> {
        let wishes = Self::wishes(&function, options.as_ref(), true)?;
        let when_full = slf.get().opened()?.when_full;
        Self::take(slf, Self::work(function, args, None), wishes, when_full)
    }

    /// As `submit`, but that it never waits.
    fn _submit_now<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, JobCore>> {
        callable("function", &function)?;
        Self::take(slf, Self::work(function, args, Some(kwargs)), Wishes::default(), WhenFull::Refuse)
    }

    fn _worker(&self, py: Python<'_>, lane: usize) -> PyResult<Worker> {
        let lane = if lane == 0 { Lane::Jobs } else { Lane::Errands };
        Ok(Worker::arrive(self.core(py)?, lane))
    }

    fn _start_failed(&self, lane: usize) -> PyResult<()> {
        self.opened()?.pool.start_failed(if lane == 0 { Lane::Jobs } else { Lane::Errands });
        Ok(())
    }

    fn _close_entrance(&self, py: Python<'_>) -> PyResult<()> {
        self.core(py)?.close_entrance();
        Ok(())
    }

    fn _stop_all(&self, py: Python<'_>, reason: usize, every: bool) -> PyResult<usize> {
        let reason = *StopReason::ALL
            .get(reason)
            .ok_or_else(|| PyValueError::new_err(format!("no reason has the number {reason}")))?;
        Ok(self.core(py)?.stop_all(reason, every))
    }

    /// Wait until no job is left and, after `finish()`, every thread has left.
    #[pyo3(signature = (timeout = None))]
    fn _wait_left(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let core = self.core(py)?;
        let timeout = attach::timeout("timeout", timeout)?;
        attach::wait(py, timeout, |limit| core.wait_left(limit))
    }

    /// Seconds, on `now()`, of what expires next; and the jobs that do not check in.
    fn _expire(&self, py: Python<'_>) -> PyResult<(Option<f64>, Vec<Py<JobCore>>)> {
        let core = self.core(py)?;
        let (next, silent) = attach::detached(py, || core.expire());
        let silent = silent.into_iter().filter_map(|token| Some(core.payload(token)?.0)).collect();
        Ok((next.map(seconds), silent))
    }

    fn _counts(&self, py: Python<'_>) -> PyResult<PoolCounts> {
        let stats = self.core(py)?.stats();
        Ok(PoolCounts {
            threads: stats.threads,
            busy: stats.busy,
            queued: stats.queued,
            oldest_wait: stats.oldest_wait.map(seconds),
            submitted: stats.submitted,
            refused: stats.refused,
            running: stats.running,
            syncing_held: stats.syncing_held,
            syncing_parked: stats.syncing_parked,
            stopping: stats.stopping,
            finished: stats.finished,
            stopped: stats.stopped,
            done: stats.done,
            dropped: stats.dropped,
            wait_times: stats.wait_times.to_vec(),
            run_times: stats.run_times.to_vec(),
        })
    }

    /// Every job that has not been reaped: itself, its status, its age in seconds.
    fn _views(&self, py: Python<'_>) -> PyResult<Vec<View>> {
        let views = self.core(py)?.views();
        views.into_iter().map(|view| Ok((view.payload.0, status_object(py, view.status)?, seconds(view.age)))).collect()
    }

    #[getter]
    fn _on_end(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.opened.get()?.on_end.as_ref().map(|hook| hook.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(opened) = self.opened.get() else { return Ok(()) };
        visit.call(&opened.job_class)?;
        visit.call(&opened.on_submit)?;
        visit.call(&opened.on_start)?;
        visit.call(&opened.on_end)?;
        if opened.pool.check_fork().is_err() {
            return Ok(());
        }
        let mut result = Ok(());
        opened.pool.visit(|held| {
            if result.is_ok() {
                result = visit.call(&held.0);
            }
        });
        result
    }

    fn __clear__(&self) {
        self.abandon();
        if let Some(opened) = self.opened.get()
            && opened.pool.check_fork().is_ok()
        {
            drop(opened.pool.drop_done());
        }
    }
}

impl JobCore {
    /// Its owner gets to know of it; refused if that has ended.
    fn join_owner(&self, py: Python<'_>) -> PyResult<()> {
        let Some(owned) = self.owned() else { return Ok(()) };
        let event_loop: &LoopCore = owned.event_loop.get();
        let joined = event_loop.core()?.own(&owned.owner, self.job(), self.core().clone());
        joined.map_err(|error| {
            let mut about = errors::About { name: event_loop.name(), ..errors::About::default() };
            match &owned.owner {
                Owner::Watch(watch) => about.fd = watch.fd(),
                Owner::Strand(_) => about.strand = Some(owned.object.bind(py).clone()),
            }
            errors::raise(py, error, &about)
        })
    }

    fn leave_owner(&self) {
        if let Some(owned) = self.owned()
            && let Ok(event_loop) = owned.event_loop.get().core()
        {
            event_loop.disown(&owned.owner, self.job());
        }
    }
}

/// The job that the calling thread runs, or None.
#[pyfunction]
pub fn current_job(py: Python<'_>) -> Option<Bound<'_, JobCore>> {
    current::job(py)
}

/// Raise `JobStopped` if the calling thread runs a job that was told to stop; outside a job do nothing.
///
/// A job that runs for long calls it about every 100 ms or more often, from wherever it is: that is how late it can be
/// stopped.
#[pyfunction]
pub fn check_in(py: Python<'_>) -> PyResult<()> {
    if current::told() { Err(stopped(py)) } else { Ok(()) }
}

#[cold]
fn stopped(py: Python<'_>) -> PyErr {
    match current::job(py) {
        Some(job) => crate::job::job_stopped(py, job.get().job()),
        None => PyRuntimeError::new_err("no job runs on this thread"),
    }
}

/// Sleep, in a job no longer than until it is told to stop: then `JobStopped` is raised.
#[pyfunction]
pub fn sleep_blocking(py: Python<'_>, seconds: f64) -> PyResult<()> {
    static SLEEP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let duration = attach::duration("seconds", seconds)?;
    let Some(job) = current::job(py) else {
        SLEEP.import(py, "time", "sleep")?.call1((seconds,))?;
        return Ok(());
    };
    check_in(py)?;
    let this = job.get();
    // A job that swallowed its stop sleeps all the same, until it is told again.
    let deadline = std::time::Instant::now() + duration;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let slice = if this.job().reason().is_some() { left.min(Duration::from_millis(50)) } else { left };
        attach::wait(py, Some(slice), |limit| {
            let limit = limit.unwrap_or(slice);
            this.core().sleep(this.job(), limit)
        })?;
        check_in(py)?;
        if std::time::Instant::now() >= deadline {
            return Ok(());
        }
    }
}
