//! A stream's compiled half: awaitables that read and write a socket of the core.
//!
//! A step tries the system call if the cached readiness says that it may find something, attached: on a descriptor that
//! does not block a call takes a microsecond or two, and to detach and attach costs as much. What is not there is waited
//! for by the task's word and the socket's ticket, and tried again. One reader and one writer at a time.

pub mod calls;
pub mod export;
mod methods;
pub mod object;
pub mod spare;
mod transfer;

use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use manyhands_core::socket::{Direction, Lease, Notified};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::errors;
use crate::event_loop::LoopCore;
use crate::payload::Carried;
use crate::reading::Unread;

pub type CoreSocket = manyhands_core::Socket<Carried>;

const READING: u8 = 1;
const WRITING: u8 = 2;

/// The compiled half of `manyhands.SocketStream` and of a listener: a descriptor that tasks read and write.
#[pyclass(frozen, subclass, module = "manyhands._core")]
pub struct StreamCore {
    pub socket: Arc<CoreSocket>,
    /// READING, WRITING: who is at it.
    busy: AtomicU8,
    /// A send was cancelled when a part was out, or the end was sent.
    ended: AtomicU8,
    /// The error by which the connection was lost; the kernel tells it once, to whoever asks first.
    failed: AtomicI32,
    pub unread: Unread,
}

const SENT_END: u8 = 1;
const CUT: u8 = 2;

/// System calls that one step makes for an operation that takes many, before others have their turn.
pub const CALLS: u32 = 16;

/// How a stream of bytes ended.
pub enum End {
    Proper,
    Broken(PyErr),
    /// Who knows it is about to say so.
    Undecided,
}

/// How a try ended.
pub enum Tried {
    Done(Option<Py<PyAny>>),
    Blocked,
    /// There is more to do, and others may be waiting.
    More,
    Failed(PyErr),
}

impl StreamCore {
    fn begin(&self, py: Python<'_>, direction: u8) -> PyResult<()> {
        // ORDER: Acquire; pairs with the Release of `end`: one reader sees what the one before left in `reading`.
        if self.busy.fetch_or(direction, Ordering::Acquire) & direction == 0 {
            return Ok(());
        }
        let what = if direction == READING { "receiving from" } else { "sending to" };
        Err(errors::resource(py, "BusyResourceError", what))
    }

    fn end(&self, direction: u8) {
        // ORDER: Release; pairs with the Acquire of `begin`.
        self.busy.fetch_and(!direction, Ordering::Release);
    }

    fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        self.socket.check_fork().map_err(|error| errors::raise_about(py, error, "the stream"))?;
        if self.socket.closed() { Err(self.gone(py)) } else { Ok(()) }
    }

    fn check_sending(&self, py: Python<'_>) -> PyResult<()> {
        match self.ended.load(Ordering::Relaxed) {
            0 => Ok(()),
            ended if ended & CUT != 0 => {
                Err(errors::resource(py, "BrokenResourceError", "an earlier send was cancelled half-way"))
            }
            _ => Err(errors::resource(py, "ClosedResourceError", "the sending side")),
        }
    }

    /// The error of a system call on it.
    pub fn broken(&self, py: Python<'_>, errno: Errno) -> PyErr {
        if self.socket.closed() {
            return errors::resource(py, "ClosedResourceError", "");
        }
        let errno = errno.raw_os_error();
        if errno != Errno::PIPE.raw_os_error() {
            // A peer that takes nothing more may have sent something before; what it has sent ends properly.
            self.failed.store(errno, Ordering::Relaxed);
        }
        let cause = PyOSError::new_err((errno, errors::strerror(py, errno)));
        let error = errors::resource(py, "BrokenResourceError", "");
        error.set_cause(py, Some(cause));
        error
    }

    pub fn gone(&self, py: Python<'_>) -> PyErr {
        errors::resource(py, "ClosedResourceError", "")
    }

    /// Nothing more comes: the peer has said so, or the kernel, which has told of an error already.
    ///
    /// The error may have been told to a send that has not noted it yet. On a connection that is over in both directions
    /// that send is about to end, so the reader asks once more; what it would say of itself is that all has come.
    pub fn at_end(&self, py: Python<'_>) -> End {
        // ORDER: Acquire; pairs with the Release of `end`: a send that has ended has noted its error.
        let sends = self.busy.load(Ordering::Acquire) & WRITING != 0;
        match self.failed.load(Ordering::Relaxed) {
            0 if sends && self.is_over() => End::Undecided,
            0 => End::Proper,
            errno => End::Broken(self.broken(py, Errno::from_raw_os_error(errno))),
        }
    }

    /// Whether the connection is over in both directions.
    fn is_over(&self) -> bool {
        let Some(lease) = self.socket.lease() else { return false };
        let fd = lease.fd();
        let mut asked = [PollFd::new(&fd, PollFlags::empty())];
        let polled = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && asked[0].revents().contains(PollFlags::HUP)
    }

    /// One read into `buffer`: how many bytes (0 at the end), or None if there is nothing to read now.
    pub fn read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        loop {
            let Some(seen) = self.socket.look(Direction::Read) else { return Ok(None) };
            let Some(lease) = self.socket.lease() else { return Err(Errno::BADF) };
            match rustix::net::recv(lease.fd(), &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    if count > 0 && count < buffer.len() {
                        self.socket.short(Direction::Read, seen);
                    }
                    return Ok(Some(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.socket.exhausted(Direction::Read, seen) {
                        return Ok(None);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    fn write(&self, data: &[u8]) -> Result<Option<usize>, Errno> {
        loop {
            let Some(seen) = self.socket.look(Direction::Write) else { return Ok(None) };
            let Some(lease) = self.socket.lease() else { return Err(Errno::BADF) };
            match rustix::net::send(lease.fd(), data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    if count < data.len() {
                        self.socket.short(Direction::Write, seen);
                    }
                    return Ok(Some(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.socket.exhausted(Direction::Write, seen) {
                        return Ok(None);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    fn take_connection(&self, py: Python<'_>) -> Tried {
        loop {
            let Some(seen) = self.socket.look(Direction::Read) else { return Tried::Blocked };
            let Some(lease) = self.socket.lease() else { return Tried::Failed(self.gone(py)) };
            let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
            match rustix::net::accept_with(lease.fd(), flags) {
                Ok(accepted) => {
                    let fd = accepted.into_raw_fd();
                    return match fd.into_pyobject(py) {
                        Ok(fd) => Tried::Done(Some(fd.into_any().unbind())),
                        Err(never) => match never {},
                    };
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.socket.exhausted(Direction::Read, seen) {
                        return Tried::Blocked;
                    }
                }
                Err(errno) => return Tried::Failed(system_error(py, errno)),
            }
        }
    }
}

impl StreamCore {
    fn leased(&self, py: Python<'_>) -> PyResult<Lease<'_, Carried>> {
        self.check_open(py)?;
        self.socket.lease().ok_or_else(|| self.gone(py))
    }
}

fn system_error(py: Python<'_>, errno: Errno) -> PyErr {
    let errno = errno.raw_os_error();
    PyOSError::new_err((errno, errors::strerror(py, errno)))
}

/// Somebody is about to close a number: what waits for it on this loop ends. Whether anything did.
pub fn notify_closing(owner: &Bound<'_, LoopCore>, fd: i32) -> PyResult<bool> {
    match owner.get().open_core()?.notify_closing(fd) {
        Notified::Nobody => Ok(false),
        Notified::Socket(socket) => {
            owner.py().detach(|| socket.vacate());
            Ok(true)
        }
        Notified::Watch(finished) => {
            if let Some(finished) = finished {
                LoopCore::pay(owner, finished);
            }
            Ok(true)
        }
    }
}
