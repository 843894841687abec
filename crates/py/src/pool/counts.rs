//! What a pool shows of itself.

use pyo3::prelude::*;

use crate::job::JobCore;

pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Counts of a pool.
#[pyclass(frozen, get_all, module = "manyhands._core")]
pub struct PoolCounts {
    pub(super) threads: usize,
    pub(super) busy: usize,
    pub(super) queued: usize,
    pub(super) oldest_wait: Option<f64>,
    pub(super) submitted: u64,
    pub(super) refused: u64,
    pub(super) running: usize,
    pub(super) syncing_held: usize,
    pub(super) syncing_parked: usize,
    pub(super) stopping: usize,
    pub(super) finished: u64,
    pub(super) stopped: u64,
    pub(super) done: usize,
    pub(super) dropped: u64,
    pub(super) wait_times: Vec<u64>,
    pub(super) run_times: Vec<u64>,
}

/// A job, its status, its age in seconds.
pub(super) type View = (Py<JobCore>, Py<PyAny>, f64);
