//! A reference that is dropped where the thread is attached for sure.

use core::mem::ManuallyDrop;
use core::ops::Deref;

use pyo3::ffi;
use pyo3::prelude::*;

/// As `Py<T>`, but its drop does not ask PyO3 whether the thread is attached: for what Python's objects hold alone, which
/// are dropped by the interpreter.
pub struct Held<T>(ManuallyDrop<Py<T>>);

impl<T> Held<T> {
    pub fn new(object: Bound<'_, T>) -> Self {
        Self(ManuallyDrop::new(object.unbind()))
    }
}

impl<T> Deref for Held<T> {
    type Target = Py<T>;

    fn deref(&self) -> &Py<T> {
        &self.0
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: attached, as the type says; the reference is ours, and nobody uses it after this.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) };
    }
}
