//! The stacks of threads that may be running.
//!
//! With the GIL nobody runs while a stack is read. Without it the threads go on: a frame that is walked may be over and its
//! place taken by another, and what is read is no frame. So the walk is made while every thread stands still. The one public
//! way to that is `PyUnstable_GC_VisitObjects` (CPython 3.12 and later), which stops them for as long as its visitor is called; the
//! walk is the visit of the first object, and there is no second. A frame that was over before is a frame all the same: whoever
//! holds a reference to it has the last state of it.

use core::ffi::c_int;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// The code of a frame, and the line that it is at.
type Place = (Py<PyAny>, i32);

/// What is walked, and what was found. Nothing is given back before the others go on: that could run code.
struct Walk {
    /// Those that the stacks end in.
    last: Vec<*mut ffi::PyFrameObject>,
    most: usize,
    stacks: Vec<Vec<(*mut ffi::PyCodeObject, c_int)>>,
    held: Vec<*mut ffi::PyFrameObject>,
}

impl Walk {
    fn new(last: Vec<*mut ffi::PyFrameObject>, most: usize) -> Self {
        let stacks = last.iter().map(|_| Vec::with_capacity(most)).collect();
        let held = Vec::with_capacity(last.len() * most);
        Self { last, most, stacks, held }
    }

    /// # Safety
    ///
    /// Attached, `last` are frames that are alive, and nobody runs Python code but this thread.
    unsafe fn walk(&mut self) {
        for (last, stack) in self.last.iter().zip(&mut self.stacks) {
            let mut frame = *last;
            while !frame.is_null() && stack.len() < self.most {
                // SAFETY: the frame is alive: it is one of `last`, or held.
                unsafe {
                    stack.push((ffi::PyFrame_GetCode(frame), ffi::PyFrame_GetLineNumber(frame)));
                    frame = ffi::PyFrame_GetBack(frame);
                }
                if !frame.is_null() {
                    self.held.push(frame);
                }
            }
        }
    }
}

#[cfg(Py_GIL_DISABLED)]
fn walk_all(walk: &mut Walk) {
    use core::ffi::c_void;

    unsafe extern "C" {
        fn PyUnstable_GC_VisitObjects(
            visitor: unsafe extern "C" fn(*mut ffi::PyObject, *mut c_void) -> c_int,
            argument: *mut c_void,
        );
    }

    unsafe extern "C" fn visit(_: *mut ffi::PyObject, walk: *mut c_void) -> c_int {
        // SAFETY: it is the walk below, and every other thread stands still.
        unsafe { (*walk.cast::<Walk>()).walk() };
        0
    }

    // SAFETY: attached; the visitor is called within the call.
    unsafe { PyUnstable_GC_VisitObjects(visit, core::ptr::from_mut(walk).cast()) };
}

#[cfg(not(Py_GIL_DISABLED))]
fn walk_all(walk: &mut Walk) {
    // SAFETY: attached. CPython 3.11 may collect when a frame gets its object, and others would run in what that calls: not so
    // with the collector off.
    unsafe {
        let collects = ffi::PyGC_Disable();
        walk.walk();
        if collects != 0 {
            ffi::PyGC_Enable();
        }
    }
}

/// The stacks that end in these frames: of each, code and line, the innermost first, and no more than so many.
#[pyfunction]
pub fn stacks(py: Python<'_>, frames: &Bound<'_, PyList>, most: usize) -> PyResult<Vec<Vec<Place>>> {
    let frame_type = &raw mut ffi::PyFrame_Type;
    let mut last = Vec::with_capacity(frames.len());
    for frame in frames {
        // SAFETY: attached; the check reads the type only.
        if unsafe { ffi::PyObject_TypeCheck(frame.as_ptr(), frame_type) } == 0 {
            return Err(pyo3::exceptions::PyTypeError::new_err("stacks() takes frames"));
        }
        last.push(frame.as_ptr().cast());
    }
    let mut walk = Walk::new(last, most);
    walk_all(&mut walk);
    // SAFETY: attached; what ran out of memory has ended its stack.
    unsafe { ffi::PyErr_Clear() };
    for frame in walk.held {
        // SAFETY: the walk has taken the reference.
        drop(unsafe { Bound::from_owned_ptr(py, frame.cast()) });
    }
    let place = |(code, line): (*mut ffi::PyCodeObject, c_int)| {
        // SAFETY: the walk has taken the reference.
        (unsafe { Bound::from_owned_ptr(py, code.cast()) }.unbind(), line)
    };
    Ok(walk.stacks.into_iter().map(|stack| stack.into_iter().map(place).collect()).collect())
}
