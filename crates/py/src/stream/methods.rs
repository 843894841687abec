//! What Python sees of a stream's compiled half, but for `receive` and `send`: see `calls`.

use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use manyhands_core::socket::Direction;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::io::Errno;

use super::export::Export;
use super::transfer::{Act, Transfer};
use super::{CUT, SENT_END, StreamCore, WRITING, object, system_error};
use crate::errors;
use crate::event_loop::LoopCore;
use crate::reading::{Unread, Want};

pub fn transfer(stream: &Bound<'_, StreamCore>, act: Act) -> PyResult<Py<PyAny>> {
    object::new(stream.py(), Transfer::new(stream.clone(), act))
}

#[pymethods]
impl StreamCore {
    #[new]
    #[pyo3(signature = (owner, fd, tcp=true, tried=true, owned=true))]
    fn new(owner: &Bound<'_, LoopCore>, fd: i32, tcp: bool, tried: bool, owned: bool) -> PyResult<Self> {
        let core = owner.get().open_core()?.clone();
        let about = errors::About { name: owner.get().name(), fd, ..errors::About::default() };
        let opened = core.socket(fd, tcp, tried);
        let (socket, displaced) = opened.map_err(|error| errors::raise(owner.py(), error, &about))?;
        if let Some(finished) = displaced {
            LoopCore::pay(owner, finished);
        }
        if !owned {
            socket.leave_number();
        }
        Ok(Self {
            socket,
            busy: AtomicU8::new(0),
            ended: AtomicU8::new(0),
            failed: AtomicI32::new(0),
            unread: Unread::default(),
        })
    }

    /// The descriptor's number.
    fn fileno(&self) -> i32 {
        if self.socket.closed() { -1 } else { self.socket.fd() }
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.socket.closed()
    }

    /// Read exactly so many bytes.
    ///
    /// Raises:
    ///     IncompleteRead: the peer has sent its last byte before; `partial` has what came.
    ///     Otherwise as `receive`; what was read of it when the task was cancelled is read again by the next.
    fn receive_exactly(slf: &Bound<'_, Self>, count: isize) -> PyResult<Py<PyAny>> {
        let count = positive("count", count)?;
        transfer(slf, Act::Receive(Want::exactly(slf.py(), count)?))
    }

    /// Read up to and with a delimiter, at most `max_bytes`.
    ///
    /// Raises:
    ///     IncompleteRead: the peer has sent its last byte before. DelimiterNotFound: it is not among the first
    ///     `max_bytes`; they are read by the next call.
    ///     Otherwise as `receive_exactly`.
    #[pyo3(signature = (delimiter, max_bytes=65536))]
    fn receive_until(slf: &Bound<'_, Self>, delimiter: &Bound<'_, PyBytes>, max_bytes: isize) -> PyResult<Py<PyAny>> {
        if delimiter.as_bytes().is_empty() {
            return Err(PyValueError::new_err("delimiter must have at least one byte"));
        }
        let max = positive("max_bytes", max_bytes)?;
        transfer(slf, Act::Receive(Want::until(delimiter.as_bytes().to_vec(), max)))
    }

    /// Read what there is into a writable buffer; how many bytes.
    ///
    /// Raises:
    ///     As `receive`.
    fn receive_into(slf: &Bound<'_, Self>, buffer: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let export = Export::new(buffer, true)?;
        if export.bytes(slf.py()).is_empty() {
            return Err(PyValueError::new_err("buffer must have room for at least one byte"));
        }
        transfer(slf, Act::Receive(Want::Into(export)))
    }

    /// Write what the kernel takes of a buffer at once, at least one byte; how many.
    ///
    /// Raises:
    ///     As `send`; nothing was sent then.
    fn send_some(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        transfer(slf, Act::SendSome(Export::new(data, false)?))
    }

    /// Take a connection off a listening socket: its descriptor, non-blocking.
    fn accept(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        transfer(slf, Act::Accept)
    }

    /// Wait until there is something to read or to write; spurious returns are possible.
    fn wait_ready(slf: &Bound<'_, Self>, write: bool) -> PyResult<Py<PyAny>> {
        transfer(slf, Act::Ready(if write { Direction::Write } else { Direction::Read }))
    }

    /// Tell the peer that no more comes; it may go on sending.
    ///
    /// Raises:
    ///     BusyResourceError: a task sends to it. ClosedResourceError, BrokenResourceError: as `send`.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        self.check_open(py)?;
        self.begin(py, WRITING)?;
        if self.ended.load(Ordering::Relaxed) & CUT != 0 {
            // A proper end would tell the peer that this was all.
            self.end(WRITING);
            return self.check_sending(py);
        }
        let result = match self.socket.lease() {
            None => Err(self.gone(py)),
            Some(lease) => match rustix::net::shutdown(lease.fd(), rustix::net::Shutdown::Write) {
                // The peer has gone already: there is nobody to tell.
                Ok(()) | Err(Errno::NOTCONN) => Ok(()),
                Err(errno) => Err(self.broken(py, errno)),
            },
        };
        if result.is_ok() {
            self.ended.fetch_or(SENT_END, Ordering::Relaxed);
        }
        self.end(WRITING);
        result
    }

    /// Close the descriptor; who waits for it gets ClosedResourceError. True the first time.
    fn close(&self, py: Python<'_>) -> bool {
        // The last of a connection may take the kernel a while.
        py.detach(|| self.socket.close())
    }

    /// Bytes that were read and not yet asked for.
    #[getter]
    fn buffered(&self) -> usize {
        self.unread.len()
    }

    /// Whether this is a forked child, and it was made in the parent.
    #[getter]
    fn inherited(&self) -> bool {
        self.socket.inherited()
    }

    /// A duplicate of the descriptor, which the caller closes.
    ///
    /// Raises:
    ///     ClosedResourceError: it was closed here. OSError: there is no descriptor left.
    fn duplicate(&self, py: Python<'_>) -> PyResult<i32> {
        let lease = self.leased(py)?;
        let made = rustix::io::fcntl_dupfd_cloexec(lease.fd(), 0);
        made.map(IntoRawFd::into_raw_fd).map_err(|errno| system_error(py, errno))
    }

    /// The error that is pending on it, and 0 for none; it is not pending then.
    fn take_error(&self, py: Python<'_>) -> PyResult<i32> {
        let lease = self.leased(py)?;
        match rustix::net::sockopt::socket_error(lease.fd()) {
            Ok(Ok(())) => Ok(0),
            Ok(Err(errno)) | Err(errno) => Ok(errno.raw_os_error()),
        }
    }

    /// Take the connections that wait at a listening socket, and close them: how many there were.
    fn shed(&self, py: Python<'_>) -> PyResult<usize> {
        let lease = self.leased(py)?;
        let mut closed = 0;
        while closed < MOST_SHED && rustix::net::accept(lease.fd()).is_ok() {
            closed += 1;
        }
        Ok(closed)
    }
}

/// Connections that are closed in one go when there is no descriptor for them.
const MOST_SHED: usize = 1024;

/// A count that a user gave.
pub fn positive(name: &str, count: isize) -> PyResult<usize> {
    match usize::try_from(count) {
        Ok(count @ 1..) => Ok(count),
        _ => Err(PyValueError::new_err(format!("{name} must be at least 1, and got {count}"))),
    }
}
