//! `receive` and `send`, the two calls that every message makes, without PyO3's prologue.

use core::ffi::CStr;
use core::ptr;
use std::sync::atomic::AtomicUsize;

use pyo3::PyTypeInfo;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::StreamCore;
use super::export::Export;
use super::methods::{positive, transfer};
use super::object::{guarded, method};
use super::transfer::Act;
use crate::reading::Want;

const RECEIVE: &CStr = c"receive($self, /, max_bytes=65536)
--

Read what there is, at least one byte and at most `max_bytes`, as bytes.

Raises:
    EndOfStream: the peer has sent its last byte.
    BusyResourceError: another task receives from it.
    BrokenResourceError: the connection was lost. ClosedResourceError: it was closed here.
    Cancelled: the task is to stop; nothing was taken.";

const SEND: &CStr = c"send($self, /, data)
--

Write all of a buffer; waits while the peer does not read.

Raises:
    BusyResourceError: another task sends to it.
    BrokenResourceError: the connection was lost, or an earlier send was cancelled half-way.
    ClosedResourceError: it was closed here, or `send_eof()` was called.
    Cancelled: the task is to stop; a part may have been sent: then every later send is refused.";

/// What most readers ask for.
const MAX_BYTES: isize = 65536;

/// The arguments of a call as the interpreter passes them.
struct Arguments<'py> {
    py: Python<'py>,
    first: *const *mut ffi::PyObject,
    by_place: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
}

impl<'py> Arguments<'py> {
    /// The one argument that there may be.
    fn one(&self, call: &str, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        // SAFETY: the interpreter holds the arguments: so many by their place, then one for each name of the tuple.
        unsafe {
            let named = if self.names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(self.names) };
            if self.by_place + named > 1 {
                let count = self.by_place + named;
                return Err(PyTypeError::new_err(format!("{call}() takes one argument, {name}, and got {count}")));
            }
            if named == 1 {
                let given = Bound::from_borrowed_ptr(self.py, ffi::PyTuple_GET_ITEM(self.names, 0));
                if given.extract::<&str>()? != name {
                    return Err(PyTypeError::new_err(format!("{call}() takes {name}, and got {}", given.repr()?)));
                }
            }
            if self.by_place + named == 0 {
                return Ok(None);
            }
            Ok(Some(Bound::from_borrowed_ptr(self.py, *self.first)))
        }
    }
}

/// Makes an operation of a stream.
///
/// # Safety
/// The interpreter calls a method of `StreamCore` with these.
unsafe fn call(
    stream: *mut ffi::PyObject,
    arguments: (*const *mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject),
    act: impl FnOnce(&Arguments<'_>) -> PyResult<Act>,
) -> *mut ffi::PyObject {
    let run = |py: Python<'_>| {
        guarded(py, ptr::null_mut(), || {
            let act = act(&Arguments { py, first: arguments.0, by_place: arguments.1, names: arguments.2 })?;
            // SAFETY: the method is of this type, and the interpreter has looked.
            let stream = unsafe { Bound::from_borrowed_ptr(py, stream).cast_into_unchecked::<StreamCore>() };
            transfer(&stream, act).map(Py::into_ptr)
        })
    };
    // SAFETY: the interpreter calls a method attached.
    unsafe { Python::attach_unchecked(run) }
}

unsafe extern "C" fn receive(
    stream: *mut ffi::PyObject,
    first: *const *mut ffi::PyObject,
    by_place: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let act = |arguments: &Arguments<'_>| {
        let max = arguments.one("receive", "max_bytes")?.map_or(Ok(MAX_BYTES), |max| max.extract())?;
        Ok(Act::Receive(Want::Some(positive("max_bytes", max)?)))
    };
    // SAFETY: the interpreter calls it.
    unsafe { call(stream, (first, by_place, names), act) }
}

unsafe extern "C" fn send(
    stream: *mut ffi::PyObject,
    first: *const *mut ffi::PyObject,
    by_place: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let act = |arguments: &Arguments<'_>| {
        let data = arguments.one("send", "data")?;
        let data = data.ok_or_else(|| PyTypeError::new_err("send() needs data, and got nothing"))?;
        Ok(Act::Send(Export::new(&data, false)?, AtomicUsize::new(0)))
    };
    // SAFETY: the interpreter calls it.
    unsafe { call(stream, (first, by_place, names), act) }
}

/// Puts the two into the type.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let flags = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
    // The interpreter keeps their address.
    let methods = Box::leak(Box::new([
        method(c"receive", ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: receive }, flags, RECEIVE),
        method(c"send", ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: send }, flags, SEND),
    ]));
    let class = StreamCore::type_object(py);
    for method in methods {
        // SAFETY: attached; the definition is as the interpreter wants it, and lives for good.
        let descriptor =
            unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), method))? };
        // SAFETY: the definition has a name.
        let name = unsafe { CStr::from_ptr(method.ml_name) };
        class.setattr(name.to_str()?, descriptor)?;
    }
    Ok(())
}
