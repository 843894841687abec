//! How a pool's threads come to be.

use std::sync::{Arc, OnceLock, Weak};

use manyhands_core::pool::{Host, Lane};
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use super::{CorePool, PoolCore};
use crate::alarm;
use crate::event_loop::Core;
use crate::payload::Carried;

/// Starts threads by `ThreadPool._start_thread`, which takes no lock of Python's in the calling thread.
pub(super) struct PythonHost {
    pub(super) pool: OnceLock<Py<PyWeakrefReference>>,
    pub(super) core: OnceLock<Weak<CorePool>>,
    /// The loop whose threads run the jobs that were enqueued for them.
    pub(super) home: OnceLock<Weak<Core>>,
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
            && let Some(core) = self.0.core.get().and_then(Weak::upgrade)
        {
            core.start_failed(lane);
        }
    }

    fn send_for_thread(&self) -> bool {
        let home = self.0.home.get().and_then(Weak::upgrade);
        let Some((home, pool)) = home.zip(self.0.core.get().and_then(Weak::upgrade)) else { return false };
        // None once the interpreter finalises: then nobody needs a thread any more.
        Python::try_attach(|_| home.send_for(Carried::Pool(pool.clone()), &*pool, pool.options().threads).is_ok())
            .unwrap_or(false)
    }

    fn expires_sooner(&self) {
        alarm::ring();
    }
}
