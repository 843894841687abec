//! What tests see and hold: named points, live objects, the table of states. And two small services of the process.

use std::time::{Duration, Instant};

use manyhands_core::pool::{JOB_TABLE, Status};
use manyhands_core::sync::{Arc, Condvar, Mutex};
use manyhands_core::task::{TASK_TABLE, TaskArrow};
use manyhands_core::{counters, points, state};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::{alarm, attach, current};

#[derive(Default)]
#[cfg_attr(not(feature = "points"), expect(dead_code, reason = "the hook reads what is to be held"))]
struct Hold {
    name: String,
    after: usize,
    reached: bool,
    released: bool,
}

struct Shared {
    state: Mutex<Hold>,
    changed: Condvar,
}

static HOLDS: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

/// Holds the next thread that comes to a named point. Use `manyhands.testing.hold`.
#[pyclass(frozen, module = "manyhands._core")]
pub struct HoldPoint {
    shared: Arc<Shared>,
}

#[pymethods]
impl HoldPoint {
    #[new]
    #[pyo3(signature = (name, after = 0))]
    fn new(name: String, after: usize) -> PyResult<Self> {
        if !points::POINTS.contains(&name.as_str()) {
            return Err(PyValueError::new_err(format!("no point is named {name:?}: see manyhands.testing.POINTS")));
        }
        if !points::COMPILED {
            return Err(PyRuntimeError::new_err(
                "this build has no points; build it with the cargo feature 'points' (make build does)",
            ));
        }
        let state = Mutex::new(Hold { name, after, ..Hold::default() });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        holds(|holds| holds.push(shared.clone()));
        Ok(Self { shared })
    }

    /// Whether a thread is, or was, held here.
    #[getter]
    fn reached(&self) -> bool {
        self.shared.lock(|hold| hold.reached)
    }

    /// Wait until a thread is held here; False after `timeout` seconds.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = attach::duration("timeout", timeout)?;
        let shared = self.shared.clone();
        attach::wait(py, Some(timeout), move |limit| shared.wait(limit, |hold| hold.reached))
    }

    /// Let the thread go, and hold no other.
    fn release(&self) {
        self.shared.lock(|hold| hold.released = true);
        self.shared.changed.notify_all();
        holds(|holds| holds.retain(|other| !Arc::ptr_eq(other, &self.shared)));
    }
}

impl Shared {
    fn lock<R>(&self, look: impl FnOnce(&mut Hold) -> R) -> R {
        look(&mut self.state.lock())
    }

    fn wait(&self, limit: Option<Duration>, settled: impl Fn(&Hold) -> bool) -> bool {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut hold = self.state.lock();
        while !settled(&hold) {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            hold = self.changed.wait(hold, left);
        }
        true
    }
}

fn holds<R>(change: impl FnOnce(&mut Vec<Arc<Shared>>) -> R) -> R {
    let mut holds = HOLDS.lock();
    let result = change(&mut holds);
    #[cfg(feature = "points")]
    points::arm(!holds.is_empty());
    result
}

/// Called by the core at every point while one is held, attached or detached, under no lock.
#[cfg(feature = "points")]
fn hook(name: &'static str) {
    let held = holds(|holds| {
        holds.iter().find(|shared| shared.lock(|hold| hold.name == name && !hold.reached && take(hold))).cloned()
    });
    let Some(held) = held else { return };
    held.changed.notify_all();
    // SAFETY: asks only whether this thread is attached.
    let attached = unsafe { pyo3::ffi::PyGILState_Check() == 1 };
    if attached {
        // SAFETY: it is.
        let py = unsafe { Python::assume_attached() };
        py.detach(|| held.wait(None, |hold| hold.released));
    } else {
        held.wait(None, |hold| hold.released);
    }
}

#[cfg(feature = "points")]
fn take(hold: &mut Hold) -> bool {
    if hold.after > 0 {
        hold.after -= 1;
        return false;
    }
    hold.reached = true;
    true
}

/// Installs the hook of the points, in builds that have them.
pub fn install() {
    #[cfg(feature = "points")]
    points::install(hook);
}

/// The name of every point.
#[pyfunction]
pub fn point_names() -> Vec<&'static str> {
    points::POINTS.to_vec()
}

/// Whether this build has points.
#[pyfunction]
pub fn points_compiled() -> bool {
    points::COMPILED
}

/// How many of each kind of object of the core are alive.
#[pyfunction]
pub fn live_objects() -> Vec<(&'static str, i64)> {
    counters::KINDS.iter().map(|(kind, name)| (*name, counters::live(*kind))).collect()
}

/// The arrows of a strand's word: (verb, from, to, when, who).
#[pyfunction]
pub fn strand_table() -> Vec<(&'static str, String, String, &'static str, &'static str)> {
    let row = |arrow: &state::Arrow| {
        (arrow.verb, format!("{:?}", arrow.from), format!("{:?}", arrow.to), arrow.when, arrow.who)
    };
    state::STRAND_TABLE.iter().map(row).collect()
}

/// The arrows of a job's life: (verb, from, to, when, who).
#[pyfunction]
pub fn job_table() -> Vec<(&'static str, String, String, &'static str, &'static str)> {
    let name = |status: Status| format!("{status:?}").to_uppercase();
    JOB_TABLE.iter().map(|arrow| (arrow.verb, name(arrow.from), name(arrow.to), arrow.when, arrow.who)).collect()
}

/// The arrows of a task's word: (verb, from, to, when, who).
#[pyfunction]
pub fn task_table() -> Vec<(&'static str, String, String, &'static str, &'static str)> {
    let row =
        |arrow: &TaskArrow| (arrow.verb, format!("{:?}", arrow.from), format!("{:?}", arrow.to), arrow.when, arrow.who);
    TASK_TABLE.iter().map(row).collect()
}

/// Seconds, monotonic: the clock of deadlines. Its zero means nothing.
#[pyfunction]
pub fn now() -> f64 {
    manyhands_core::clock::monotonic() as f64 / 1e9
}

/// Whether the calling thread is inside a `join()` or `run_ready()`.
#[pyfunction]
pub fn is_lent() -> bool {
    attach::lent()
}

/// To be called last, on the main thread: no other thread comes back from a wait of ours any more.
#[pyfunction]
pub fn leave_behind() {
    attach::leave_behind();
}

/// To be called once in a forked child, before anything else of the library.
#[pyfunction]
pub fn after_fork_in_child() {
    manyhands_core::fork::after_fork_in_child();
    attach::forget_lent();
    attach::forget_last();
    current::forget();
    alarm::forget();
}

/// Give the calling thread a name that the kernel shows (15 bytes are kept).
#[pyfunction]
pub fn set_thread_name(name: &str) {
    let mut bytes: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    bytes.push(0);
    // SAFETY: PR_SET_NAME (15) reads a string that ends within 16 bytes; other arguments are ignored.
    unsafe { prctl(15, bytes.as_ptr() as usize, 0, 0, 0) };
}

unsafe extern "C" {
    fn prctl(option: i32, two: usize, three: usize, four: usize, five: usize) -> i32;
}
