//! What a thread that serves a loop keeps to use again: objects of operations, and the bytes that it gave last.

use core::cell::Cell;
use core::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// How many objects a thread keeps. A task has two at a time, one in its hand and one that is going.
const KEPT: usize = 8;

/// Smaller ones are made and freed in no time; larger ones would be much to keep.
const BYTES: core::ops::RangeInclusive<usize> = 513..=65536;

/// Whether one thread at a time touches objects, so that a count of references is true.
const WITH_GIL: bool = size_of::<ffi::PyObject>() == 2 * size_of::<usize>();

thread_local! {
    static SPARE: Spare = const {
        Spare {
            open: Cell::new(false),
            count: Cell::new(0),
            objects: [const { Cell::new(ptr::null_mut()) }; KEPT],
            bytes: Cell::new(ptr::null_mut()),
        }
    };
}

struct Spare {
    open: Cell<bool>,
    count: Cell<usize>,
    /// Without content, on no list of the collector's.
    objects: [Cell<*mut ffi::PyObject>; KEPT],
    /// The bytes object that was given last, or null; a reference of ours.
    bytes: Cell<*mut ffi::PyObject>,
}

/// A spare object.
pub fn take() -> Option<*mut ffi::PyObject> {
    SPARE.with(|spare| {
        let left = spare.count.get().checked_sub(1)?;
        spare.count.set(left);
        Some(spare.objects[left].get())
    })
}

/// Keeps an object that has no content any more, if there is room.
pub fn keep(object: *mut ffi::PyObject) -> bool {
    SPARE.with(|spare| {
        let count = spare.count.get();
        let room = spare.open.get() && count < KEPT;
        if room {
            spare.objects[count].set(object);
            spare.count.set(count + 1);
        }
        room
    })
}

/// A bytes object with this content.
///
/// A server is done with a message when the next one comes. If nobody but this thread has the bytes that it gave last,
/// and they are as many, then they are filled anew: to allocate and free them costs as much as all else that is done here.
pub fn bytes<'py>(py: Python<'py>, content: &[u8]) -> Bound<'py, PyBytes> {
    if !WITH_GIL || !BYTES.contains(&content.len()) {
        return PyBytes::new(py, content);
    }
    SPARE.with(|spare| {
        if !spare.open.get() {
            return PyBytes::new(py, content);
        }
        let last = spare.bytes.get();
        // SAFETY: attached, and `last` is null or a bytes object that is held here.
        let again =
            !last.is_null() && unsafe { ffi::Py_REFCNT(last) == 1 && ffi::Py_SIZE(last) as usize == content.len() };
        if again {
            // SAFETY: as above. Nobody else has it, and the interpreter's lock is held, so nobody sees it change. It has
            // room for as many bytes, and its hash, if somebody asked for it, is forgotten.
            unsafe {
                #[allow(deprecated, reason = "there is no other way to forget the hash")]
                (&raw mut (*last.cast::<ffi::PyBytesObject>()).ob_shash).write(-1);
                let memory = (&raw mut (*last.cast::<ffi::PyBytesObject>()).ob_sval).cast::<u8>();
                ptr::copy_nonoverlapping(content.as_ptr(), memory, content.len());
                return Bound::from_borrowed_ptr(py, last).cast_into_unchecked();
            }
        }
        let bytes = PyBytes::new(py, content);
        spare.bytes.set(bytes.clone().into_ptr());
        // SAFETY: attached; the reference was ours. The end of bytes runs nobody's code.
        unsafe { ffi::Py_XDECREF(last) };
        bytes
    })
}

/// While there is one, the calling thread keeps what is spare. Made and dropped attached.
pub struct Keeping(());

impl Keeping {
    pub fn begin() -> Self {
        SPARE.with(|spare| spare.open.set(true));
        Self(())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        SPARE.with(|spare| spare.open.set(false));
        while let Some(object) = take() {
            // SAFETY: attached; the object has no content and is on no list.
            unsafe { ffi::PyObject_GC_Del(object.cast()) };
        }
        let last = SPARE.with(|spare| spare.bytes.replace(ptr::null_mut()));
        // SAFETY: attached; the reference was ours.
        unsafe { ffi::Py_XDECREF(last) };
    }
}
