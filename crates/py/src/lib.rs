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
mod arguments;
mod attach;
mod clock;
mod errors;
mod event_loop;
mod joining;
mod methods;
mod payload;
mod points;
mod run;
mod sending;
mod sight;
mod strand;
mod timer;
mod watch;

use pyo3::prelude::*;

/// The compiled part of manyhands. Private: use `manyhands`.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::clock::ManualClock;
    #[pymodule_export]
    use crate::event_loop::LoopCore;
    #[pymodule_export]
    use crate::points::{
        HoldPoint, after_fork_in_child, is_lent, live_objects, point_names, points_compiled, set_thread_name,
        strand_table,
    };
    #[pymodule_export]
    use crate::sight::Seat;
    #[pymodule_export]
    use crate::strand::Strand;
    #[pymodule_export]
    use crate::timer::Timer;
    #[pymodule_export]
    use crate::watch::Watch;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::points::install();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
