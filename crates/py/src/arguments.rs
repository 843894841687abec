//! What users pass, turned into what the core takes; the refusals say what was expected and what came.

use manyhands_core::Events;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};

/// Refuses what cannot be called.
pub fn callable(name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_callable() {
        Ok(())
    } else {
        Err(PyTypeError::new_err(format!("{name} must be callable, and got {}", value.repr()?)))
    }
}

/// How many messages may wait in a strand.
pub fn limit(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    if value.is_instance_of::<PyBool>() || !value.is_instance_of::<PyInt>() {
        let message = format!("max_pending must be an int or None, and got {}", value.repr()?);
        return Err(PyTypeError::new_err(message));
    }
    match value.extract::<usize>() {
        Ok(limit @ 1..) => Ok(limit),
        _ => {
            Err(PyValueError::new_err(format!("max_pending must be at least 1 (None for any number), and got {value}")))
        }
    }
}

/// The events that a watch may ask for.
pub fn interest(value: &Bound<'_, PyAny>) -> PyResult<Events> {
    let bits: i64 = value.extract().map_err(|_| {
        let got = value.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string());
        PyTypeError::new_err(format!("events must be made of manyhands.Events, and got {got}"))
    })?;
    if !(0..32).contains(&bits) {
        return Err(PyValueError::new_err(format!("events must be made of manyhands.Events, and got {bits}")));
    }
    let asked = Events(bits as u32 & 7);
    if asked.is_empty() {
        return Err(PyValueError::new_err(
            "events must hold READ, WRITE or PRIORITY (HANGUP and ERROR are always reported); to hold a watch back use \
             pause()",
        ));
    }
    Ok(asked)
}

/// The number of a descriptor: an int, or what `fileno()` says.
#[pyfunction]
pub fn descriptor(source: &Bound<'_, PyAny>) -> PyResult<i32> {
    if source.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(format!(
            "fd must be a descriptor number or an object with fileno(), and got {}",
            source.repr()?
        )));
    }
    if source.is_instance_of::<PyInt>() {
        return source.extract::<i32>().map_err(|_| {
            PyValueError::new_err(format!("fd must be a descriptor number below 2**31, and got {source}"))
        });
    }
    let fileno = source.getattr("fileno").map_err(|_| match source.repr() {
        Ok(repr) => {
            PyTypeError::new_err(format!("fd must be a descriptor number or an object with fileno(), and got {repr}"))
        }
        Err(error) => error,
    })?;
    fileno.call0()?.extract()
}
