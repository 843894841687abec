//! The compiled half of `manyhands.EventLoop`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manyhands_core::event_loop::Options;

use manyhands_core::hub::Wake;
use manyhands_core::sync::Mutex;
use manyhands_core::watch::Finished;
use manyhands_core::{Clock, Error, EventLoop, Events, JoinOptions, Life, Next, Origin, Place, PollerKind, Refused};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyTuple, PyType};

use crate::attach::{self, Lent};
use crate::clock::ManualClock;
use crate::errors::{self, About};
use crate::payload::{Call, Carried, copy_context};
use crate::run;
use crate::strand::Strand;
use crate::timer::Timer;
use crate::watch::{Late, Watch};

pub type Core = EventLoop<Carried>;
pub type CoreSeat = manyhands_core::Seat<Carried>;

/// The compiled half of `manyhands.EventLoop`: descriptors, messages, timers, and the serving of them.
#[pyclass(frozen, subclass, weakref, module = "manyhands._core")]
pub struct LoopCore {
    opened: OnceLock<(Arc<Core>, String)>,
    /// Its own class: see `__traverse__`.
    class: OnceLock<Py<PyType>>,
    errors: AtomicU64,
}

/// What a joined thread shows: identifier, nanoseconds in user code (0: none), handlers run, its watch's descriptor.
#[pyclass(frozen, get_all, module = "manyhands._core")]
pub struct Seat {
    /// `threading.get_ident()` of the thread.
    thread: u64,
    /// Seconds that the handler it is in has run for; None while it waits.
    running: Option<f64>,
    /// Handlers it has run.
    handled: u64,
    /// The token of the watch whose handler it runs, or 0.
    watch: u64,
}

impl LoopCore {
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

    pub fn name(&self) -> &str {
        self.opened.get().map_or("loop", |(_, name)| name)
    }

    fn address(&self) -> usize {
        self.opened.get().map_or(0, |(core, _)| Arc::as_ptr(core) as usize)
    }

    /// Whether a handler of this loop makes the call.
    pub fn origin(&self) -> Origin {
        if attach::serves(self.address()) { Origin::Inside } else { Origin::Outside }
    }

