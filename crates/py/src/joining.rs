//! Serving a loop on the calling thread, from entry to exit; and ending it for good.

use std::sync::Arc;
use std::time::Duration;

use manyhands_core::{JoinOptions, Life, Next};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::attach::{self, Lent};
use crate::event_loop::{Core, CoreSeat, LoopCore};
use crate::in_place::{self, Serving};
use crate::payload::Carried;
use crate::run;
use crate::stream::spare::Keeping;

/// Serves the loop, as soon as it is open, until something says leave; how many handlers ran.
pub fn join(owner: &Bound<'_, LoopCore>, wait_restart: bool, options: JoinOptions) -> PyResult<usize> {
    let (this, py) = (owner.get(), owner.py());
    if attach::lent() {
        return Err(PyRuntimeError::new_err(format!(
            "loop {:?} cannot be joined by a thread that is serving a loop already: return from the handler first",
            this.name()
        )));
    }
    let core = this.open_core()?;
    if wait_restart && !attach::wait(py, options.timeout, |limit| core.wait_open(limit))? {
        return Ok(0);
    }
    serve(owner, options)
}

/// Serves the loop on this thread until something says leave.
fn serve(owner: &Bound<'_, LoopCore>, options: JoinOptions) -> PyResult<usize> {
    let (this, py) = (owner.get(), owner.py());
    let core = this.core()?;
    let Some(mut seat) = core.enter(options).map_err(|error| this.raise(py, error))? else { return Ok(0) };
    let lent = Lent::to(this.address());
    let serving = Serving::new(core, attach::is_main_thread(py), options.one_tick);
    let keeping = Keeping::begin();
    let result = go_round(owner, core, &mut seat);
    drop(keeping);
    in_place::give_up(py);
    drop(serving);
    if core.check_fork().is_err() {
        // A handler forked, and this is the child: nothing of the parent's loop may be touched.
        core::mem::forget(seat);
        return result.map(|()| 0);
    }
    let left = core.leave(seat);
    for finished in left.finished {
        LoopCore::pay(owner, finished);
    }
    left.unserved.into_iter().for_each(in_place::unserved);
    drop(lent);
    result.map(|()| left.handled)
}

/// What the core says to do, until it says leave.
fn go_round(owner: &Bound<'_, LoopCore>, core: &Arc<Core>, seat: &mut CoreSeat) -> PyResult<()> {
    let py = owner.py();
    let main = attach::is_main_thread(py);
    loop {
        match core.next(seat) {
            Next::Run(item) => {
                run::item(owner, item, seat)?;
                core.check_fork().map_err(|error| owner.get().raise(py, error))?;
                in_place::run(owner, core, seat)?;
            }
            Next::Finished(finished) => {
                LoopCore::pay(owner, finished);
                in_place::run(owner, core, seat)?;
            }
            Next::Come(Carried::Pool(pool)) => in_place::come(owner, core, seat, pool)?,
            Next::Come(sent) | Next::Unserved(sent) => in_place::unserved(sent),
            Next::Wait => {
                // What was enqueued outside of a handler: by the close of a source, or in a finalizer.
                in_place::run(owner, core, seat)?;
                attach::detached(py, || core.wait(seat));
                if main {
                    py.check_signals()?;
                }
            }
            Next::Leave => return Ok(()),
        }
    }
}

/// Waits until every joined thread has left.
pub fn wait(owner: &LoopCore, py: Python<'_>, timeout: Option<Duration>) -> PyResult<bool> {
    let core = owner.open_core()?;
    if timeout != Some(Duration::ZERO) {
        attach::refuse_if_lent(py, "wait()", owner.name())?;
    }
    attach::wait(py, timeout, |limit| core.wait_left(limit))
}

/// Lets a stopped loop be joined again.
pub fn restart(owner: &LoopCore, py: Python<'_>) -> PyResult<()> {
    attach::refuse_if_lent(py, "restart()", owner.name())?;
    owner.core()?.restart().map_err(|error| owner.raise(py, error))
}

/// Closes the core: (whether it was open, messages that never ran).
pub fn close(owner: &Bound<'_, LoopCore>) -> PyResult<(bool, usize)> {
    let this = owner.get();
    let core = this.core()?;
    if core.life() == Life::Closed {
        return Ok((false, 0));
    }
    let (finished, lost) = core.close().map_err(|error| this.raise(owner.py(), error))?;
    for finished in finished {
        LoopCore::pay(owner, finished);
    }
    Ok((true, lost))
}

/// Runs the final callbacks that are owed after `close`, and those that they make.
pub fn run_owed(owner: &Bound<'_, LoopCore>) -> PyResult<()> {
    let core = owner.get().core()?;
    // What has to leave (Ctrl-C) leaves when the others have run: each of them is owed.
    let mut result = Ok(());
    loop {
        let completions = core.take_completions();
        if completions.is_empty() {
            return result;
        }
        for completion in completions {
            result = result.and(run::completion(owner, completion));
        }
    }
}
