//! The kernel's ring, as `manyhands._proactor` uses it: bytes and buffers in, operations that have ended out.
//!
//! A payload is what an operation's memory belongs to: a new `bytes` that nobody else has seen, or the export of a caller's
//! buffer, which cannot change its size or go away meanwhile. It is in the core's table, which changes in attached calls
//! only, until the kernel is done with it.

use core::time::Duration;

use manyhands_core::ring::{Cancelled, Code, Done, MAX_BYTES, Request, Ring as CoreRing, Unavailable};
use manyhands_core::slots::Token;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::{attach, errors};

/// Whose memory an operation works on.
enum Memory {
    None,
    Fresh(Py<PyAny>),
    View(View),
}

/// An export of somebody's buffer. Dropped attached.
struct View(Box<ffi::Py_buffer>);

// SAFETY: an export belongs to no thread; it is released attached.
unsafe impl Send for View {}

impl View {
    fn of(buffer: &Bound<'_, PyAny>, writable: bool) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        let flags = if writable { ffi::PyBUF_WRITABLE } else { ffi::PyBUF_SIMPLE };
        // SAFETY: attached; on failure nothing is exported, and an exception is set.
        if unsafe { ffi::PyObject_GetBuffer(buffer.as_ptr(), &mut *view, flags) } != 0 {
            return Err(PyErr::fetch(buffer.py()));
        }
        Ok(Self(view))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: exported by `of`, released once, attached: payloads are dropped in attached calls only.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) };
    }
}

/// What the ring carries: the operation, and its memory.
struct Payload {
    operation: Py<PyAny>,
    memory: Memory,
}

/// The operation, the number of bytes or minus the number of the error, and the bytes that were read.
type Ended = (Py<PyAny>, i64, Option<Py<PyAny>>);

/// Operations on files that the kernel does by itself. For `manyhands._proactor` only.
///
/// Args:
///     depth: How many are in the kernel's ring at a time; the others wait.
///
/// Raises:
///     OSError: the kernel has no ring for this process.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Ring {
    ring: CoreRing<Payload>,
}

#[pymethods]
impl Ring {
    #[new]
    #[pyo3(signature = (depth = 64))]
    fn new(depth: u32) -> PyResult<Self> {
        match CoreRing::open(depth) {
            Ok(ring) => Ok(Self { ring }),
            Err(why) => {
                let errno = match why {
                    Unavailable::Refused(_, errno) => errno,
                    Unavailable::Missing(_) => ENOSYS,
                };
                Err(PyOSError::new_err((errno, why.to_string())))
            }
        }
    }

    /// The descriptor that is readable when there is something to reap.
    #[getter]
    fn signal(&self) -> i32 {
        self.ring.signal()
    }

    /// How many have not ended.
    #[getter]
    fn pending(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.own(py)?.pending())
    }

    /// Read at most `size` bytes, from `offset`, into a new `bytes`. Returns a number for `cancel`.
    fn read(&self, operation: Bound<'_, PyAny>, fd: i32, size: usize, offset: u64) -> PyResult<u64> {
        let py = operation.py();
        let bytes = fit("size", size)?;
        // SAFETY: attached; a new object with room for so many bytes, or null with an exception set.
        let fresh = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(core::ptr::null(), size as isize))
        }?;
        // SAFETY: it is a bytes object.
        let address = unsafe { ffi::PyBytes_AsString(fresh.as_ptr()) } as usize;
        let request = Request { code: Code::Read, fd, address, bytes, offset };
        self.start(operation, request, Memory::Fresh(fresh.unbind()))
    }

    /// Read from `offset` into a buffer, as much as it holds.
    fn read_into(&self, operation: Bound<'_, PyAny>, fd: i32, buffer: Bound<'_, PyAny>, offset: u64) -> PyResult<u64> {
        self.start_on(operation, Code::Read, fd, &buffer, offset)
    }

    /// Write a buffer at `offset`.
    fn write(&self, operation: Bound<'_, PyAny>, fd: i32, buffer: Bound<'_, PyAny>, offset: u64) -> PyResult<u64> {
        self.start_on(operation, Code::Write, fd, &buffer, offset)
    }

    /// Have what was written on the medium.
    fn fsync(&self, operation: Bound<'_, PyAny>, fd: i32) -> PyResult<u64> {
        self.start(operation, Request { code: Code::Sync, fd, address: 0, bytes: 0, offset: 0 }, Memory::None)
    }

    /// Ask for the end of an operation. If it never began it is returned; else its completion says who was first.
    fn cancel(&self, py: Python<'_>, token: u64) -> PyResult<Option<Ended>> {
        match self.own(py)?.cancel(Token(token)) {
            Cancelled::Gone => Ok(None),
            Cancelled::Back(done) => ended(py, done).map(Some),
            Cancelled::Asked => {
                self.flush(py);
                Ok(None)
            }
        }
    }

    /// Ask for the end of every operation of a descriptor. Returns those that never began.
    fn cancel_descriptor(&self, py: Python<'_>, fd: i32) -> PyResult<Vec<Ended>> {
        let back = self.own(py)?.cancel_descriptor(fd);
        self.flush(py);
        back.into_iter().map(|done| ended(py, done)).collect()
    }

    /// Take out what has ended. Never waits.
    fn reap(&self, py: Python<'_>) -> PyResult<Vec<Ended>> {
        let (done, more) = self.own(py)?.reap();
        if more {
            self.flush(py);
        }
        done.into_iter().map(|done| ended(py, done)).collect()
    }

    /// Wait, at most so many seconds, until there is something to reap.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let limit = attach::duration("seconds", seconds)?;
        let ring = self.own(py)?;
        Ok(attach::detached(py, || ring.wait(limit)))
    }

    /// Take nothing more and ask for the end of everything. Returns what never began; the rest is still to be reaped.
    fn close(&self, py: Python<'_>) -> PyResult<Vec<Ended>> {
        let back = self.own(py)?.close();
        self.flush(py);
        back.into_iter().map(|done| ended(py, done)).collect()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let mut outcome = Ok(());
        self.ring.visit(|payload| {
            if outcome.is_ok() {
                outcome = payload.traverse(&visit);
            }
        });
        outcome
    }
}

