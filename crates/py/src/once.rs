//! What is made once in a process, and kept until it ends.

use core::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::prelude::*;

/// A place for what is made at its first use.
///
/// Threads that come at once may make one each: one is kept, and nobody waits. With PyO3's `PyOnceLock` they would wait for
/// the first one, and a child that was forked in the midst of it for a thread that it does not have.
pub struct Once<T>(AtomicPtr<T>);

impl<T: Send + Sync> Once<T> {
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    fn get(&'static self) -> Option<&'static T> {
        // ORDER: Acquire; pairs with the exchange below.
        // SAFETY: null, or from `Box::into_raw` below and never freed.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    pub fn get_or_try_init(&'static self, make: impl FnOnce() -> PyResult<T>) -> PyResult<&'static T> {
        if let Some(made) = self.get() {
            return Ok(made);
        }
        let made = Box::into_raw(Box::new(make()?));
        // ORDER: AcqRel, Acquire; publishes what was made, here or by another thread.
        match self.0.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: nobody frees it any more.
            Ok(_) => Ok(unsafe { &*made }),
            Err(first) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: as in `get`; it is not null.
                Ok(unsafe { &*first })
            }
        }
    }
}

impl Once<Py<PyAny>> {
    /// What the module has by this name.
    pub fn import<'py>(&'static self, py: Python<'py>, module: &str, name: &str) -> PyResult<&'py Bound<'py, PyAny>> {
        Ok(self.get_or_try_init(|| Ok(py.import(module)?.getattr(name)?.unbind()))?.bind(py))
    }
}
