//! A watch's handle: the object that its handler gets.

use std::sync::Arc;

use manyhands_core::sync::Mutex;
use manyhands_core::watch::Occupant;
use manyhands_core::{RemovalReason, Watch as CoreWatch};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::arguments::{callable, interest};
use crate::attach;
use crate::errors::{self, About};
use crate::event_loop::LoopCore;
use crate::payload::{Call, Carried};
use crate::run::events_object;
use crate::strand::Strand;

/// One descriptor's registration with its handler. Made by `EventLoop.add`.
///
/// Its handler runs on `strand`, on a joined thread, in order with the strand's messages and timers, and never on two
/// threads at once.
///
/// Threads: any, for every method.
#[pyclass(frozen, module = "manyhands", weakref)]
pub struct Watch {
    pub owner: Py<LoopCore>,
    pub watch: Arc<CoreWatch<Carried>>,
    /// What was added: it is kept alive, and closed with `close=True`.
    #[pyo3(get)]
    pub source: Py<PyAny>,
    pub handler: Py<PyAny>,
    pub context: Py<PyAny>,
    pub name: Option<Py<PyAny>>,
    pub on_error: Option<Py<PyAny>>,
    /// None while nothing has come: an idle watch is small.
    pub late: Mutex<Option<Box<Late>>>,
}

/// What comes later: under a lock that is held for a look only.
#[derive(Default)]
pub struct Late {
    pub strand: Option<Py<Strand>>,
    /// The final callbacks, until they are handed out.
    pub on_removed: Vec<Py<PyAny>>,
    /// Close the source when the watch ends, or now if it has.
    pub close: bool,
    /// The source was closed, or it is a number that somebody else may have by now.
    pub closed: bool,
    /// The final callbacks were handed out.
    pub paid: bool,
}

impl Watch {
    fn late<R>(&self, look: impl FnOnce(&mut Late) -> R) -> R {
        look(self.late.lock().get_or_insert_default())
    }

    fn about<'a>(slf: &'a Bound<'_, Self>) -> About<'a> {
        let this = slf.get();
        About { name: this.owner.get().name(), fd: this.watch.fd(), ..About::default() }
    }

    fn wait_vacant(&self, py: Python<'_>, timeout: Option<core::time::Duration>) -> PyResult<bool> {
        let core = self.owner.get().core()?;
        if !attach::lent() {
            attach::wait(py, timeout, |limit| core.wait_vacant(&self.watch, limit))?;
        }
        Ok(core.occupant(&self.watch) != Occupant::Other)
    }

    /// Queues a final callback, on the strand if that still runs things.
    fn complete(slf: &Bound<'_, Self>, callback: Bound<'_, PyAny>, reason: RemovalReason) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let args = (slf, errors::removal_reason(py, reason)).into_pyobject(py)?;
        let mut call = Call::new("on_removed", callback, args)?;
        call.context = this.context.clone_ref(py);
        this.owner.get().core()?.complete(Some(this.watch.strand()), Carried::Call(call));
        Ok(())
    }

    /// Closes the source of a watch that has ended, once, if anybody asked for that.
    fn close_if_asked(&self, source: &Bound<'_, PyAny>) -> PyResult<()> {
        let close = self.late(|late| {
            let close = late.close && late.paid && !late.closed;
            late.closed |= close;
            close
        });
        if close { close_source(source) } else { Ok(()) }
    }

    /// The watch has ended: closes its source if that was asked for, and hands out the final callbacks.
    pub fn pay(slf: &Bound<'_, Self>, reason: RemovalReason) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        let source = this.source.bind(py);
        let callbacks = this.late(|late| {
            late.paid = true;
            // A number whose descriptor is gone may be another file's by now.
            late.closed |= reason == RemovalReason::FdGone && source.is_instance_of::<PyInt>();
            core::mem::take(&mut late.on_removed)
        });
        let closed = this.close_if_asked(source);
        for callback in callbacks {
            Self::complete(slf, callback.into_bound(py), reason)?;
        }
        closed
    }
}

/// Closes a socket or file by its own `close()`, a plain number by `os.close`.
fn close_source(source: &Bound<'_, PyAny>) -> PyResult<()> {
    if source.is_instance_of::<PyInt>() {
        source.py().import("os")?.call_method1("close", (source,))?;
    } else {
        source.call_method0("close")?;
    }
    Ok(())
}

#[pymethods]
impl Watch {
    /// The descriptor's number.
    #[getter]
    fn fd(&self) -> i32 {
        self.watch.fd()
    }