    pub fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    fn raise(&self, py: Python<'_>, error: Error) -> PyErr {
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

    /// Wakes a thread for what was posted. Detached: on a build with the GIL the woken thread would pre-empt this one
    /// only to wait for it.
    pub fn wake(py: Python<'_>, core: &Core, wake: Wake) {
        if wake.needed() {
            py.detach(|| core.wake(wake));
        }
    }

    pub fn timer_after(
        owner: &Bound<'_, Self>,
        delay: f64,
        interval: Option<f64>,
        strand: Option<&Bound<'_, Strand>>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Timer> {
        let name = if interval.is_some() { "interval" } else { "delay" };
        let delay = attach::duration(name, delay)?;
        if interval.is_some() && delay.is_zero() {
            return Err(PyValueError::new_err("interval must be above 0 seconds: a tick every 0 s never ends"));
        }
        let now = owner.get().core()?.now();
        let delay = delay.as_nanos() as u64;
        Self::timer(owner, now.saturating_add(delay), interval.map(|_| delay), strand, callback, args)
    }

    pub fn timer(
        owner: &Bound<'_, Self>,
        when: u64,
        interval: Option<u64>,
        strand: Option<&Bound<'_, Strand>>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Timer> {
        callable("callback", &callback)?;
        let this = owner.get();
        let strand_core = strand.map(|strand| strand.get().strand.clone());
        let payload = Carried::Call(Call::new("timer", callback, args)?.on(strand));
        let token = this.core()?.set_timer(when, interval, strand_core.as_ref(), payload).map_err(|refused| {
            let strand = strand.map(|strand| strand.as_any().clone());
            errors::raise(owner.py(), refused.error, &About { name: this.name(), strand, ..About::default() })
        })?;
        Ok(Timer { owner: owner.clone().unbind(), token, strand: strand_core, when: AtomicU64::new(when) })
    }

    fn post_call(
        &self,
        source: &'static str,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        place: Place,
    ) -> PyResult<()> {
        callable("callback", &callback)?;
        let py = callback.py();
        let payload = Carried::Call(Call::new(source, callback, args)?);
        let core = self.core()?;
        let wake =
            core.post_alone(payload, place, self.origin()).map_err(|Refused { error, .. }| self.raise(py, error))?;
        Self::wake(py, core, wake);
        Ok(())
    }

    /// Serves the loop on this thread until something says leave.
    fn serve(owner: &Bound<'_, Self>, options: JoinOptions) -> PyResult<usize> {
        let this = owner.get();
        let py = owner.py();
        let core = this.core()?;
        let Some(mut seat) = core.enter(options).map_err(|error| this.raise(py, error))? else { return Ok(0) };
        let lent = Lent::to(this.address());
        let result = Self::go_round(owner, core, &mut seat);
        if core.check_fork().is_err() {
            // A handler forked, and this is the child: nothing of the parent's loop may be touched.
            core::mem::forget(seat);
            return result.map(|()| 0);
        }
        let (handled, finished) = core.leave(seat);
        for finished in finished {
            Self::pay(owner, finished);
        }
        drop(lent);
        result.map(|()| handled)
    }

    fn go_round(owner: &Bound<'_, Self>, core: &Arc<Core>, seat: &mut CoreSeat) -> PyResult<()> {
        let py = owner.py();
        let main = attach::is_main_thread(py);
        loop {
            match core.next(seat) {
                Next::Run(item) => {
                    run::item(owner, item, seat)?;
                    core.check_fork().map_err(|error| owner.get().raise(py, error))?;
                }
                Next::Finished(finished) => Self::pay(owner, finished),
                Next::Wait => {
                    py.detach(|| core.wait(seat));
                    if main {
                        py.check_signals()?;
                    }
                }
                Next::Leave => return Ok(()),
            }
        }
    }
}

/// Refuses what cannot be called.
pub fn callable(name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_callable() {
        Ok(())
    } else {
        Err(PyTypeError::new_err(format!("{name} must be callable, and got {}", value.repr()?)))
    }
}

/// How many messages may wait in a strand.
fn limit(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    if value.is_instance_of::<PyBool>() || !value.is_instance_of::<PyInt>() {
        let message = format!("max_pending must be an int or None, and got {}", value.repr()?);
        return Err(PyTypeError::new_err(message));
    }
    match value.extract::<usize>() {
        Ok(limit @ 1..) => Ok(limit),
        _ => {
            Err(PyValueError::new_err(format!("max_pending must be at least 1 (None for any number), and got {value}")))
        }
    }
}

/// The events that a watch may ask for.
pub fn interest(value: &Bound<'_, PyAny>) -> PyResult<Events> {
    let bits: i64 = value.extract().map_err(|_| {
        let got = value.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string());
        PyTypeError::new_err(format!("events must be made of manyhands.Events, and got {got}"))
    })?;
    if !(0..32).contains(&bits) {
        return Err(PyValueError::new_err(format!("events must be made of manyhands.Events, and got {bits}")));
    }
    let asked = Events(bits as u32 & 7);
    if asked.is_empty() {
        return Err(PyValueError::new_err(
            "events must hold READ, WRITE or PRIORITY (HANGUP and ERROR are always reported); to hold a watch back use \
             pause()",
        ));
    }
    Ok(asked)
}

/// The number of a descriptor: an int, or what `fileno()` says.
fn descriptor(source: &Bound<'_, PyAny>) -> PyResult<i32> {
    if source.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(format!(
            "fd must be a descriptor number or an object with fileno(), and got {}",
            source.repr()?
        )));
    }
    if source.is_instance_of::<PyInt>() {
        return source.extract::<i32>().map_err(|_| {
            PyValueError::new_err(format!("fd must be a descriptor number below 2**31, and got {source}"))
        });
    }
    let fileno = source.getattr("fileno").map_err(|_| match source.repr() {
        Ok(repr) => {
            PyTypeError::new_err(format!("fd must be a descriptor number or an object with fileno(), and got {repr}"))
        }
        Err(error) => error,
    })?;
    fileno.call0()?.extract()
}

