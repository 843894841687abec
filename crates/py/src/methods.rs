//! What Python sees of a loop: docstrings and signatures.
//!
//! PyO3 takes one block of methods for a class, unless another crate collects them before `main`. So there is one block,
//! and what the methods do is elsewhere: [`joining`], [`adding`], [`sending`], [`sight`].

use manyhands_core::{JoinOptions, Life, Place, Token};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::adding::{self, Wanted};
use crate::arguments::{descriptor, limit};
use crate::clock::ManualClock;
use crate::event_loop::LoopCore;
use crate::payload::Carried;
use crate::sight::{self, Seat, Stats, StrandRow, TimerView};
use crate::strand::Strand;
use crate::timer::Timer;
use crate::watch::Watch;
use crate::{attach, joining, sending, stream};

#[pymethods]
impl LoopCore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::unopened()
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
        LoopCore::open(slf, name, poller, clock.as_deref(), parallel, attach::duration("handover", handover)?)
    }

    /// Whether `_open` has run.
    #[getter]
    fn _opened(&self) -> bool {
        self.opened()
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
    #[getter(closed)]
    fn py_closed(&self) -> bool {
        self.closed()
    }

    /// Seconds on the loop's clock: monotonic, or what a `MockClock` shows.
    fn now(&self) -> PyResult<f64> {
        Ok(self.open_core()?.now() as f64 / 1e9)
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
        let options = JoinOptions {
            timeout: attach::timeout("timeout", timeout)?,
            until_idle,
            max_handlers,
            one_tick,
            main: attach::is_main_thread(slf.py()),
            thread: attach::thread_ident(),
        };
        joining::join(slf, wait_restart, options)
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
        joining::wait(self, py, attach::timeout("timeout", timeout)?)
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
        joining::restart(self, py)
    }

    /// Close the core, once nobody is joined: (whether it was open, messages that never ran).
    fn _close(slf: &Bound<'_, Self>) -> PyResult<(bool, usize)> {
        joining::close(slf)
    }

    /// Run the final callbacks that are owed, after `_close`.
    fn _run_owed(slf: &Bound<'_, Self>) -> PyResult<()> {
        joining::run_owed(slf)
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
    ///     close: Close `fd` when the watch ends, for whatever reason, by its own `close()`, or `os.close`. Its handler has
    ///         ended then; a message on its strand may be inside, unless the watch is removed on that strand:
    ///         `strand.post(watch.remove)`.
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
    fn add<'py>(
        slf: &Bound<'py, Self>,
        fd: Bound<'py, PyAny>,
        events: Bound<'py, PyAny>,
        handler: Bound<'py, PyAny>,
        strand: Option<Bound<'py, Strand>>,
        name: Option<Bound<'py, PyAny>>,
        close: bool,
        on_error: Option<Bound<'py, PyAny>>,
        on_removed: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Py<Watch>> {
        adding::add(slf, Wanted { fd, events, handler, strand, name, close, on_error, on_removed })
    }

    /// Say that a descriptor is about to be closed: whoever waits for it on this loop is told.
    fn _notify_closing(slf: &Bound<'_, Self>, fd: i32) -> PyResult<bool> {
        stream::notify_closing(slf, fd)
    }

    /// The watch of a descriptor, or None.
    fn get(&self, fd: &Bound<'_, PyAny>) -> PyResult<Option<Py<Watch>>> {
        Ok(self.open_core()?.get(descriptor(fd)?).and_then(Carried::into_watch))
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
        sending::post(self, None, "message", callback, args, Place::Ordinary)
    }

    /// Run `callback(*args)` before everything else that waits, after urgent messages posted before.
    ///
    /// Raises:
    ///     LoopStopped, LoopClosed: as `post`.
    ///
    /// Blocks: never.
    #[pyo3(signature = (callback, *args))]
    fn post_urgent(&self, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        sending::post(self, None, "message", callback, args, Place::Urgent)
    }

    /// As `post_urgent`, for the callback of a signal.
    #[pyo3(signature = (callback, *args))]
    fn _post_signal(&self, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        sending::post(self, None, "signal", callback, args, Place::Urgent)
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
    fn post_terminal(&self, callback: Option<Bound<'_, PyAny>>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        sending::post_terminal(self, None, callback, args)
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
        sending::call_after(slf, None, delay, false, callback, args)
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
        sending::call_at(slf, None, when, callback, args)
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
        sending::call_after(slf, None, interval, true, callback, args)
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
        sight::stats(self)
    }

    /// What each joined thread does.
    fn _seats(&self) -> PyResult<Vec<Seat>> {
        sight::seats(self)
    }

    /// Every watch.
    fn _watches(&self) -> PyResult<Vec<Py<Watch>>> {
        sight::watches(self)
    }

    /// The watch with this token, or None.
    fn _watch_by_token(&self, token: u64) -> PyResult<Option<Py<Watch>>> {
        Ok(self.core()?.watch_payload(Token(token)).and_then(Carried::into_watch))
    }

    /// Every timer, in order: (seconds from now, interval in seconds or None, callback).
    fn _timers(&self) -> PyResult<Vec<TimerView>> {
        sight::timers(self)
    }

    /// Make the leader come out of the poller and look.
    fn _nudge(&self) -> PyResult<()> {
        self.core()?.wake_poller();
        Ok(())
    }

    /// Every strand that is not a watch's own: (name, state, items, running).
    fn _strands(&self) -> PyResult<Vec<StrandRow>> {
        sight::strands(self)
    }

    /// Raise if the loop was closed, or belongs to the parent of this process.
    fn _check_open(&self) -> PyResult<()> {
        self.open_core().map(|_| ())
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
        if let Some(core) = self.own_core() {
            core.release_signals();
        }
    }

    /// The name of the poller.
    #[getter]
    fn _poller(&self) -> PyResult<&'static str> {
        Ok(self.core()?.poller_name())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        sight::repr(slf)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        sight::traverse(self, &visit)
    }

    fn __clear__(&self) {
        self.abandon();
    }
}
