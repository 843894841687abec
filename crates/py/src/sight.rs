//! What a loop shows of itself: to `stats()` and `dump()`, to whoever prints it, and to the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use manyhands_core::Life;
use manyhands_core::clock::monotonic;
use manyhands_core::hub::SeatShared;
use manyhands_core::strand::StrandView;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::event_loop::LoopCore;
use crate::payload::Carried;
use crate::watch::Watch;

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
    /// `id()` of the task that runs, or 0; it may have ended meanwhile.
    task: usize,
}

/// Counts, in three groups.
pub type Stats = ((usize, usize, usize, usize, usize), (u64, u64, u64, u64, u64), Vec<u64>);

/// Seconds from now, interval in seconds or None, callback.
pub type TimerView = (f64, Option<f64>, Py<PyAny>);

/// Name, state, items, running.
pub type StrandRow = (String, String, usize, bool);

/// Counts at this moment.
pub fn stats(owner: &LoopCore) -> PyResult<Stats> {
    let stats = owner.core()?.stats();
    Ok((
        (stats.joined, stats.parked, stats.ready, stats.watches, stats.timers),
        (stats.handled, stats.polls, stats.wakes, stats.standbys, owner.errors()),
        stats.histogram.to_vec(),
    ))
}

/// What each joined thread does.
pub fn seats(owner: &LoopCore) -> PyResult<Vec<Seat>> {
    let now = monotonic();
    let view = |seat: &Arc<SeatShared>| {
        let since = seat.since.load(Ordering::Relaxed);
        Seat {
            thread: seat.thread,
            running: (since > 0).then(|| now.saturating_sub(since) as f64 / 1e9),
            handled: seat.handled.load(Ordering::Relaxed),
            watch: seat.watch.load(Ordering::Relaxed),
            task: seat.task.load(Ordering::Relaxed),
        }
    };
    Ok(owner.core()?.seats().iter().map(view).collect())
}

/// Every watch.
pub fn watches(owner: &LoopCore) -> PyResult<Vec<Py<Watch>>> {
    Ok(owner.core()?.watch_payloads().into_iter().filter_map(Carried::into_watch).collect())
}

/// Every timer, in order.
pub fn timers(owner: &LoopCore) -> PyResult<Vec<TimerView>> {
    let core = owner.core()?;
    let now = core.now();
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let view = |(when, interval, carried): (u64, Option<u64>, Carried)| match carried {
        Carried::Call(call) => Some((seconds(when) - seconds(now), interval.map(seconds), call.callable)),
        Carried::Watch(_) | Carried::Pool(_) => None,
    };
    Ok(core.timer_views().into_iter().filter_map(view).collect())
}

/// Every strand that is not a watch's own.
pub fn strands(owner: &LoopCore) -> PyResult<Vec<StrandRow>> {
    let row = |view: StrandView| (view.name, format!("{:?}", view.state).to_uppercase(), view.items, view.running);
    Ok(owner.core()?.strand_views().into_iter().filter(|view| !view.own).map(row).collect())
}

/// `repr(loop)`, which never raises for the state that the loop is in.
pub fn repr(owner: &Bound<'_, LoopCore>) -> PyResult<String> {
    let this = owner.get();
    let class = owner.get_type();
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

/// Shows the collector what the loop carries.
pub fn traverse(owner: &LoopCore, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
    // An instance of a class that was made at run time refers to it, and CPython leaves showing that to the base class;
    // PyO3 does not do it. So it is shown here: once for the instance, once for the field.
    if let Some(class) = owner.class() {
        visit.call(class)?;
        visit.call(class)?;
    }
    // In a forked child a lock may be taken for ever: what was inherited is not looked at.
    let Some(core) = owner.own_core() else { return Ok(()) };
    let mut result = Ok(());
    core.visit(|carried| {
        if result.is_ok() {
            result = carried.traverse(visit);
        }
    });
    result
}