const ENOSYS: i32 = 38;

/// How long a ring that nobody closed waits for the kernel, before what is under way is given up with its memory.
const LAST: Duration = Duration::from_millis(100);

impl Ring {
    /// The ring, unless it is another process's.
    fn own(&self, py: Python<'_>) -> PyResult<&CoreRing<Payload>> {
        match self.ring.check_fork() {
            Ok(()) => Ok(&self.ring),
            Err(error) => Err(errors::raise_about(py, error, "the ring of a Proactor")),
        }
    }

    fn start_on(
        &self,
        operation: Bound<'_, PyAny>,
        code: Code,
        fd: i32,
        buffer: &Bound<'_, PyAny>,
        offset: u64,
    ) -> PyResult<u64> {
        let view = View::of(buffer, code == Code::Read)?;
        let bytes = fit("the buffer", view.0.len as usize)?;
        let request = Request { code, fd, address: view.0.buf as usize, bytes, offset };
        self.start(operation, request, Memory::View(view))
    }

    fn start(&self, operation: Bound<'_, PyAny>, request: Request, memory: Memory) -> PyResult<u64> {
        let py = operation.py();
        let ring = self.own(py)?;
        // SAFETY: the memory is a bytes object's that nobody else knows, or exported, so that it stays where it is.
        match unsafe { ring.submit(request, Payload { operation: operation.unbind(), memory }) } {
            Ok(token) => {
                self.flush(py);
                Ok(token.0)
            }
            Err(refused) => {
                drop(refused);
                Err(errors::resource(py, "ClosedResourceError", "the Proactor"))
            }
        }
    }

    fn flush(&self, py: Python<'_>) {
        attach::detached(py, || self.ring.flush());
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.ring.check_fork().is_err() || self.ring.pending() == 0 {
            return;
        }
        // Dropped by an attached thread, as every Python object.
        Python::attach(|py| {
            drop(self.ring.close());
            self.flush(py);
            let deadline = std::time::Instant::now() + LAST;
            while self.ring.pending() > 0 && std::time::Instant::now() < deadline {
                attach::detached(py, || self.ring.wait(LAST));
                drop(self.ring.reap());
                self.flush(py);
            }
        });
    }
}

impl Payload {
    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.operation)?;
        match &self.memory {
            Memory::None => Ok(()),
            Memory::Fresh(bytes) => visit.call(bytes),
            Memory::View(view) if view.0.obj.is_null() => Ok(()),
            // SAFETY: an export holds a reference to its owner; this borrows it, and does not drop it.
            Memory::View(view) => visit.call(unsafe { &*(&raw const view.0.obj).cast::<Py<PyAny>>() }),
        }
    }
}

/// What Python gets of an operation that has ended; the caller's buffer is free then.
fn ended(py: Python<'_>, done: Done<Payload>) -> PyResult<Ended> {
    let Done { payload: Payload { operation, memory }, result } = done;
    let number = result.map_or_else(|errno| -i64::from(errno), i64::from);
    let bytes = match memory {
        Memory::Fresh(bytes) if number >= 0 => Some(shrunk(py, bytes, number as isize)?),
        Memory::Fresh(_) | Memory::View(_) | Memory::None => None,
    };
    Ok((operation, number, bytes))
}

/// The bytes, as many of them as were read.
fn shrunk(py: Python<'_>, bytes: Py<PyAny>, length: isize) -> PyResult<Py<PyAny>> {
    let mut object = bytes.into_ptr();
    // SAFETY: attached; the one reference to an object that nobody else has seen. It is replaced, or null with an exception.
    unsafe {
        if ffi::PyBytes_Size(object) != length {
            ffi::_PyBytes_Resize(&mut object, length);
        }
        Ok(Bound::from_owned_ptr_or_err(py, object)?.unbind())
    }
}

/// The kernel counts in an `i32`.
fn fit(name: &str, size: usize) -> PyResult<u32> {
    if size <= MAX_BYTES {
        Ok(size as u32)
    } else {
        Err(PyValueError::new_err(format!("{name} must be at most {MAX_BYTES} bytes, and got {size}")))
    }
}
