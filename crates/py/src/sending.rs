//! Putting calls in: messages and timers, on a strand or on one of their own.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use manyhands_core::hub::Wake;
use manyhands_core::{Place, Refused};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arguments::callable;
use crate::attach;
use crate::errors::{self, About};
use crate::event_loop::{Core, LoopCore};
use crate::payload::{Call, Carried};
use crate::strand::Strand;
use crate::timer::Timer;

/// Where a call goes: a strand, or None for one of its own.
type On<'a, 'py> = Option<&'a Bound<'py, Strand>>;

/// Posts `callback(*args)`.
pub fn post(
    owner: &LoopCore,
    on: On<'_, '_>,
    source: &'static str,
    callback: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    place: Place,
) -> PyResult<()> {
    let py = callback.py();
    let payload = carried(on, source, callback, args)?;
    let core = owner.core()?;
    let posted = match on {
        Some(strand) => core.post(&strand.get().strand, payload, place, owner.origin()),
        None => core.post_alone(payload, place, owner.origin()),
    };
    sent(owner, py, core, on, posted)
}

/// Posts the last message of a strand, or of the loop itself, which then drains.
pub fn post_terminal(
    owner: &LoopCore,
    on: On<'_, '_>,
    callback: Option<Bound<'_, PyAny>>,
    args: Bound<'_, PyTuple>,
) -> PyResult<()> {
    let py = args.py();
    let payload = callback.map(|callback| carried(on, "terminal", callback, args)).transpose()?;
    let core = owner.core()?;
    let posted = match on {
        Some(strand) => core.post_terminal(&strand.get().strand, payload, owner.origin()),
        None => core.drain_with_terminal(payload, owner.origin()).map(|()| Wake::Nobody),
    };
    sent(owner, py, core, on, posted)
}

/// Sets a timer for `delay` seconds from now, periodic or not.
pub fn call_after(
    owner: &Bound<'_, LoopCore>,
    on: On<'_, '_>,
    delay: f64,
    periodic: bool,
    callback: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
) -> PyResult<Timer> {
    let delay = attach::duration(if periodic { "interval" } else { "delay" }, delay)?.as_nanos() as u64;
    if periodic && delay == 0 {
        return Err(PyValueError::new_err("interval must be above 0 seconds: a tick every 0 s never ends"));
    }
    let when = owner.get().core()?.now().saturating_add(delay);
    set_timer(owner, on, when, periodic.then_some(delay), callback, args)
}

/// Sets a timer for `when` seconds on the loop's clock.
pub fn call_at(
    owner: &Bound<'_, LoopCore>,
    on: On<'_, '_>,
    when: f64,
    callback: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
) -> PyResult<Timer> {
    set_timer(owner, on, attach::nanoseconds("when", when)?, None, callback, args)
}

fn set_timer(
    owner: &Bound<'_, LoopCore>,
    on: On<'_, '_>,
    when: u64,
    interval: Option<u64>,
    callback: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
) -> PyResult<Timer> {
    let this = owner.get();
    let strand = on.map(|strand| strand.get().strand.clone());
    let payload = carried(on, "timer", callback, args)?;
    let token = this
        .core()?
        .set_timer(when, interval, strand.as_ref(), payload)
        .map_err(|refused| refusal(this, owner.py(), on, refused))?;
    Ok(Timer { owner: owner.clone().unbind(), token, strand, when: AtomicU64::new(when) })
}

/// The call that was asked for; it runs in a copy of the context of now.
fn carried(
    on: On<'_, '_>,
    source: &'static str,
    callback: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
) -> PyResult<Carried> {
    callable("callback", &callback)?;
    Ok(Carried::Call(Call::new(source, callback, args)?.on(on)))
}

/// Wakes a thread for what was taken. Detached: on a build with the GIL the woken thread would pre-empt this one only to
/// wait for it.
fn sent(
    owner: &LoopCore,
    py: Python<'_>,
    core: &Arc<Core>,
    on: On<'_, '_>,
    posted: Result<Wake, Refused<Carried>>,
) -> PyResult<()> {
    let wake = posted.map_err(|refused| refusal(owner, py, on, refused))?;
    if wake.needed() {
        attach::detached(py, || core.wake(wake));
    }
    Ok(())
}

/// The exception for what was not taken. It comes back from the core, and is dropped here, attached and under no lock.
fn refusal(owner: &LoopCore, py: Python<'_>, on: On<'_, '_>, refused: Refused<Carried>) -> PyErr {
    let strand = on.map(|strand| strand.as_any().clone());
    errors::raise(py, refused.error, &About { name: owner.name(), strand, ..About::default() })
}
