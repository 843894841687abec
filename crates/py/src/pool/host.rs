//! How a pool's threads come to be.

use std::sync::{Arc, OnceLock};

use manyhands_core::pool::{Host, Lane};
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use super::{CorePool, PoolCore};
use crate::alarm;

/// Starts threads by `ThreadPool._start_thread`, which takes no lock of Python's in the calling thread.
pub(super) struct PythonHost {
    pub(super) pool: OnceLock<Py<PyWeakrefReference>>,
    pub(super) core: OnceLock<std::sync::Weak<CorePool>>,
}

/// Made before the pool that it serves.
pub(super) struct SharedHost(pub(super) Arc<PythonHost>);

impl Host for SharedHost {
    fn start_thread(&self, lane: Lane) {
        // None once the interpreter finalises: then nobody needs a thread any more.
        let started = Python::try_attach(|py| {
            let pool = self.0.pool.get().and_then(|pool| pool.bind(py).upgrade());
            let Some(pool) = pool.and_then(|pool| pool.cast_into::<PoolCore>().ok()) else { return false };
            PoolCore::start_thread(&pool, lane);
            true
        });
        if started != Some(true)
            && let Some(core) = self.0.core.get().and_then(std::sync::Weak::upgrade)
        {
            core.start_failed(lane);
        }
    }

    fn expires_sooner(&self) {
        alarm::ring();
    }
}
