//! One `await` of something that stands in a line of the core's: a permit, an item, room for one.
//!
//! It is tried at once, after a look whether the task is to stop. What succeeds at once spends the task's budget, and when
//! that is used up the task first lets others run: so the thread is given away before anything is taken, and there is
//! nothing to give back if the task is told to stop meanwhile.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use manyhands_core::permits::Decided;
use manyhands_core::task::WaitPhase;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::payload::Carried;
use crate::task::{self, Task};
use crate::wait::cancelled;

/// Nobody has awaited it.
const FRESH: u64 = 1 << 32;
/// It lets others run before it is tried.
const YIELDS: u64 = 2 << 32;
/// It is being tried, or is over. Everything below `FRESH` is a place in line.
const OVER: u64 = 3 << 32;

/// How far an `await` is.
pub struct Awaiting {
    at: AtomicU64,
    /// The address of the task that awaits it; for a comparison only.
    who: AtomicUsize,
}

/// What is to be done next.
pub enum Next<'py> {
    /// Try it for this task; if it gets in line: [`Awaiting::stand`].
    Try(Bound<'py, Task>),
    /// Yield: the task goes to the tail of the run queue.
    Yield,
    /// It was in line, at this place, and its wait was decided, or aborted: then it raises `Cancelled`.
    Decided { place: u32, aborted: bool },
}

impl Awaiting {
    pub fn new() -> Self {
        Self { at: AtomicU64::new(FRESH), who: AtomicUsize::new(0) }
    }

    pub fn next<'py>(&self, py: Python<'py>) -> PyResult<Next<'py>> {
        let task = task::current(py)
            .ok_or_else(|| PyRuntimeError::new_err("only a task can wait: use this inside of manyhands.run()"))?;
        // ORDER: Acquire, Release here and below; a task goes on where another thread left it, which its word publishes
        // too. The swap is for code that awaits one object twice at the same time.
        let at = self.at.swap(OVER, Ordering::AcqRel);
        if at == FRESH {
            self.who.store(task.as_ptr() as usize, Ordering::Relaxed);
            if task.get().told_to_stop() {
                return Err(cancelled(py));
            }
            if task::spend() {
                task.get().core.yield_now();
                // ORDER: Release; as above.
                self.at.store(YIELDS, Ordering::Release);
                return Ok(Next::Yield);
            }
            return Ok(Next::Try(task));
        }
        let mine = self.who.load(Ordering::Relaxed) == task.as_ptr() as usize;
        if at == OVER || !mine || task.get().core.word().wait != WaitPhase::Ready {
            // ORDER: Release; pairs with the swap of `go`.
            self.at.store(at, Ordering::Release);
            return Err(PyRuntimeError::new_err(
                "this is awaited once, where it was made: call the method again for every await",
            ));
        }
        let aborted = task.get().core.take();
        if at != YIELDS {
            return Ok(Next::Decided { place: at as u32, aborted });
        }
        if task.get().told_to_stop() { Err(cancelled(py)) } else { Ok(Next::Try(task)) }
    }

    /// It stands in line from now on, at this place: the task is suspended.
    pub fn stand(&self, py: Python<'_>, task: &Task, place: u32) -> PyResult<Option<Py<PyAny>>> {
        // ORDER: Release; pairs with the swap above.
        self.at.store(u64::from(place), Ordering::Release);
        crate::wait::look_again(task, task.core.word().ticket);
        Ok(Some(py.None()))
    }

    /// The place that it still stands at, when it is dropped: its coroutine was thrown away.
    pub fn left(&mut self) -> Option<u32> {
        let at = *self.at.get_mut();
        (at < FRESH).then_some(at as u32)
    }
}

/// Lets tasks go on whose waits were decided.
pub fn go_on(py: Python<'_>, decided: Vec<Decided<Carried>>) {
    for one in decided {
        let (owner, wake) = one.queue();
        if wake.needed() {
            // Whoever is woken may want the interpreter at once.
            py.detach(|| owner.wake(wake));
        }
    }
}
