//! Running what the core hands out: user code, in its context, with its failure reported.

use std::sync::atomic::{AtomicU64, Ordering};

use manyhands_core::{Events, Item, TimerNext};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;

use crate::attach;
use crate::event_loop::{CoreSeat, LoopCore};
use crate::once::Once;
use crate::payload::{Call, Carried};
use crate::task;
use crate::timer::Timer;
use crate::watch::Watch;

/// The prebuilt members of `manyhands.Events`: making an `IntFlag` costs 240 ns, picking one nothing.
pub fn events_object(py: Python<'_>, events: Events) -> PyResult<Py<PyAny>> {
    static MEMBERS: Once<Vec<Py<PyAny>>> = Once::new();
    let members = MEMBERS.get_or_try_init(|| -> PyResult<_> {
        let class = py.import("manyhands._events")?.getattr("Events")?;
        (0..32).map(|bits| Ok(class.call1((bits,))?.unbind())).collect()
    })?;
    Ok(members[(events.0 & 31) as usize].clone_ref(py))
}

/// Runs `function` inside a `contextvars.Context`.
fn in_context<'py>(
    py: Python<'py>,
    context: &Py<PyAny>,
    function: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached, and `context` is a Context: it was made by PyContext_CopyCurrent.
    if unsafe { pyo3::ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    let result = function();
    // SAFETY: as above; the exception that `function` raised, if any, was fetched into `result`.
    if unsafe { pyo3::ffi::PyContext_Exit(context.as_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    result
}

fn call<'py>(py: Python<'py>, call: &Call) -> PyResult<Bound<'py, PyAny>> {
    in_context(py, &call.context, || call.callable.bind(py).call1(call.args.bind(py)))
}

/// What a failing callback belonged to.
#[derive(Default)]
pub struct Subject<'py> {
    pub watch: Option<Bound<'py, Watch>>,
    pub strand: Option<Bound<'py, PyAny>>,
    pub timer: Option<Bound<'py, Timer>>,
    pub events: Option<Bound<'py, PyAny>>,
}

impl<'py> Subject<'py> {
    fn of(py: Python<'py>, call: &Call) -> Self {
        Self { strand: call.strand.as_ref().map(|strand| strand.bind(py).clone().into_any()), ..Self::default() }
    }
}

/// Runs one item. Err only for what has to leave `join()`: KeyboardInterrupt, SystemExit, or a failing report.
pub fn item(owner: &Bound<'_, LoopCore>, item: Item<Carried>, seat: &mut CoreSeat) -> PyResult<()> {
    let py = owner.py();
    match item {
        Item::Watch(_, Carried::Watch(watch), events) => handler(owner, &watch, events),
        Item::Timer(Carried::Call(timer)) => {
            let next = match call(py, &timer) {
                Ok(returned) => timer_next(&returned),
                Err(error) => Err(error),
            };
            match next {
                Ok(next) => seat.timer_next(next),
                Err(error) => {
                    let subject = Subject { timer: timer_handle(owner, seat)?, ..Subject::of(py, &timer) };
                    if !report(owner, "timer", subject, &timer.callable, error)? {
                        seat.timer_next(TimerNext::Stop);
                    }
                }
            }
            Ok(())
        }
        Item::Message(Carried::Call(message))
        | Item::Terminal(Carried::Call(message))
        | Item::Completion(Carried::Call(message)) => message_call(owner, &message),
        Item::Task(task) => {
            // ORDER: Relaxed, both; whoever reads it compares it, and never follows it.
            seat.shared.task.store(task.object(), Ordering::Relaxed);
            task::step(py, owner.get().core()?, &task);
            seat.shared.task.store(0, Ordering::Relaxed);
            Ok(())
        }
        // The core hands a payload out as what it was put in as.
        Item::Watch(..) | Item::Timer(_) | Item::Message(_) | Item::Terminal(_) | Item::Completion(_) => Ok(()),
    }
}

fn message_call(owner: &Bound<'_, LoopCore>, message: &Call) -> PyResult<()> {
    match call(owner.py(), message) {
        Ok(_) => Ok(()),
        Err(error) => {
            report(owner, message.source, Subject::of(owner.py(), message), &message.callable, error).map(|_| ())
        }
    }
}

/// A handle to the timer that has just run, for a report.
fn timer_handle<'py>(owner: &Bound<'py, LoopCore>, seat: &CoreSeat) -> PyResult<Option<Bound<'py, Timer>>> {
    let Some(token) = seat.timer() else { return Ok(None) };
    let when = AtomicU64::new(owner.get().core()?.now());
    let timer = Timer { owner: owner.clone().unbind(), token, strand: seat.strand().cloned(), when };
    Bound::new(owner.py(), timer).map(Some)
}

/// Runs a final callback on the thread that closes the loop.
pub fn completion(owner: &Bound<'_, LoopCore>, completion: Carried) -> PyResult<()> {
    match completion {
        Carried::Call(call) => message_call(owner, &call),
        Carried::Watch(_) | Carried::Pool(_) => Ok(()),
    }
}

fn handler(owner: &Bound<'_, LoopCore>, watch: &Py<Watch>, events: Events) -> PyResult<()> {
    let py = owner.py();
    let this = watch.get();
    let object = events_object(py, events)?;
    let result = in_context(py, &this.context, || this.handler.bind(py).call1((watch.bind(py), object.bind(py))));
    let Err(error) = result else { return Ok(()) };
    let subject = Subject {
        watch: Some(watch.bind(py).clone()),
        strand: Some(Watch::strand(watch.bind(py))?.into_bound(py).into_any()),
        events: Some(object.into_bound(py)),
        ..Subject::default()
    };
    if !report(owner, "watch", subject, &this.handler, error)? {
        let core = owner.get().core()?;
        // Its own handler is inside, so this only marks it; `next` hands it out when the handler is counted out.
        if let Some(finished) = core.end_watch(&this.watch, manyhands_core::RemovalReason::HandlerError) {
            LoopCore::pay(owner, finished);
        }
    }
    Ok(())
}

/// What a timer's callback returned: `STOP`, a `Delay`, or anything else for the next tick.
fn timer_next(returned: &Bound<'_, PyAny>) -> PyResult<TimerNext> {
    static STOP: Once<Py<PyAny>> = Once::new();
    static DELAY: Once<Py<PyAny>> = Once::new();
    if returned.is_none() {
        return Ok(TimerNext::Tick);
    }
    let py = returned.py();
    if returned.is(STOP.import(py, "manyhands._events", "STOP")?) {
        return Ok(TimerNext::Stop);
    }
    if returned.is_instance(DELAY.import(py, "manyhands._events", "Delay")?)? {
        let seconds: f64 = returned.getattr("seconds")?.extract()?;
        return Ok(TimerNext::After(attach::duration("Delay.seconds", seconds)?.as_nanos() as u64));
    }
    Ok(TimerNext::Tick)
}

/// Tells Python's policy (`EventLoop._report`) of a failure; True if the watch or timer is kept.
pub fn report(
    owner: &Bound<'_, LoopCore>,
    source: &str,
    subject: Subject<'_>,
    handler: &Py<PyAny>,
    error: PyErr,
) -> PyResult<bool> {
    let py = owner.py();
    if error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py) {
        return Err(error);
    }
    owner.get().count_error();
    let Subject { watch, strand, timer, events } = subject;
    let on_error = watch.as_ref().and_then(|watch| watch.get().on_error.as_ref().map(|hook| hook.clone_ref(py)));
    let error = error.into_value(py);
    owner.call_method1("_report", (source, watch, strand, timer, events, handler, error, on_error))?.extract()
}
