//! The job that the calling thread runs.

use core::cell::Cell;

use manyhands_core::pool::Job;
use pyo3::prelude::*;

use crate::job::JobCore;

thread_local! {
    /// The core's half, for a check-in that costs nothing; null outside a job.
    static JOB: Cell<*const Job> = const { Cell::new(core::ptr::null()) };
    /// Python's half, borrowed: whoever put it here holds it until `Inside` is dropped or left.
    static OBJECT: Cell<*mut pyo3::ffi::PyObject> = const { Cell::new(core::ptr::null_mut()) };
    /// Whether the thread holds a slot of the job's pool.
    static SLOT: Cell<bool> = const { Cell::new(false) };
}

/// What the thread ran before it began the job.
#[derive(Clone, Copy)]
pub struct Before {
    job: *const Job,
    object: *mut pyo3::ffi::PyObject,
    slot: bool,
}

// SAFETY: the pointers are only given back to the thread-locals of the thread that they came from.
unsafe impl Send for Before {}

/// The thread is inside this job until [`leave`]; the caller holds the object meanwhile.
pub fn enter(job: &Bound<'_, JobCore>, slot: bool) -> Before {
    Before {
        job: JOB.replace(core::ptr::from_ref(&**job.get().job())),
        object: OBJECT.replace(job.as_ptr()),
        slot: SLOT.replace(slot),
    }
}

/// The thread is outside again.
pub fn leave(before: Before) {
    JOB.set(before.job);
    OBJECT.set(before.object);
    SLOT.set(before.slot);
}

/// In a forked child: no job runs there.
pub fn forget() {
    leave(Before { job: core::ptr::null(), object: core::ptr::null_mut(), slot: false });
}

/// Whether the thread's job has to stop now.
#[inline]
pub fn told() -> bool {
    // SAFETY: null, or a job that `enter` was called with and that is held until `leave`.
    JOB.try_with(Cell::get).is_ok_and(|job| unsafe { job.as_ref() }.is_some_and(Job::check_in))
}

/// Whether the thread runs this job.
pub fn runs(job: &Job) -> bool {
    core::ptr::eq(JOB.get(), job)
}

/// Whether the thread holds a slot of its job's pool.
pub fn holds_slot() -> bool {
    SLOT.get()
}

/// The job that the thread runs.
pub fn job(py: Python<'_>) -> Option<Bound<'_, JobCore>> {
    let object = OBJECT.try_with(Cell::get).unwrap_or(core::ptr::null_mut());
    // SAFETY: null, or the object that `enter` was called with, which is held until `leave`.
    let object = unsafe { Bound::from_borrowed_ptr_or_opt(py, object) }?;
    object.cast_into().ok()
}
