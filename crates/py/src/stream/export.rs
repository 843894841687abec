//! A buffer of the caller's, for as long as an operation needs it.

use core::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::held::Held;

/// A buffer of the caller's, which cannot change its size until this is released.
pub enum Export {
    Bytes(Held<PyBytes>),
    /// The view, and whether it was released.
    Buffer(Box<UnsafeCell<ffi::Py_buffer>>, AtomicBool),
}

// SAFETY: the view may be read by any thread; it is released once, while attached.
unsafe impl Send for Export {}
// SAFETY: as above.
unsafe impl Sync for Export {}

impl Export {
    pub fn new(data: &Bound<'_, PyAny>, writable: bool) -> PyResult<Self> {
        if !writable && let Ok(bytes) = data.cast_exact::<PyBytes>() {
            return Ok(Self::Bytes(Held::new(bytes.clone())));
        }
        let mut view = Box::new(core::mem::MaybeUninit::<ffi::Py_buffer>::uninit());
        let flags = if writable { ffi::PyBUF_WRITABLE } else { ffi::PyBUF_SIMPLE };
        // SAFETY: attached; on success the view is filled in.
        if unsafe { ffi::PyObject_GetBuffer(data.as_ptr(), view.as_mut_ptr(), flags) } != 0 {
            let error = PyErr::fetch(data.py());
            if error.is_instance_of::<PyTypeError>(data.py()) {
                return Err(PyTypeError::new_err(format!(
                    "expected bytes, a bytearray or another {}contiguous buffer, and got {}",
                    if writable { "writable " } else { "" },
                    data.get_type().name()?
                )));
            }
            return Err(error);
        }
        // SAFETY: the call has succeeded.
        let view = unsafe { Box::from_raw(Box::into_raw(view).cast()) };
        Ok(Self::Buffer(view, AtomicBool::new(false)))
    }

    /// The memory; none once it was released.
    fn memory(&self) -> Option<(*mut u8, usize)> {
        match self {
            Self::Buffer(view, released) if !released.load(Ordering::Relaxed) => {
                // SAFETY: only `release` writes to the view, and whoever releases it uses it no more.
                let view = unsafe { &*view.get() };
                (view.len > 0).then_some((view.buf.cast(), view.len as usize))
            }
            _ => None,
        }
    }

    /// The buffer is the caller's again: now, and not when the last reference to the operation goes, which on a
    /// free-threaded interpreter may be when its maker's thread runs the next time.
    pub fn release(&self, _py: Python<'_>) {
        if let Self::Buffer(view, released) = self
            && !released.swap(true, Ordering::Relaxed)
        {
            // SAFETY: attached. Once: this call took the flag.
            unsafe { ffi::PyBuffer_Release(view.get()) };
        }
    }

    pub fn bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes.bind(py).as_bytes(),
            Self::Buffer(..) => match self.memory() {
                // SAFETY: the exporter keeps the memory until the view is released. Somebody may write to it meanwhile, as
                // to any buffer that is being sent; then what is sent is one or the other.
                Some((start, count)) => unsafe { core::slice::from_raw_parts(start, count) },
                None => &[],
            },
        }
    }

    /// The memory of a writable one.
    #[allow(clippy::mut_from_ref, reason = "the memory is the exporter's, and one reader at a time writes to it")]
    pub fn writable(&self) -> &mut [u8] {
        match self.memory() {
            // SAFETY: asked for as writable, and released when the reader has ended; the stream has one.
            Some((start, count)) => unsafe { core::slice::from_raw_parts_mut(start, count) },
            None => &mut [],
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        // SAFETY: awaitables are Python's, and dropped by it.
        self.release(unsafe { Python::assume_attached() });
    }
}
