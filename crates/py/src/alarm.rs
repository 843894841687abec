//! What wakes the thread that looks after the time (`manyhands._monitor`). Ringing takes no lock of Python's, so a
//! finalizer may do it.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use manyhands_core::sync::{Condvar, Mutex};
use pyo3::prelude::*;

use crate::attach;

struct Alarm {
    rung: Mutex<u64>,
    changed: Condvar,
}

/// Never freed: a forked child leaves the parent's behind, whose lock may be taken for ever.
static ALARM: AtomicPtr<Alarm> = AtomicPtr::new(core::ptr::null_mut());

fn alarm() -> &'static Alarm {
    // ORDER: Acquire; pairs with the AcqRel of whoever made it.
    let there = ALARM.load(Ordering::Acquire);
    // SAFETY: null, or leaked and never freed.
    if let Some(alarm) = unsafe { there.as_ref() } {
        return alarm;
    }
    let made = Box::into_raw(Box::new(Alarm { rung: Mutex::new(0), changed: Condvar::new() }));
    match ALARM.compare_exchange(core::ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just made, and nobody frees it.
        Ok(_) => unsafe { &*made },
        Err(other) => {
            // SAFETY: `made` was shown to nobody; `other` is leaked and never freed.
            unsafe {
                drop(Box::from_raw(made));
                &*other
            }
        }
    }
}

/// In a forked child.
pub fn forget() {
    // ORDER: Relaxed; the child has one thread.
    ALARM.store(core::ptr::null_mut(), Ordering::Relaxed);
}

/// Wakes the monitor.
pub fn ring() {
    let alarm = alarm();
    *alarm.rung.lock() += 1;
    alarm.changed.notify_all();
}

/// Wake whoever is in `alarm_wait`.
#[pyfunction]
pub fn alarm_ring() {
    ring();
}

/// Wait until the alarm has rung more often than `seen`, or for `timeout` seconds; returns how often it has rung.
#[pyfunction]
pub fn alarm_wait(py: Python<'_>, seen: u64, timeout: Option<f64>) -> PyResult<u64> {
    let timeout = attach::timeout("timeout", timeout)?;
    Ok(attach::detached(py, || {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let alarm = alarm();
        let mut rung = alarm.rung.lock();
        while *rung == seen {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left: Duration| left.is_zero()) {
                break;
            }
            rung = alarm.changed.wait(rung, left);
        }
        *rung
    }))
}
