//! Which thread this is, and how it may wait.

use core::cell::Cell;
use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors;
use crate::once::Once;

thread_local! {
    /// How many `join()`, `run_ready()` or jobs this thread is inside of.
    static LENT: Cell<u32> = const { Cell::new(0) };
    /// The loop that this thread serves (the address of its core), 0 for none.
    static SERVES: Cell<usize> = const { Cell::new(0) };
}

/// Whether the calling thread is lent: then it must not wait for a loop.
pub fn lent() -> bool {
    LENT.try_with(Cell::get).unwrap_or(0) > 0
}

/// Whether the calling thread serves this loop, so that what it posts is posted by a handler.
pub fn serves(address: usize) -> bool {
    SERVES.try_with(Cell::get).unwrap_or(0) == address
}

/// The thread is lent until this is dropped.
pub struct Lent {
    served: usize,
}

impl Lent {
    /// Lends the thread to the loop at this address.
    pub fn to(address: usize) -> Self {
        LENT.with(|lent| lent.set(lent.get() + 1));
        Self { served: SERVES.with(|serves| serves.replace(address)) }
    }
}

impl Lent {
    /// Lends the thread to a job; whom it serves stays.
    pub fn more() -> Self {
        Self::to(SERVES.with(Cell::get))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // In a child forked by a handler the marks were taken away meanwhile.
        LENT.with(|lent| lent.set(lent.get().saturating_sub(1)));
        SERVES.with(|serves| serves.set(self.served));
    }
}

/// In a forked child: its only thread serves nothing, wherever the fork was made.
pub fn forget_lent() {
    LENT.with(|lent| lent.set(0));
    SERVES.with(|serves| serves.set(0));
}

/// A call that waits, made on a lent thread, raises.
pub fn refuse_if_lent(py: Python<'_>, call: &str, name: &str) -> PyResult<()> {
    if lent() { Err(errors::would_deadlock(py, call, name)) } else { Ok(()) }
}

/// The calling thread's identifier in Python.
pub fn thread_ident() -> u64 {
    unsafe extern "C" {
        // Part of CPython's API that PyO3 does not bind.
        safe fn PyThread_get_thread_ident() -> core::ffi::c_ulong;
    }
    PyThread_get_thread_ident()
}

/// Whether this is the thread on which Python runs handlers of signals.
pub fn is_main_thread(py: Python<'_>) -> bool {
    static MAIN: Once<Py<PyAny>> = Once::new();
    let ident = || -> PyResult<u64> {
        let main = MAIN.import(py, "threading", "main_thread")?.call0()?;
        main.getattr("ident")?.extract()
    };
    ident().is_ok_and(|ident| ident == thread_ident())
}

/// The main thread, once nobody else may come back to the interpreter; 0 before.
static LAST: AtomicU64 = AtomicU64::new(0);

/// The interpreter is about to end, and only the calling thread, the main one, goes on.
///
/// A thread that came back to an interpreter which is ending would be ended by it, inside our frames (CPython before
/// 3.14): the process would abort. Only daemon threads are left when this is called, and those that wait stay out.
pub fn leave_behind() {
    // ORDER: Release; pairs with the Acquire in `detached`.
    LAST.store(thread_ident(), Ordering::Release);
}

/// In a forked child: it may have been forked while its parent ended.
pub fn forget_last() {
    // ORDER: Relaxed; the child has one thread.
    LAST.store(0, Ordering::Relaxed);
}

/// Runs `wait` detached. Every wait of ours is made by this.
pub fn detached<R: Send>(py: Python<'_>, wait: impl FnOnce() -> R + Send) -> R {
    py.detach(|| {
        let result = wait();
        // ORDER: Acquire; pairs with the Release in `leave_behind`.
        let last = LAST.load(Ordering::Acquire);
        if last != 0 && last != thread_ident() {
            loop {
                std::thread::park();
            }
        }
        result
    })
}

/// How long the main thread waits before it looks for signals again.
const LOOK: Duration = Duration::from_millis(50);

/// Waits, detached, by `wait(limit)`, which says whether what it waits for has come; False after `timeout`. The main
/// thread runs handlers of signals between slices of the wait; what they raise ends it.
pub fn wait(
    py: Python<'_>,
    timeout: Option<Duration>,
    wait: impl Fn(Option<Duration>) -> bool + Send + Sync,
) -> PyResult<bool> {
    if !is_main_thread(py) {
        return Ok(detached(py, || wait(timeout)));
    }
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if detached(py, || wait(Some(left.map_or(LOOK, |left| left.min(LOOK))))) {
            return Ok(true);
        }
        py.check_signals()?;
        if left.is_some_and(|left| left <= LOOK) {
            return Ok(false);
        }
    }
}

/// Seconds as the user gives them; None, or infinity, for ever.
pub fn timeout(name: &str, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds == f64::INFINITY => Ok(None),
        Some(seconds) => {
            in_range(seconds).map(Some).ok_or_else(|| refused(name, seconds, "; pass None to wait for ever"))
        }
    }
}

/// Seconds as the user gives them, not negative.
pub fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    in_range(seconds).ok_or_else(|| refused(name, seconds, ""))
}

fn in_range(seconds: f64) -> Option<Duration> {
    // Above 100 years a timeout is as good as for ever, and must not overflow a deadline.
    (seconds >= 0.0 && seconds.is_finite()).then(|| Duration::from_secs_f64(seconds.min(3.2e9)))
}

fn refused(name: &str, seconds: f64, hint: &str) -> PyErr {
    PyValueError::new_err(format!("{name} must be a number of seconds, 0 or more, and got {seconds}{hint}"))
}

/// Nanoseconds of a point on a loop's clock.
pub fn nanoseconds(name: &str, seconds: f64) -> PyResult<u64> {
    if seconds.is_nan() {
        return Err(PyValueError::new_err(format!("{name} must be a number of seconds, and got nan")));
    }
    Ok((seconds.clamp(0.0, 9.0e9) * 1e9) as u64)
}
