//! The Python type of a [`Transfer`], written out: every message makes one for each `await`, and drops it.
//!
//! PyO3 would give it an allocation of its own, a collector's list to be put into, and for every slot a prologue. Here a
//! thread that serves a loop keeps some objects to use again, and the interpreter's `await` calls [`am_send`], which
//! gives a result without an exception (up to 3.11; later ones call [`iternext`]).
//!
//! The collector sees it only if its stream may be part of a cycle: a subclass of the user's, with attributes.

use core::ffi::{CStr, c_int, c_void};
use core::ptr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering};

use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;

use super::transfer::{Step, Transfer};
use super::{StreamCore, spare};
use crate::task;
use crate::wait;

/// How it lies in memory.
#[repr(C)]
struct Object {
    head: ffi::PyObject,
    transfer: Transfer,
}

/// The type; made with the module, and never freed.
static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// The size of a stream that has nothing but what `StreamCore` has.
static STREAM: AtomicIsize = AtomicIsize::new(0);

/// Whether an instance of a subclass of the user's, which may refer to what refers to it.
///
/// # Safety
/// The object is a `StreamCore`, and alive.
unsafe fn has_attributes(stream: *mut ffi::PyObject) -> bool {
    // SAFETY: as the caller says.
    let class = unsafe { &*ffi::Py_TYPE(stream) };
    class.tp_dictoffset != 0 || class.tp_basicsize != STREAM.load(Ordering::Relaxed)
}

/// A Python object of an operation.
pub fn new(py: Python<'_>, transfer: Transfer) -> PyResult<Py<PyAny>> {
    // ORDER: Acquire; pairs with the Release in `class`.
    let class = TYPE.load(Ordering::Acquire);
    // SAFETY: attached, and the module has made the type. A spare object has the size and the place before it that the
    // collector needs; `PyObject_Init` makes it a new one.
    let object = unsafe {
        match spare::take() {
            Some(spare) => ffi::PyObject_Init(spare, class),
            None => ffi::PyObject_GC_New::<ffi::PyObject>(class),
        }
    };
    if object.is_null() {
        return Err(PyErr::fetch(py));
    }
    // SAFETY: the memory is an `Object`'s and has no content yet; the stream is alive.
    unsafe {
        let may_be_in_a_cycle = has_attributes(transfer.stream.as_ptr());
        ptr::write(&raw mut (*object.cast::<Object>()).transfer, transfer);
        if may_be_in_a_cycle {
            ffi::PyObject_GC_Track(object.cast());
        }
        Ok(Bound::from_owned_ptr(py, object).unbind())
    }
}

/// The operation of an object that the interpreter holds meanwhile.
///
/// # Safety
/// The object is of this type, and alive for as long as the reference is used.
unsafe fn transfer<'a>(object: *mut ffi::PyObject) -> &'a Transfer {
    // SAFETY: as the caller says.
    unsafe { &(*object.cast::<Object>()).transfer }
}

/// Runs something for a slot; what it raises is set, and so is a panic.
pub fn guarded<R>(py: Python<'_>, failed: R, run: impl FnOnce() -> PyResult<R>) -> R {
    let error = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => return value,
        Ok(Err(error)) => error,
        Err(_) => PanicException::new_err("panic from Rust code"),
    };
    error.restore(py);
    failed
}

/// Runs a slot.
pub fn slot<R>(failed: R, run: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // SAFETY: the interpreter calls slots and methods attached. It may be finalizing: then PyO3's own look would panic.
    unsafe { Python::attach_unchecked(|py| guarded(py, failed, || run(py))) }
}

/// Goes on with an operation, for the running task.
///
/// # Safety
/// The object is of this type, and the interpreter holds it.
unsafe fn step<R>(object: *mut ffi::PyObject, failed: R, ended: impl FnOnce(Python<'_>, Step) -> PyResult<R>) -> R {
    // SAFETY: as the caller says.
    let transfer = unsafe { transfer(object) };
    // SAFETY: attached, as every slot. Inside of a task PyO3 knows that, from the frame that serves the loop.
    let py = unsafe { Python::assume_attached() };
    match task::current(py) {
        Some(task) => guarded(py, failed, || ended(py, transfer.step(py, Some(task.get()))?)),
        None => slot(failed, |py| ended(py, transfer.step(py, None)?)),
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: attached, and the last reference has gone. The memory is given back after its content; a type on the heap
    // is held by its instances.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let class = ffi::Py_TYPE(object);
        if transfer(object).is_light() {
            ptr::drop_in_place(&raw mut (*object.cast::<Object>()).transfer);
        } else {
            slot((), |py| {
                transfer(object).close(py);
                ptr::drop_in_place(&raw mut (*object.cast::<Object>()).transfer);
                Ok(())
            });
        }
        if !spare::keep(object) {
            ffi::PyObject_GC_Del(object.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector passes an object that is alive. Nothing is counted here.
    unsafe {
        let class = ffi::Py_TYPE(object);
        match visit(class.cast(), arg) {
            0 => visit(transfer(object).stream.as_ptr(), arg),
            stop => stop,
        }
    }
}

unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached, and the object is alive.
    unsafe { ffi::Py_NewRef(object) }
}

unsafe extern "C" fn am_send(
    object: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let ended = |py: Python<'_>, step| {
        let (sent, value) = match step {
            Step::Suspended => (ffi::PySendResult::PYGEN_NEXT, None),
            Step::Done(value) => (ffi::PySendResult::PYGEN_RETURN, value),
        };
        // SAFETY: the interpreter takes the result.
        unsafe { *result = value.unwrap_or_else(|| py.None()).into_ptr() };
        Ok(sent)
    };
    // SAFETY: the interpreter holds the object.
    unsafe { step(object, ffi::PySendResult::PYGEN_ERROR, ended) }
}

unsafe extern "C" fn iternext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let ended = |py: Python<'_>, step| match step {
        Step::Suspended => Ok(py.None().into_ptr()),
        Step::Done(value) => {
            wait::stop(py, value.map(|value| value.into_bound(py)))?;
            // With no error set it is the end, and None.
            Ok(ptr::null_mut())
        }
    };
    // SAFETY: the interpreter holds the object.
    unsafe { step(object, ptr::null_mut(), ended) }
}

