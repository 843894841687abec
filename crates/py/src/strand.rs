//! A strand's handle.

use std::sync::Arc;

use manyhands_core::Place;
use manyhands_core::StrandState;
use manyhands_core::watch::Occupant;
use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::arguments::callable;
use crate::attach;
use crate::event_loop::{CoreStrand, LoopCore};
use crate::once::Once;
use crate::payload::{Call, Carried};
use crate::sending;
use crate::timer::Timer;

/// A queue served by one thread at a time, in order. Made by `EventLoop.strand`, or with a watch.
///
/// Threads: any, for every method. What is posted runs on a joined thread, never inside the call that posts it.
#[pyclass(frozen, module = "manyhands", weakref)]
pub struct Strand {
    pub owner: Py<LoopCore>,
    pub strand: Arc<CoreStrand>,
    name: String,
}

impl Strand {
    /// A handle; the strand lives on without it only while it has something to do.
    pub fn new(owner: Py<LoopCore>, strand: Arc<CoreStrand>, name: Option<String>) -> Self {
        let name = name.unwrap_or_else(|| strand.name());
        Self { owner, strand, name }
    }
}

#[pymethods]
impl Strand {
    /// The name that errors and `dump()` show.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// `StrandState.ACTIVE`, `PAUSED`, `CLOSING` (the terminal message is in) or `CLOSED`.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: Once<Py<PyAny>> = Once::new();
        let state = match self.owner.get().core()?.strand_view(&self.strand).state {
            StrandState::Active => "ACTIVE",
            StrandState::Paused => "PAUSED",
            StrandState::Closing => "CLOSING",
            StrandState::Closed => "CLOSED",
        };
        CLASS.import(py, "manyhands._events", "StrandState")?.getattr(state)
    }

    /// How many messages, events and timers wait in it.
    #[getter]
    fn pending(&self) -> PyResult<usize> {
        Ok(self.owner.get().core()?.strand_view(&self.strand).items)
    }

    /// Run `callback(*args)` once, after everything posted to the strand before.
    ///
    /// Raises:
    ///     QueueFull: `max_pending` messages wait already; this one was not taken.
    ///     StrandClosed: the terminal message is in, or the strand was closed.
    ///     LoopStopped, LoopClosed: the loop takes no more.
    ///
    /// Blocks: never.
    #[pyo3(signature = (callback, *args))]
    fn post(slf: &Bound<'_, Self>, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        sending::post(slf.get().owner.get(), Some(slf), "message", callback, args, Place::Ordinary)
    }

    /// Run `callback(*args)` before the ordinary messages that wait, after urgent ones posted before.
    ///
    /// It does not interrupt what runs, and is not counted against `max_pending`.
    ///
    /// Raises:
    ///     StrandClosed, LoopStopped, LoopClosed: as `post`.
    ///
    /// Blocks: never.
    #[pyo3(signature = (callback, *args))]
    fn post_urgent(slf: &Bound<'_, Self>, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        sending::post(slf.get().owner.get(), Some(slf), "message", callback, args, Place::Urgent)
    }

    /// Post the last message: earlier ones run, later ones are refused, then the strand's watches are removed.
    ///
    /// Args:
    ///     callback: Called with `args` as the last thing on the strand; None for nothing.
    ///
    /// Raises:
    ///     StrandClosed: a terminal message is in already, or the strand was closed.
    ///     LoopStopped, LoopClosed: as `post`.
    ///
    /// Blocks: never.
    #[pyo3(signature = (callback = None, *args))]
    fn post_terminal(
        slf: &Bound<'_, Self>,
        callback: Option<Bound<'_, PyAny>>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        sending::post_terminal(slf.get().owner.get(), Some(slf), callback, args)
    }

    /// Run `callback(*args)` on this strand in `delay` seconds, 0 or more.
    ///
    /// Raises:
    ///     StrandClosed, LoopClosed: the strand or its loop has ended.
    ///
    /// Blocks: never.
    #[pyo3(signature = (delay, callback, *args))]
    fn call_later(
        slf: &Bound<'_, Self>,
        delay: f64,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Timer> {
        sending::call_after(slf.get().owner.bind(slf.py()), Some(slf), delay, false, callback, args)
    }

    /// Run `callback(*args)` on this strand at `when` seconds on the loop's clock.
    ///
    /// Raises:
    ///     StrandClosed, LoopClosed: the strand or its loop has ended.
    ///
    /// Blocks: never.
    #[pyo3(signature = (when, callback, *args))]
    fn call_at(
        slf: &Bound<'_, Self>,
        when: f64,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Timer> {
        sending::call_at(slf.get().owner.bind(slf.py()), Some(slf), when, callback, args)
    }

    /// Run `callback(*args)` on this strand every `interval` seconds, above 0, at a fixed rate.
    ///
    /// Ticks that were missed collapse into one. The callback may return `manyhands.STOP` to end it, or
    /// `manyhands.Delay(seconds)` to set the next gap.
    ///
    /// Raises:
    ///     StrandClosed, LoopClosed: the strand or its loop has ended.
    ///
    /// Blocks: never.
    #[pyo3(signature = (interval, callback, *args))]
    fn call_every(
        slf: &Bound<'_, Self>,
        interval: f64,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Timer> {
        sending::call_after(slf.get().owner.bind(slf.py()), Some(slf), interval, true, callback, args)
    }

    /// Start nothing on the strand until `resume()`: messages queue up, readiness and timers stay pending.
    ///
    /// A flag: twice paused is paused. Waits for what runs on the strand now, unless the calling thread is lent.
    ///
    /// Args:
    ///     timeout: Seconds to wait for it; None for ever.
    ///
    /// Returns:
    ///     True if nobody (else) is inside the strand; False if another thread still is. Nothing new starts either way.
    #[pyo3(signature = (timeout = None))]
    fn pause(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<bool> {
        let this = slf.get();
        let timeout = attach::timeout("timeout", timeout)?;
        let core = this.owner.get().core()?;
        core.pause_strand(&this.strand);
        this.wait_vacant(slf.py(), timeout)
    }

    /// Undo `pause()`, however often it was called; harmless on a strand that is not paused.
    ///
    /// Blocks: never.
    fn resume(&self) -> PyResult<()> {
        self.owner.get().core()?.resume_strand(&self.strand);
        Ok(())
    }

    /// End the strand at once: nothing further starts, its timers are cancelled, its watches removed.
    ///
    /// Args:
    ///     on_closed: Called once with this strand, on a joined thread (or by `EventLoop.close`), when nobody is inside.
    ///     timeout: Seconds to wait for what runs on it now, unless the calling thread is lent; None for ever.
    ///
    /// Returns:
    ///     The messages that did not run, in order: list of `Message`.
    #[pyo3(signature = (*, on_closed = None, timeout = None))]
    fn close<'py>(
        slf: &Bound<'py, Self>,
        on_closed: Option<Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        static MESSAGE: Once<Py<PyAny>> = Once::new();
        let (this, py) = (slf.get(), slf.py());
        let timeout = attach::timeout("timeout", timeout)?;
        let core = this.owner.get().core()?;
        let on_closed = match on_closed {
            None => None,
            Some(callback) => {
                callable("on_closed", &callback)?;
                Some(Carried::Call(Call::new("on_closed", callback, PyTuple::new(py, [slf])?)?))
            }
        };
        let closed = core.close_strand(&this.strand, on_closed);
        for finished in closed.finished {
            LoopCore::pay(this.owner.bind(py), finished);
        }
        let class = MESSAGE.import(py, "manyhands._events", "Message")?;
        let messages = PyList::empty(py);
        for message in closed.messages {
            if let Carried::Call(call) = message {
                messages.append(class.call1((call.callable, call.args))?)?;
            }
        }
        this.wait_vacant(py, timeout)?;
        Ok(messages)
    }

    /// Run `callback(*args)` in this context, whatever the strand holds and takes: what it reports has happened.
    #[pyo3(signature = (context, callback, *args))]
    fn _complete(
        slf: &Bound<'_, Self>,
        context: Bound<'_, PyAny>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        // SAFETY: attached; looks at the type only.
        if unsafe { pyo3::ffi::PyContext_CheckExact(context.as_ptr()) } == 0 {
            return Err(PyTypeError::new_err(format!("context must be a contextvars.Context, and got {context:?}")));
        }
        let this = slf.get();
        let core = this.owner.get().core()?;
        let call = Call {
            source: "operation",
            strand: Some(slf.clone().unbind()),
            callable: callback.unbind(),
            args: args.unbind(),
            context: context.unbind(),
        };
        core.complete(Some(&this.strand), Carried::Call(call));
        Ok(())
    }

    fn __repr__(&self) -> String {
        match self.owner.get().core() {
            Ok(core) => {
                let view = core.strand_view(&self.strand);
                format!("<manyhands.Strand {:?} {:?} pending={}>", self.name, view.state, view.items)
            }
            Err(_) => format!("<manyhands.Strand {:?} of another process>", self.name),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)
    }
}

impl Strand {
    /// Whether nobody else is inside, after a wait if the calling thread may wait.
    fn wait_vacant(&self, py: Python<'_>, timeout: Option<core::time::Duration>) -> PyResult<bool> {
        let core = self.owner.get().core()?;
        if !attach::lent() {
            attach::wait(py, timeout, |limit| core.wait_strand(&self.strand, limit))?;
        }
        Ok(core.strand_occupant(&self.strand) != Occupant::Other)
    }
}

impl Drop for Strand {
    fn drop(&mut self) {
        if let Ok(core) = self.owner.get().core() {
            core.abandon_strand(&self.strand);
        }
    }
}