#[pymethods]
impl LoopCore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { opened: OnceLock::new(), class: OnceLock::new(), errors: AtomicU64::new(0) }
    }

    /// Make the core; called once by `EventLoop.__init__`.
    #[pyo3(signature = (name, poller, clock, parallel, handover))]
    fn _open(
        slf: &Bound<'_, Self>,
        name: String,
        poller: &str,
        clock: Option<PyRef<'_, ManualClock>>,
        parallel: bool,
        handover: f64,
    ) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        let handover = attach::duration("handover", handover)?;
        let poller = PollerKind::parse(poller).ok_or_else(|| {
            PyValueError::new_err(format!("poller must be \"epoll\", \"poll\" or \"select\", and got {poller:?}"))
        })?;
        let clock = clock.map_or(Clock::Monotonic, |clock| Clock::Manual(clock.clock.clone()));
        let core = Core::new(Options { poller, clock, parallel, handover })
            .map_err(|error| errors::raise(py, error, &About { name: &name, ..About::default() }))?;
        _ = this.class.set(slf.get_type().unbind());
        this.opened.set((core, name)).map_err(|_| PyRuntimeError::new_err("EventLoop.__init__ was called twice"))
    }

    /// Whether `_open` has run.
    #[getter]
    fn _opened(&self) -> bool {
        self.opened.get().is_some()
    }

    /// The name given to the loop.
    #[getter(name)]
    fn py_name(&self) -> &str {
        self.name()
    }

    /// How many threads are in `join()` now.
    #[getter]
    fn joined(&self) -> PyResult<usize> {
        Ok(self.core()?.seats().len())
    }

    /// Whether the loop was asked to stop (or drain) and not restarted.
    #[getter]
    fn stopped(&self) -> PyResult<bool> {
        Ok(self.core()?.life() != Life::Open)
    }

    /// Whether `close()` has been called, and has succeeded.
    #[getter]
    fn closed(&self) -> bool {
        self.opened.get().is_none_or(|(core, _)| core.life() == Life::Closed)
    }

    /// Seconds on the loop's clock: monotonic, or what a `MockClock` shows.
    fn now(&self) -> PyResult<f64> {
        self._check_open()?;
        Ok(self.core()?.now() as f64 / 1e9)
    }

    /// Serve on the calling thread; `EventLoop.join` holds the signals around it.
    #[pyo3(signature = (timeout, until_idle, wait_restart, max_handlers, one_tick))]
    fn _join(
        slf: &Bound<'_, Self>,
        timeout: Option<f64>,
        until_idle: bool,
        wait_restart: bool,
        max_handlers: Option<usize>,
        one_tick: bool,
    ) -> PyResult<usize> {
        let (this, py) = (slf.get(), slf.py());
        let timeout = attach::timeout("timeout", timeout)?;
        if attach::lent() {
            return Err(PyRuntimeError::new_err(format!(
                "loop {:?} cannot be joined by a thread that is serving a loop already: return from the handler first",
                this.name()
            )));
        }
        let core = this.core()?;
        core.check_open().map_err(|error| this.raise(py, error))?;
        if wait_restart && !attach::wait(py, timeout, |limit| core.wait_open(limit))? {
            return Ok(0);
        }
        let options = JoinOptions {
            timeout,
            until_idle,
            max_handlers,
            one_tick,
            main: attach::is_main_thread(py),
            thread: attach::thread_ident(),
        };
        Self::serve(slf, options)
    }

    /// Ask every joined thread to leave after the handler it is in; with `drain`, when everything queued has run.
    ///
    /// Sticky: a later `join()` returns at once, until `restart()`. An immediate stop leaves what is queued for the
    /// restart. A drain refuses messages from outside, takes those of the loop's own handlers, and polls no more.
    /// Idempotent; an immediate stop cuts a drain short.
    ///
    /// Blocks: never; it takes no lock that user code could hold.
    ///
    /// Threads: any: handlers, handlers of signals and finalizers included.
    #[pyo3(signature = (*, drain = false))]
    fn request_stop(&self, py: Python<'_>, drain: bool) -> PyResult<()> {
        self.core()?.request_stop(drain).map_err(|error| self.raise(py, error))
    }

    /// Wait until every joined thread has left.
    ///
    /// Args:
    ///     timeout: Seconds; None for ever, 0 to look.
    ///
    /// Returns:
    ///     True if nobody is joined, False after `timeout`.
    ///
    /// Raises:
    ///     WouldDeadlock: the calling thread is lent.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let timeout = attach::timeout("timeout", timeout)?;
        self._check_open()?;
        let core = self.core()?;
        if timeout != Some(Duration::ZERO) {
            attach::refuse_if_lent(py, "wait()", self.name())?;
        }
        attach::wait(py, timeout, |limit| core.wait_left(limit))
    }

    /// Let a stopped loop be joined again; harmless on one that is not stopped.
    ///
    /// Raises:
    ///     RuntimeError: threads are still in `join()`.
    ///     WouldDeadlock: the calling thread is lent.
    ///     LoopClosed: it was closed.
    ///
    /// Blocks: never.
    fn restart(&self, py: Python<'_>) -> PyResult<()> {
        attach::refuse_if_lent(py, "restart()", self.name())?;
        self.core()?.restart().map_err(|error| self.raise(py, error))
    }

    /// Close the core, once nobody is joined: (whether it was open, messages that never ran).
    fn _close(slf: &Bound<'_, Self>) -> PyResult<(bool, usize)> {
        let (this, py) = (slf.get(), slf.py());
        let core = this.core()?;
        if core.life() == Life::Closed {
            return Ok((false, 0));
        }
        let (finished, lost) = core.close().map_err(|error| this.raise(py, error))?;
        for finished in finished {
            Self::pay(slf, finished);
        }
        Ok((true, lost))
    }

    /// Run the final callbacks that are owed, after `_close`.
    fn _run_owed(slf: &Bound<'_, Self>) -> PyResult<()> {
        let core = slf.get().core()?;
        loop {
            let completions = core.take_completions();
            if completions.is_empty() {
                return Ok(());
            }
            for completion in completions {
                run::completion(slf, completion)?;
            }
        }
    }

    /// Watch a descriptor: call `handler(watch, events)` on a joined thread whenever it is ready.
    ///
    /// Level-triggered: a handler that leaves something unread is called again. It never runs on two threads at once.
    /// Readiness may be spurious, so use non-blocking descriptors.
    ///
    /// Args:
    ///     fd: A descriptor number, or an object with `fileno()`, which the watch keeps alive.
    ///     events: READ, WRITE, PRIORITY, at least one of them; HANGUP and ERROR are always reported.
    ///     handler: Called with the watch and the events. One that raises is reported, and costs its watch.
    ///     strand: The strand to run on, shared with others; None for one of its own, which ends with the watch.
    ///     name: What errors, `dump()` and logs show.
    ///     close: Close `fd` when the watch ends, for whatever reason, by its own `close()`, or `os.close`.
    ///     on_error: Asked before the loop's; called with an `ErrorReport`, may return `manyhands.KEEP`.
    ///     on_removed: Called once as `on_removed(watch, reason)` after the last handler has ended, however the watch
    ///         ends.
    ///
    /// Raises:
    ///     WatchExists: the descriptor has a watch on this loop.
    ///     BadDescriptor, NotPollable: it is not open; it is a regular file. Nothing stays registered.
    ///     StrandClosed, LoopClosed: the strand, or the loop, has ended.
    ///
    /// Threads: any; the handler runs with the context variables of this call.
    ///
    /// Blocks: never. Takes effect at once, also while every thread waits.
    #[pyo3(signature = (fd, events, handler, *, strand = None, name = None, close = false, on_error = None, on_removed = None))]
    #[allow(clippy::too_many_arguments, reason = "the public signature; all but three are keywords")]
    fn add(
        slf: &Bound<'_, Self>,
        fd: Bound<'_, PyAny>,
        events: &Bound<'_, PyAny>,
        handler: Bound<'_, PyAny>,
        strand: Option<Bound<'_, Strand>>,
        name: Option<Bound<'_, PyAny>>,
        close: bool,
        on_error: Option<Bound<'_, PyAny>>,
        on_removed: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<Watch>> {
        let (this, py) = (slf.get(), slf.py());
        let number = descriptor(&fd)?;
        let events = interest(events)?;
        callable("handler", &handler)?;
        for (name, hook) in [("on_error", &on_error), ("on_removed", &on_removed)] {
            hook.as_ref().map_or(Ok(()), |hook| callable(name, hook))?;
        }
        let core = this.core()?;
        let strand_core = match &strand {
            None => None,
            Some(strand) if strand.get().owner.is(slf) => Some(strand.get().strand.clone()),
            Some(strand) => {
                let message = format!("strand must be one of loop {:?}, and got {}", this.name(), strand.repr()?);
                return Err(PyValueError::new_err(message));
            }
        };
        let mut made = None;
        let mut refused = None;
        let result = core.add(number, events, strand_core, |watch| {
            let late = Late {
                strand: strand.clone().map(Bound::unbind),
                on_removed: on_removed.into_iter().map(Bound::unbind).collect(),
                close,
                closed: false,
                paid: false,
            };
            let object = copy_context(py).and_then(|context| {
                let object = Watch {
                    owner: slf.clone().unbind(),
                    watch: watch.clone(),
                    source: fd.unbind(),
                    handler: handler.unbind(),
                    context,
                    name: name.map(Bound::unbind),
                    on_error: on_error.map(Bound::unbind),
                    late: Mutex::new(
                        (late.strand.is_some() || late.close || !late.on_removed.is_empty()).then(|| Box::new(late)),
                    ),
                };
                Py::new(py, object)
            });
            match object {
                Ok(object) => {
                    made = Some(object.clone_ref(py));
                    Ok(Carried::Watch(object))
                }
                Err(error) => {
                    refused = Some(error);
                    Err(Error::Closed)
                }
            }
        });
        match (result, made) {
            (Ok((_, displaced)), Some(object)) => {
                if let Some(finished) = displaced {
                    Self::pay(slf, finished);
                }
                Ok(object)
            }
            (Err(error), _) => Err(refused.unwrap_or_else(|| {
                let watch = core.get(number).and_then(|carried| match carried {
                    Carried::Watch(watch) => Some(watch.into_bound(py).into_any()),
                    Carried::Call(_) => None,
                });
                errors::raise(
                    py,
                    error,
                    &About { name: this.name(), fd: number, strand: strand.map(Bound::into_any), watch },
                )
            })),
            (Ok(_), None) => Err(PyRuntimeError::new_err("the core made no watch")),
        }
    }

    /// The watch of a descriptor, or None.
    fn get(&self, fd: &Bound<'_, PyAny>) -> PyResult<Option<Py<Watch>>> {
        self._check_open()?;
        match self.core()?.get(descriptor(fd)?) {
            Some(Carried::Watch(watch)) => Ok(Some(watch)),
            _ => Ok(None),
        }
    }

    /// Run `callback(*args)` once on a joined thread, on a strand of its own: for order, post to a strand.
    ///
    /// Messages of one poster start in order; with several threads they may run at the same time.
    ///
    /// Raises:
    ///     LoopStopped: the loop drains, or has drained, and the call does not come from one of its handlers.
    ///     LoopClosed: it was closed.
    ///
    /// Blocks: never. Never runs the callback inside this call.
    ///
    /// Threads: any: handlers, handlers of signals and finalizers included. Context variables travel with it.
    #[pyo3(signature = (callback, *args))]
    fn post(&self, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        self.post_call("message", callback, args, Place::Ordinary)
    }

    /// Run `callback(*args)` before everything else that waits, after urgent messages posted before.
    ///
    /// Raises:
    ///     LoopStopped, LoopClosed: as `post`.
    ///
    /// Blocks: never.
    #[pyo3(signature = (callback, *args))]
    fn post_urgent(&self, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        self.post_call("message", callback, args, Place::Urgent)
    }

    /// As `post_urgent`, for the callback of a signal.
    #[pyo3(signature = (callback, *args))]
    fn _post_signal(&self, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        self.post_call("signal", callback, args, Place::Urgent)
    }

    /// Drain the loop and end it with a last message: what was posted before runs, then this, then every thread leaves.
    ///
    /// Args:
    ///     callback: Called once with `args`, when nothing is queued and nobody is inside; None for nothing.
    ///
    /// Raises:
    ///     LoopStopped: the loop is stopped, or draining.
    ///     LoopClosed: it was closed.
    ///
    /// Blocks: never.
    #[pyo3(signature = (callback = None, *args))]
    fn post_terminal(
        &self,
        py: Python<'_>,
        callback: Option<Bound<'_, PyAny>>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        let payload = match callback {
            None => None,
            Some(callback) => {
                callable("callback", &callback)?;
                Some(Carried::Call(Call::new("terminal", callback, args)?))
            }
        };
        self.core()?.drain_with_terminal(payload, self.origin()).map_err(|Refused { error, .. }| self.raise(py, error))
    }

    /// Run `callback(*args)` in `delay` seconds, 0 or more, never early, on a strand of its own.
    ///
    /// Raises:
    ///     LoopClosed: it was closed.
    ///
    /// Blocks: never.
    #[pyo3(signature = (delay, callback, *args))]
    fn call_later(
        slf: &Bound<'_, Self>,
        delay: f64,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Timer> {
        Self::timer_after(slf, delay, None, None, callback, args)
    }

    /// Run `callback(*args)` at `when` seconds on the loop's clock (`now()`), on a strand of its own.
    ///
    /// Raises:
    ///     LoopClosed: it was closed.
    ///
    /// Blocks: never.
    #[pyo3(signature = (when, callback, *args))]
    fn call_at(
        slf: &Bound<'_, Self>,
        when: f64,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Timer> {
        Self::timer(slf, attach::nanoseconds("when", when)?, None, None, callback, args)
    }

    /// Run `callback(*args)` every `interval` seconds, above 0, at a fixed rate, on a strand of its own.
    ///
    /// Ticks that were missed collapse into one. The callback may return `manyhands.STOP` to end it, or
    /// `manyhands.Delay(seconds)` to set the next gap. One that raises is reported and ends, unless `on_error` returns
    /// `manyhands.KEEP`.
    ///
    /// Raises:
    ///     LoopClosed: it was closed.
    ///
    /// Blocks: never.
    #[pyo3(signature = (interval, callback, *args))]
    fn call_every(
        slf: &Bound<'_, Self>,
        interval: f64,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Timer> {
        Self::timer_after(slf, interval, Some(interval), None, callback, args)
    }

    /// Make a strand: what is posted to it runs in order, on one thread at a time.
    ///
    /// Args:
    ///     name: What errors and `dump()` show.
    ///     max_pending: How many ordinary messages may wait, at least 1; None for any number.
    ///
    /// Raises:
    ///     LoopClosed: it was closed.
    #[pyo3(signature = (*, name = None, max_pending = None))]
    fn strand(slf: &Bound<'_, Self>, name: Option<String>, max_pending: Option<Bound<'_, PyAny>>) -> PyResult<Strand> {
        let this = slf.get();
        let max_pending = max_pending.as_ref().map(limit).transpose()?;
        let strand = this.core()?.strand(name.clone(), max_pending).map_err(|error| this.raise(slf.py(), error))?;
        Ok(Strand::new(slf.clone().unbind(), strand, name))
    }

    /// Counts at this moment, as `LoopStats` takes them.
    fn _stats(&self) -> PyResult<Stats> {
        let stats = self.core()?.stats();
        Ok((
            (stats.joined, stats.parked, stats.ready, stats.watches, stats.timers),
            (stats.handled, stats.polls, stats.wakes, stats.standbys, self.errors.load(Ordering::Relaxed)),
            stats.histogram.to_vec(),
        ))
    }

    /// What each joined thread does.
    fn _seats(&self) -> PyResult<Vec<Seat>> {
        let now = manyhands_core::clock::monotonic();
        let view = |seat: &Arc<manyhands_core::hub::SeatShared>| {
            let since = seat.since.load(Ordering::Relaxed);
            Seat {
                thread: seat.thread,
                running: (since > 0).then(|| now.saturating_sub(since) as f64 / 1e9),
                handled: seat.handled.load(Ordering::Relaxed),
                watch: seat.watch.load(Ordering::Relaxed),
            }
        };
        Ok(self.core()?.seats().iter().map(view).collect())
    }

    /// Every watch.
    fn _watches(&self) -> PyResult<Vec<Py<Watch>>> {
        let watches = self.core()?.watch_payloads();
        Ok(watches
            .into_iter()
            .filter_map(|carried| match carried {
                Carried::Watch(watch) => Some(watch),
                Carried::Call(_) => None,
            })
            .collect())
    }

    /// The watch with this token, or None.
    fn _watch_by_token(&self, token: u64) -> PyResult<Option<Py<Watch>>> {
        match self.core()?.watch_payload(manyhands_core::Token(token)) {
            Some(Carried::Watch(watch)) => Ok(Some(watch)),
            _ => Ok(None),
        }
    }

    /// Every timer, in order: (seconds from now, interval in seconds or None, callback).
    fn _timers(&self) -> PyResult<Vec<TimerView>> {
        let core = self.core()?;
        let now = core.now();
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        let view = |(when, interval, carried): (u64, Option<u64>, Carried)| match carried {
            Carried::Call(call) => Some((seconds(when) - seconds(now), interval.map(seconds), call.callable)),
            Carried::Watch(_) => None,
        };
        Ok(core.timer_views().into_iter().filter_map(view).collect())
    }

    /// Make the leader come out of the poller and look.
    fn _nudge(&self) -> PyResult<()> {
        self.core()?.nudge();
        Ok(())
    }

    /// Every strand that is not a watch's own: (name, state, items, running).
    fn _strands(&self) -> PyResult<Vec<(String, String, usize, bool)>> {
        let views = self.core()?.strand_views();
        let row = |view: &manyhands_core::strand::StrandView| {
            (view.name.clone(), format!("{:?}", view.state).to_uppercase(), view.items, view.running)
        };
        Ok(views.iter().filter(|view| !view.own).map(row).collect())
    }

    /// Raise if the loop was closed, or belongs to the parent of this process.
    fn _check_open(&self) -> PyResult<()> {
        self.core()?.check_open().map_err(|error| Python::attach(|py| self.raise(py, error)))
    }

    /// Whether nothing is queued, ready or due, nobody is inside, and every joined thread waits.
    fn _is_idle(&self) -> PyResult<bool> {
        Ok(self.core()?.is_idle())
    }

    /// While the main thread is joined: where signals are written to, and where they were written to before (or -1).
    fn _hold_signals(&self, py: Python<'_>, readable: i32, previous: i32) -> PyResult<()> {
        self.core()?.hold_signals(readable, previous).map_err(|error| self.raise(py, error))
    }

    /// The main thread has left.
    fn _release_signals(&self) {
        // Not in a child that a handler forked: what it raises or returns must not be hidden by a complaint.
        if let Some((core, _)) = self.opened.get()
            && core.check_fork().is_ok()
        {
            core.release_signals();
        }
    }

    /// The name of the poller.
    #[getter]
    fn _poller(&self) -> PyResult<&'static str> {
        Ok(self.core()?.poller_name())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let this = slf.get();
        let class = slf.get_type();
        let class = format!("{}.{}", class.module()?, class.qualname()?);
        let Ok(core) = this.core() else { return Ok(format!("<{class} {:?} unusable here>", this.name())) };
        let life = match core.life() {
            Life::Open => "open",
            Life::Draining => "draining",
            Life::Stopped { .. } => "stopped",
            Life::Closed => "closed",
        };
        let (joined, watches) = (core.seats().len(), core.stats().watches);
        Ok(format!("<{class} {:?} {life} joined={joined} watches={watches}>", this.name()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // An instance of a class that was made at run time refers to it, and CPython leaves showing that to the base
        // class; PyO3 does not do it. So it is shown here: once for the instance, once for the field.
        if let Some(class) = self.class.get() {
            visit.call(class)?;
            visit.call(class)?;
        }
        let Some((core, _)) = self.opened.get() else { return Ok(()) };
        // In a forked child a lock may be taken for ever: what was inherited is not looked at.
        if core.check_fork().is_err() {
            return Ok(());
        }
        let mut result = Ok(());
        core.visit(|carried| {
            if result.is_ok() {
                result = carried.traverse(&visit);
            }
        });
        result
    }

    fn __clear__(&self) {
        self.abandon();
    }
}

impl LoopCore {
    /// Lets go of everything that the core carries; nobody is joined, or the loop could not have been collected.
    fn abandon(&self) {
        if let Some((core, _)) = self.opened.get()
            && core.check_fork().is_ok()
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

type TimerView = (f64, Option<f64>, Py<PyAny>);
type Stats = ((usize, usize, usize, usize, usize), (u64, u64, u64, u64, u64), Vec<u64>);