unsafe extern "C" fn send(object: *mut ffi::PyObject, _value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let ended = |py: Python<'_>, step| match step {
        Step::Suspended => Ok(py.None().into_ptr()),
        Step::Done(value) => Err(PyStopIteration::new_err((value,))),
    };
    // SAFETY: the interpreter holds the object.
    unsafe { step(object, ptr::null_mut(), ended) }
}

unsafe extern "C" fn throw(
    object: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    slot(ptr::null_mut(), |py| {
        if !(1..=3).contains(&count) {
            return Err(PyTypeError::new_err(format!("throw() takes an exception, and got {count} arguments")));
        }
        // SAFETY: the interpreter holds the object and passes so many arguments.
        let error = unsafe {
            transfer(object).close(py);
            Bound::from_borrowed_ptr(py, *args)
        };
        Err(PyErr::from_value(error))
    })
}

unsafe extern "C" fn close(object: *mut ffi::PyObject, _none: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slot(ptr::null_mut(), |py| {
        // SAFETY: the interpreter holds the object.
        unsafe { transfer(object) }.close(py);
        Ok(py.None().into_ptr())
    })
}

pub const fn method(
    name: &'static CStr,
    call: ffi::PyMethodDefPointer,
    flags: c_int,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth: call, ml_flags: flags, ml_doc: doc.as_ptr() }
}

/// Not among PyO3's bindings.
const AM_SEND: c_int = 81;

/// Makes the type, once.
pub fn class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // With these three it is a coroutine to whoever asks, and can be started as a task: `start_soon(stream.send, data)`.
    // The interpreter keeps their address.
    let methods = Box::leak(Box::new([
        method(c"send", ffi::PyMethodDefPointer { PyCFunction: send }, ffi::METH_O, c"send($self, _value, /)\n--\n\n"),
        method(
            c"throw",
            ffi::PyMethodDefPointer { PyCFunctionFast: throw },
            ffi::METH_FASTCALL,
            c"throw($self, error, _value=None, _traceback=None, /)\n--\n\n",
        ),
        method(c"close", ffi::PyMethodDefPointer { PyCFunction: close }, ffi::METH_NOARGS, c"close($self, /)\n--\n\n"),
        ffi::PyMethodDef::zeroed(),
    ]));
    let doc = c"An operation of a task on a stream: awaited once, by the task that asked for it.";
    let at = |slot: c_int, what: *mut c_void| ffi::PyType_Slot { slot, pfunc: what };
    let mut slots = [
        at(ffi::Py_tp_doc, doc.as_ptr() as *mut c_void),
        at(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        at(ffi::Py_tp_traverse, traverse as *mut c_void),
        at(ffi::Py_tp_iter, itself as *mut c_void),
        at(ffi::Py_tp_iternext, iternext as *mut c_void),
        at(ffi::Py_am_await, itself as *mut c_void),
        at(AM_SEND, am_send as *mut c_void),
        at(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        at(0, ptr::null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_GC
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
        | ffi::Py_TPFLAGS_IMMUTABLETYPE;
    let mut spec = ffi::PyType_Spec {
        name: c"manyhands._core.Transfer".as_ptr(),
        basicsize: size_of::<Object>() as c_int,
        itemsize: 0,
        flags: flags as core::ffi::c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: attached; the slots are what their names say, and the interpreter copies them.
    let class = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))? };
    // SAFETY: attached; a type, which lives as long as the process.
    STREAM.store(unsafe { (*StreamCore::type_object_raw(py)).tp_basicsize }, Ordering::Relaxed);
    // ORDER: Release; pairs with the Acquire in `new`.
    TYPE.store(class.clone().into_ptr().cast(), Ordering::Release);
    Ok(class)
}
