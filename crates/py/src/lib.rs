//! The seam between the core and Python: convert, attach, detach. No decisions: what a failure means, what is logged, who
//! may wait, is Python's (`manyhands._loop`).
//!
//! Rules for code here (`docs/design/seam.md`):
//! * Never wait without bound while attached: everything that waits goes through [`attach::wait`].
//! * Never call Python, or drop a Python reference, while holding a lock. Taking another reference to an object that is
//!   alive is the one thing allowed: it runs no code.
//! * Every class is frozen, with its own synchronisation, and shows the collector what it holds.
//! * A detached thread drops no Python reference: the build has no reference pool, and PyO3 aborts.

mod adding;
mod alarm;
mod arguments;
mod attach;
mod awaiting;
mod channel;
mod clock;
mod current;
mod descriptor;
mod errors;
mod event_loop;
mod frames;
mod group;
mod held;
mod http;
mod in_place;
mod inside;
mod job;
mod joining;
mod methods;
mod once;
mod payload;
mod permits;
mod points;
mod pool;
mod reading;
mod ring;
mod run;
mod scope;
mod sending;
mod sight;
mod strand;
mod stream;
mod task;
mod timer;
mod wait;
mod watch;
mod worker;

use pyo3::prelude::*;

/// The compiled part of manyhands. Private: use `manyhands`.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::alarm::{alarm_ring, alarm_wait};
    #[pymodule_export]
    use crate::arguments::descriptor;
    #[pymodule_export]
    use crate::channel::{Channel, ReceiveEnd, Receiving, SendEnd, Sending};
    #[pymodule_export]
    use crate::clock::ManualClock;
    #[pymodule_export]
    use crate::descriptor::wait_descriptor;
    #[pymodule_export]
    use crate::event_loop::LoopCore;
    #[pymodule_export]
    use crate::frames::stacks;
    #[pymodule_export]
    use crate::group::Group;
    #[pymodule_export]
    use crate::http::{PlainRequest, plain_request, plain_response};
    #[pymodule_export]
    use crate::job::JobCore;
    #[pymodule_export]
    use crate::permits::{Acquiring, Permits};
    #[pymodule_export]
    use crate::points::{
        HoldPoint, after_fork_in_child, is_lent, job_table, leave_behind, live_objects, now, point_names,
        points_compiled, set_thread_name, strand_table, task_table,
    };
    #[pymodule_export]
    use crate::pool::{PoolCore, PoolCounts, check_in, current_job, sleep_blocking};
    #[pymodule_export]
    use crate::ring::Ring;
    #[pymodule_export]
    use crate::scope::Scope;
    #[pymodule_export]
    use crate::sight::Seat;
    #[pymodule_export]
    use crate::strand::Strand;
    #[pymodule_export]
    use crate::stream::StreamCore;
    #[pymodule_export]
    use crate::task::{Task, running_task, told_to_stop};
    #[pymodule_export]
    use crate::timer::Timer;
    #[pymodule_export]
    use crate::wait::{Checkpoint, Wait};
    #[pymodule_export]
    use crate::watch::Watch;
    #[pymodule_export]
    use crate::worker::Worker;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::points::install();
        crate::http::install(module.py())?;
        module.add("Transfer", crate::stream::object::class(module.py())?)?;
        crate::stream::calls::install(module.py())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
