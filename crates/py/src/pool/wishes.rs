//! What a user wishes for a job: the options of `enqueue`.

use manyhands_core::owned::Owner;
use manyhands_core::pool::Traits;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyString};

use super::PoolCore;
use crate::arguments::callable;
use crate::job::Owned;
use crate::strand::Strand;
use crate::watch::Watch;
use crate::{attach, in_place};

/// Everything that `enqueue` takes besides the function and its arguments.
#[derive(Default)]
pub(super) struct Wishes<'py> {
    pub(super) owner: Option<Bound<'py, PyAny>>,
    pub(super) name: Option<Bound<'py, PyAny>>,
    pub(super) user: Option<Bound<'py, PyAny>>,
    pub(super) cleanup: Option<Bound<'py, PyAny>>,
    pub(super) on_sync: Option<Bound<'py, PyAny>>,
    pub(super) on_done: Option<Bound<'py, PyAny>>,
    pub(super) traits: Traits,
}

impl PoolCore {
    /// Reads what a user wishes for a job; what cannot be is refused before anything is made.
    pub(super) fn wishes<'py>(
        function: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
        steps: bool,
    ) -> PyResult<Wishes<'py>> {
        callable("function", function)?;
        let mut wishes = Wishes { traits: Traits { steps, ..Traits::default() }, ..Wishes::default() };
        let mut keep = None;
        for (key, value) in options.into_iter().flat_map(|options| options.iter()) {
            let key = key.cast_into::<PyString>()?;
            let key = key.to_str()?;
            let given = || (!value.is_none()).then(|| value.clone());
            match key {
                "owner" => wishes.owner = given(),
                "name" => match given() {
                    Some(name) if !name.is_instance_of::<PyString>() => {
                        return Err(PyTypeError::new_err(format!("name must be a str, and got {}", name.repr()?)));
                    }
                    name => wishes.name = name,
                },
                "user" => wishes.user = given(),
                "cleanup" => wishes.cleanup = checked(key, given())?,
                "on_sync" => wishes.on_sync = checked(key, given())?,
                "on_done" => wishes.on_done = checked(key, given())?,
                "deadline" => wishes.traits.deadline = deadline(given())?,
                "priority" => wishes.traits.priority = priority(&value)?,
                "outlive" => wishes.traits.outlive = value.is_truthy()?,
                "slow" => wishes.traits.slow = value.is_truthy()?,
                "in_place" => wishes.traits.in_place = if value.is_truthy()? { in_place::serves() } else { 0 },
                "keep" => keep = given().map(|keep| keep.is_truthy()).transpose()?,
                _ => {
                    return Err(PyTypeError::new_err(format!(
                        "a job has no option {key:?}; to pass a keyword to the function use functools.partial or \
                         submit()"
                    )));
                }
            }
        }
        wishes.traits.keep = keep.unwrap_or(wishes.owner.is_some());
        if wishes.owner.is_none() {
            if wishes.on_done.is_some() {
                return Err(PyValueError::new_err(
                    "on_done runs on the owner's strand: pass owner=, or use add_done_callback()",
                ));
            }
            if wishes.traits.outlive {
                return Err(PyValueError::new_err("outlive=True is for a job with an owner: pass owner="));
            }
        }
        Ok(wishes)
    }

    /// Who a job is to belong to.
    pub(super) fn owned(owner: Bound<'_, PyAny>) -> PyResult<Owned> {
        let py = owner.py();
        let strand = match owner.cast::<Watch>() {
            Ok(watch) => {
                let this = watch.get();
                let event_loop = this.owner.clone_ref(py);
                let core = Owner::Watch(this.watch.clone());
                return Ok(Owned { object: owner.unbind(), owner: core, event_loop });
            }
            Err(_) => match owner.cast::<Strand>() {
                Ok(strand) => strand.clone(),
                Err(_) => owner
                    .getattr("strand")
                    .ok()
                    .and_then(|strand| strand.cast_into::<Strand>().ok())
                    .ok_or_else(|| match owner.repr() {
                        Ok(repr) => PyTypeError::new_err(format!("owner must be a Watch or a Strand, and got {repr}")),
                        Err(error) => error,
                    })?,
            },
        };
        let this = strand.get();
        let (event_loop, core) = (this.owner.clone_ref(py), Owner::Strand(this.strand.clone()));
        Ok(Owned { object: owner.unbind(), owner: core, event_loop })
    }
}

fn checked<'py>(name: &str, callback: Option<Bound<'py, PyAny>>) -> PyResult<Option<Bound<'py, PyAny>>> {
    callback.iter().try_for_each(|callback| callable(name, callback))?;
    Ok(callback)
}

fn deadline(value: Option<Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    let seconds: f64 = value.extract().map_err(|_| {
        PyTypeError::new_err(format!(
            "deadline must be a point in time on manyhands.now(), in seconds, and got {value:?}"
        ))
    })?;
    if seconds == f64::INFINITY {
        return Ok(None);
    }
    attach::nanoseconds("deadline", seconds).map(Some)
}

fn priority(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    if value.is_instance_of::<PyBool>() || !value.is_instance_of::<PyInt>() {
        return Err(PyTypeError::new_err(format!(
            "priority must be an int, the higher the sooner, and got {}",
            value.repr()?
        )));
    }
    value.extract().map_err(|_| PyValueError::new_err(format!("priority must fit 32 bits, and got {value}")))
}