    /// The name given to `add`, or `fd-<number>`.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.name {
            Some(name) => Ok(name.clone_ref(py)),
            None => Ok(format!("fd-{}", self.watch.fd()).into_pyobject(py)?.into_any().unbind()),
        }
    }

    /// What is reported; HANGUP and ERROR are always.
    #[getter]
    fn events(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        events_object(py, self.watch.interest())
    }

    /// The strand that its handler runs on.
    #[getter]
    pub fn strand(slf: &Bound<'_, Self>) -> PyResult<Py<Strand>> {
        let (this, py) = (slf.get(), slf.py());
        if let Some(strand) = this.late(|late| late.strand.as_ref().map(|strand| strand.clone_ref(py))) {
            return Ok(strand);
        }
        let core = this.owner.get().core()?;
        core.adopt_strand(this.watch.strand());
        let name = this.name(py)?.bind(py).str()?.to_string();
        let made = Py::new(py, Strand::new(this.owner.clone_ref(py), this.watch.strand().clone(), Some(name)))?;
        // Two threads may have come here: the first to put its handle in wins, and the other's is dropped outside.
        let kept = this.late(|late| late.strand.get_or_insert_with(|| made.clone_ref(py)).clone_ref(py));
        if !kept.is(&made) {
            drop(made);
            core.adopt_strand(this.watch.strand());
        }
        Ok(kept)
    }

    /// Whether its events are held back.
    #[getter]
    fn paused(&self) -> bool {
        self.watch.paused()
    }

    /// Whether it was removed, for whatever reason.
    #[getter]
    fn removed(&self) -> bool {
        self.watch.removed().is_some()
    }

    /// Change what is reported: READ, WRITE, PRIORITY, at least one of them.
    ///
    /// While the handler runs it takes effect when the handler ends, while the watch is paused at `resume()`.
    ///
    /// Raises:
    ///     WatchRemoved: it was removed, or this call found that its descriptor is gone.
    ///     ValueError: no event at all: that is no pause, a hang-up would still be reported; use `pause()`.
    ///
    /// Blocks: never.
    fn modify(slf: &Bound<'_, Self>, events: &Bound<'_, PyAny>) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        let events = interest(events)?;
        let core = this.owner.get().core()?;
        let (result, finished) = core.modify(&this.watch, events);
        if let Some(finished) = finished {
            LoopCore::pay(this.owner.bind(py), finished);
        }
        result.map_err(|error| errors::raise(py, error, &Self::about(slf)))
    }

    /// Hold its events back until `resume()`; what becomes ready meanwhile is delivered then, once.
    ///
    /// A flag: twice paused, once resumed is active. Messages and timers on its strand go on. Waits for the handler that
    /// runs now, unless the calling thread is lent.
    ///
    /// Args:
    ///     timeout: Seconds to wait for the handler; None for ever.
    ///
    /// Returns:
    ///     True if no handler of it is inside, and none starts until `resume()`. False if one still is (on another
    ///     thread), or the watch was resumed during the wait; nothing new starts unless it was resumed.
    #[pyo3(signature = (timeout = None))]
    fn pause(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        let timeout = attach::timeout("timeout", timeout)?;
        let core = this.owner.get().core()?;
        if let Some(finished) = core.pause(&this.watch) {
            LoopCore::pay(this.owner.bind(py), finished);
        }
        this.wait_vacant(py, timeout)
    }

    /// Undo `pause()`, however often it was called; harmless on a watch that is not paused.
    ///
    /// Raises:
    ///     WatchRemoved: it was removed.
    ///
    /// Blocks: never.
    fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        let (result, finished) = this.owner.get().core()?.resume(&this.watch);
        if let Some(finished) = finished {
            LoopCore::pay(this.owner.bind(py), finished);
        }
        result.map_err(|error| errors::raise(py, error, &Self::about(slf)))
    }

    /// Take it off the loop: no handler of it starts any more. Harmless when it was removed before.
    ///
    /// Waits for the handler that runs now, unless the calling thread is lent. A strand of its own ends with it: timers
    /// are cancelled, messages that were posted still run.
    ///
    /// Args:
    ///     on_removed: Called once as `on_removed(watch, reason)`, on a joined thread (or by `EventLoop.close`), after
    ///         the last handler has ended.
    ///     close: Close `source` as soon as nobody is inside, by its own `close()`, or `os.close` for a number.
    ///     timeout: Seconds to wait for the handler; None for ever.
    ///
    /// Returns:
    ///     True if no handler of it is inside. False if one still is, on another thread. The removal itself has taken
    ///     effect either way.
    #[pyo3(signature = (*, on_removed = None, close = false, timeout = None))]
    fn remove(
        slf: &Bound<'_, Self>,
        on_removed: Option<Bound<'_, PyAny>>,
        close: bool,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        let timeout = attach::timeout("timeout", timeout)?;
        if let Some(callback) = &on_removed {
            callable("on_removed", callback)?;
        }
        let core = this.owner.get().core()?;
        let late = this.late(|late| {
            late.close |= close;
            if late.paid {
                return on_removed;
            }
            late.on_removed.extend(on_removed.map(Bound::unbind));
            None
        });
        match late {
            Some(callback) => {
                Self::complete(slf, callback, this.watch.removed().unwrap_or(RemovalReason::Removed))?;
            }
            None => {
                if let Some(finished) = core.end_watch(&this.watch, RemovalReason::Removed) {
                    LoopCore::pay(this.owner.bind(py), finished);
                }
            }
        }
        this.close_if_asked(this.source.bind(py))?;
        this.wait_vacant(py, timeout)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let name = self.name(py)?.bind(py).str()?.to_string();
        let state = match (self.watch.removed(), self.watch.paused()) {
            (Some(reason), _) => format!("removed ({reason:?})"),
            (None, true) => "paused".to_owned(),
            (None, false) => "active".to_owned(),
        };
        Ok(format!("<manyhands.Watch {name:?} fd={} {:?} {state}>", self.watch.fd(), self.watch.interest()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        visit.call(&self.source)?;
        visit.call(&self.handler)?;
        visit.call(&self.context)?;
        visit.call(&self.name)?;
        visit.call(&self.on_error)?;
        // A fork may have left the lock taken for ever: then the child shows less and frees less.
        let Some(late) = self.late.try_lock() else { return Ok(()) };
        let Some(late) = late.as_ref() else { return Ok(()) };
        visit.call(&late.strand)?;
        late.on_removed.iter().try_for_each(|callback| visit.call(callback))
    }
}
