//! A stream's compiled half: awaitables that read and write a socket of the core.
//!
//! A step tries the system call if the cached readiness says that it may find something, attached: on a descriptor that
//! does not block a call takes a microsecond or two, and to detach and attach costs as much. What is not there is waited
//! for by the task's word and the socket's ticket, and tried again. One reader and one writer at a time.

use core::cell::UnsafeCell;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicUsize, Ordering};

use manyhands_core::socket::{Direction, Lease, Notified};
use manyhands_core::sync::Mutex;
use manyhands_core::task::WaitPhase;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::errors;
use crate::event_loop::LoopCore;
use crate::payload::Carried;
use crate::reading::{self, Reading, Want};
use crate::task::{self, Task};
use crate::wait::{cancelled, look_again, stop};

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
    pub reading: Mutex<Reading>,
}

const SENT_END: u8 = 1;
const CUT: u8 = 2;

/// System calls that one step makes for an operation that takes many, before others have their turn.
pub const CALLS: u32 = 16;

/// How a try ended.
pub enum Tried {
    Done(Option<Py<PyAny>>),
    Blocked,
    /// There is more to do, and others may be waiting.
    More,
    Failed(PyErr),
}

impl StreamCore {
    fn begin(&self, direction: u8) -> PyResult<()> {
        // ORDER: Acquire; pairs with the Release of `end`: one reader sees what the one before left in `reading`.
        if self.busy.fetch_or(direction, Ordering::Acquire) & direction == 0 {
            return Ok(());
        }
        Python::attach(|py| {
            Err(errors::resource(
                py,
                "BusyResourceError",
                if direction == READING { "receiving from" } else { "sending to" },
            ))
        })
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
    pub fn at_end(&self, py: Python<'_>) -> Option<PyErr> {
        match self.failed.load(Ordering::Relaxed) {
            0 => None,
            errno => Some(self.broken(py, Errno::from_raw_os_error(errno))),
        }
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

/// What an awaitable does at every try.
enum Act {
    Receive(Want),
    Send(Export, AtomicUsize),
    SendSome(Export),
    Accept,
    Ready(Direction),
}

impl Act {
    fn direction(&self) -> Direction {
        match self {
            Self::Receive(_) | Self::Accept => Direction::Read,
            Self::Send(..) | Self::SendSome(_) => Direction::Write,
            Self::Ready(direction) => *direction,
        }
    }

    fn busy(&self) -> u8 {
        match self.direction() {
            Direction::Read => READING,
            Direction::Write => WRITING,
        }
    }
}

/// A buffer of the caller's, which cannot change its size until this is released.
pub enum Export {
    Bytes(Py<PyBytes>),
    /// The view, and whether it was released.
    Buffer(Box<UnsafeCell<ffi::Py_buffer>>, AtomicBool),
}

// SAFETY: the view may be read by any thread; it is released once, while attached.
unsafe impl Send for Export {}
// SAFETY: as above.
unsafe impl Sync for Export {}

impl Export {
    pub fn new(data: &Bound<'_, PyAny>, writable: bool) -> PyResult<Self> {
        if !writable && let Ok(bytes) = data.cast_exact::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone().unbind()));
        }
        let mut view = Box::new(core::mem::MaybeUninit::<ffi::Py_buffer>::uninit());
        let flags = if writable { ffi::PyBUF_WRITABLE } else { ffi::PyBUF_SIMPLE };
        // SAFETY: attached; on success the view is filled in.
        if unsafe { ffi::PyObject_GetBuffer(data.as_ptr(), view.as_mut_ptr(), flags) } != 0 {
            let error = PyErr::fetch(data.py());
            if error.is_instance_of::<PyTypeError>(data.py()) {
                return Err(PyTypeError::new_err(format!(
                    "expected bytes, a bytearray or another {}contiguous buffer, and got {}",
                    if writable { "writable " } else { "" },
                    data.get_type().name()?
                )));
            }
            return Err(error);
        }
        // SAFETY: the call has succeeded.
        let view = unsafe { Box::from_raw(Box::into_raw(view).cast()) };
        Ok(Self::Buffer(view, AtomicBool::new(false)))
    }

    /// The memory; none once it was released.
    fn memory(&self) -> Option<(*mut u8, usize)> {
        match self {
            Self::Buffer(view, released) if !released.load(Ordering::Relaxed) => {
                // SAFETY: only `release` writes to the view, and whoever releases it uses it no more.
                let view = unsafe { &*view.get() };
                (view.len > 0).then_some((view.buf.cast(), view.len as usize))
            }
            _ => None,
        }
    }

    /// The buffer is the caller's again: now, and not when the last reference to the operation goes, which on a
    /// free-threaded interpreter may be when its maker's thread runs the next time.
    pub fn release(&self) {
        if let Self::Buffer(view, released) = self
            && !released.swap(true, Ordering::Relaxed)
        {
            // SAFETY: attached: awaitables are Python's, and ended by it. Once: this call took the flag.
            unsafe { ffi::PyBuffer_Release(view.get()) };
        }
    }

    pub fn bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes.bind(py).as_bytes(),
            Self::Buffer(..) => match self.memory() {
                // SAFETY: the exporter keeps the memory until the view is released. Somebody may write to it meanwhile, as
                // to any buffer that is being sent; then what is sent is one or the other.
                Some((start, count)) => unsafe { core::slice::from_raw_parts(start, count) },
                None => &[],
            },
        }
    }

    /// The memory of a writable one.
    #[allow(clippy::mut_from_ref, reason = "the memory is the exporter's, and one reader at a time writes to it")]
    pub fn writable(&self) -> &mut [u8] {
        match self.memory() {
            // SAFETY: asked for as writable, and released when the reader has ended; the stream has one.
            Some((start, count)) => unsafe { core::slice::from_raw_parts_mut(start, count) },
            None => &mut [],
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.release();
    }
}

const NEW: u8 = 0;
const YIELDED: u8 = 1;
const WAITS: u8 = 2;
const OVER: u8 = 3;

/// An operation of a task on a stream: awaited once, by the task that asked for it.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Transfer {
    stream: Py<StreamCore>,
    act: Act,
    state: AtomicU8,
    /// The ticket of the wait that it is in, with the task.
    waits: Mutex<Option<(Py<Task>, u32)>>,
}

impl Transfer {
    fn new(stream: &Bound<'_, StreamCore>, act: Act) -> PyResult<Py<Self>> {
        let operation =
            Self { stream: stream.clone().unbind(), act, state: AtomicU8::new(NEW), waits: Mutex::new(None) };
        Py::new(stream.py(), operation)
    }

    fn attempt(&self, py: Python<'_>) -> Tried {
        let stream = self.stream.get();
        match &self.act {
            Act::Receive(want) => reading::attempt(py, stream, want),
            Act::Accept => stream.take_connection(py),
            Act::Ready(_) if stream.socket.closed() => Tried::Failed(stream.gone(py)),
            Act::Ready(direction) => match stream.socket.look(*direction) {
                Some(_) => Tried::Done(None),
                None => Tried::Blocked,
            },
            Act::SendSome(data) => match stream.write(data.bytes(py)) {
                Ok(Some(count)) => match count.into_pyobject(py) {
                    Ok(count) => Tried::Done(Some(count.into_any().unbind())),
                    Err(never) => match never {},
                },
                Ok(None) => Tried::Blocked,
                Err(errno) => Tried::Failed(stream.broken(py, errno)),
            },
            Act::Send(data, sent) => {
                let data = data.bytes(py);
                for _ in 0..CALLS {
                    let done = sent.load(Ordering::Relaxed);
                    if done == data.len() {
                        return Tried::Done(None);
                    }
                    match stream.write(&data[done..]) {
                        Ok(Some(count)) => sent.store(done + count, Ordering::Relaxed),
                        Ok(None) => return Tried::Blocked,
                        Err(errno) => return Tried::Failed(stream.broken(py, errno)),
                    }
                }
                if sent.load(Ordering::Relaxed) == data.len() { Tried::Done(None) } else { Tried::More }
            }
        }
    }

    /// It is over, whatever came of it.
    fn over(&self) {
        self.state.store(OVER, Ordering::Relaxed);
        let stream = self.stream.get();
        if stream.socket.inherited() {
            return;
        }
        match &self.act {
            Act::Send(data, sent) => {
                // SAFETY: this is called attached.
                let py = unsafe { Python::assume_attached() };
                let sent = sent.load(Ordering::Relaxed);
                if sent > 0 && sent < data.bytes(py).len() {
                    stream.ended.fetch_or(CUT, Ordering::Relaxed);
                }
                data.release();
            }
            Act::Receive(want) => {
                reading::put_back(&stream.reading, want);
                if let Want::Into(export) = want {
                    export.release();
                }
            }
            Act::SendSome(data) => data.release(),
            Act::Accept | Act::Ready(_) => {}
        }
        stream.end(self.act.busy());
    }

    /// To the tail of the run queue, and on from there.
    fn give_way(&self, py: Python<'_>, task: &Task) -> Py<PyAny> {
        task.core.yield_now();
        self.state.store(YIELDED, Ordering::Relaxed);
        py.None()
    }

    fn check(&self, py: Python<'_>, task: &Task) -> PyResult<()> {
        let stream = self.stream.get();
        stream.check_open(py)?;
        if !stream.socket.is_of(task.loop_core()) {
            return Err(PyRuntimeError::new_err(
                "the stream is of another loop than the task, perhaps of one that is closed: \
                 open it in the run() that uses it",
            ));
        }
        if matches!(self.act, Act::Send(..) | Act::SendSome(_)) { stream.check_sending(py) } else { Ok(()) }
    }
}

#[pymethods]
impl Transfer {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let (this, py) = (slf.get(), slf.py());
        let task = task::current(py).ok_or_else(|| {
            PyRuntimeError::new_err("a stream is used by a task: await this inside of manyhands.run()")
        })?;
        let word = &task.get().core;
        match this.state.load(Ordering::Relaxed) {
            NEW => {
                this.check(py, task.get())?;
                if task.get().told_to_stop() {
                    return Err(cancelled(py));
                }
                this.stream.get().begin(this.act.busy())?;
                if task::spend() {
                    return Ok(Some(this.give_way(py, task.get())));
                }
            }
            OVER => return Err(PyRuntimeError::new_err("an operation is awaited once: start a new one")),
            YIELDED if word.word().wait == WaitPhase::Ready => {
                word.take();
                if task.get().told_to_stop() {
                    this.over();
                    return Err(cancelled(py));
                }
            }
            WAITS if word.word().wait == WaitPhase::Ready => {
                let aborted = word.take();
                let waits = this.waits.lock().take();
                if aborted {
                    if let Some((_, ticket)) = &waits {
                        this.stream.get().socket.forget(this.act.direction(), *ticket);
                    }
                    this.over();
                    return Err(cancelled(py));
                }
            }
            _ => return Err(PyRuntimeError::new_err("an operation is awaited by the task that began it")),
        }
        loop {
            match this.attempt(py) {
                Tried::Done(value) => {
                    this.over();
                    return stop(py, value.map(|value| value.into_bound(py)));
                }
                Tried::Failed(error) => {
                    this.over();
                    return Err(error);
                }
                Tried::More => return Ok(Some(this.give_way(py, task.get()))),
                Tried::Blocked => {
                    let ticket = word.open(true);
                    if this.stream.get().socket.wait(this.act.direction(), word, ticket) {
                        *this.waits.lock() = Some((task.clone().unbind(), ticket));
                        this.state.store(WAITS, Ordering::Relaxed);
                        look_again(task.get(), ticket);
                        return Ok(Some(py.None()));
                    }
                    if word.withdraw() {
                        this.over();
                        return Err(cancelled(py));
                    }
                    if this.stream.get().socket.closed() {
                        this.over();
                        return Err(this.stream.get().gone(py));
                    }
                }
            }
        }
    }

    // With these three it is a coroutine to whoever asks, and can be started as a task: `start_soon(stream.send, data)`.

    fn send(slf: &Bound<'_, Self>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match Self::__next__(slf)? {
            Some(yielded) => Ok(yielded),
            // A value is in the StopIteration that is set already.
            None => Err(PyErr::take(slf.py()).unwrap_or_else(|| PyStopIteration::new_err(()))),
        }
    }

    #[pyo3(signature = (error, _value=None, _traceback=None))]
    fn throw(
        &self,
        error: &Bound<'_, PyAny>,
        _value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.close();
        Err(PyErr::from_value(error.clone()))
    }

    fn close(&self) {
        let waits = self.waits.lock().take();
        if let Some((_, ticket)) = &waits {
            self.stream.get().socket.forget(self.act.direction(), *ticket);
        }
        if matches!(self.state.load(Ordering::Relaxed), YIELDED | WAITS) {
            self.over();
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.stream)?;
        // The coroutine that waits has this, and its task has the coroutine.
        match self.waits.try_lock() {
            Some(waits) => waits.as_ref().map_or(Ok(()), |(task, _)| visit.call(task)),
            None => Ok(()),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // The coroutine was closed, or was thrown into, while it waited here.
        self.close();
    }
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
            reading: Mutex::new(Reading::default()),
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

    /// Read what there is, at least one byte and at most `max_bytes`, as bytes.
    ///
    /// Raises:
    ///     EndOfStream: the peer has sent its last byte.
    ///     BusyResourceError: another task receives from it.
    ///     BrokenResourceError: the connection was lost. ClosedResourceError: it was closed here.
    ///     Cancelled: the task is to stop; nothing was taken.
    #[pyo3(signature = (max_bytes=65536))]
    fn receive(slf: &Bound<'_, Self>, max_bytes: isize) -> PyResult<Py<Transfer>> {
        let max = positive("max_bytes", max_bytes)?;
        Transfer::new(slf, Act::Receive(Want::Some(max)))
    }

    /// Read exactly so many bytes.
    ///
    /// Raises:
    ///     IncompleteRead: the peer has sent its last byte before; `partial` has what came.
    ///     Otherwise as `receive`; what was read of it when the task was cancelled is read again by the next.
    fn receive_exactly(slf: &Bound<'_, Self>, count: isize) -> PyResult<Py<Transfer>> {
        let count = positive("count", count)?;
        Transfer::new(slf, Act::Receive(Want::exactly(slf.py(), count)?))
    }

    /// Read up to and with a delimiter, at most `max_bytes`.
    ///
    /// Raises:
    ///     IncompleteRead: the peer has sent its last byte before. DelimiterNotFound: it is not among the first
    ///     `max_bytes`; they are read by the next call.
    ///     Otherwise as `receive_exactly`.
    #[pyo3(signature = (delimiter, max_bytes=65536))]
    fn receive_until(
        slf: &Bound<'_, Self>,
        delimiter: &Bound<'_, PyBytes>,
        max_bytes: isize,
    ) -> PyResult<Py<Transfer>> {
        if delimiter.as_bytes().is_empty() {
            return Err(PyValueError::new_err("delimiter must have at least one byte"));
        }
        let max = positive("max_bytes", max_bytes)?;
        Transfer::new(slf, Act::Receive(Want::until(delimiter.as_bytes().to_vec(), max)))
    }

    /// Read what there is into a writable buffer; how many bytes.
    ///
    /// Raises:
    ///     As `receive`.
    fn receive_into(slf: &Bound<'_, Self>, buffer: &Bound<'_, PyAny>) -> PyResult<Py<Transfer>> {
        let export = Export::new(buffer, true)?;
        if export.bytes(slf.py()).is_empty() {
            return Err(PyValueError::new_err("buffer must have room for at least one byte"));
        }
        Transfer::new(slf, Act::Receive(Want::Into(export)))
    }

    /// Write all of a buffer; waits while the peer does not read.
    ///
    /// Raises:
    ///     BusyResourceError: another task sends to it.
    ///     BrokenResourceError: the connection was lost, or an earlier send was cancelled half-way.
    ///     ClosedResourceError: it was closed here, or `send_eof()` was called.
    ///     Cancelled: the task is to stop; a part may have been sent: then every later send is refused.
    fn send(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<Py<Transfer>> {
        Transfer::new(slf, Act::Send(Export::new(data, false)?, AtomicUsize::new(0)))
    }

    /// Write what the kernel takes of a buffer at once, at least one byte; how many.
    ///
    /// Raises:
    ///     As `send`; nothing was sent then.
    fn send_some(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<Py<Transfer>> {
        Transfer::new(slf, Act::SendSome(Export::new(data, false)?))
    }

    /// Take a connection off a listening socket: its descriptor, non-blocking.
    fn accept(slf: &Bound<'_, Self>) -> PyResult<Py<Transfer>> {
        Transfer::new(slf, Act::Accept)
    }

    /// Wait until there is something to read or to write; spurious returns are possible.
    fn wait_ready(slf: &Bound<'_, Self>, write: bool) -> PyResult<Py<Transfer>> {
        Transfer::new(slf, Act::Ready(if write { Direction::Write } else { Direction::Read }))
    }

    /// Tell the peer that no more comes; it may go on sending.
    ///
    /// Raises:
    ///     BusyResourceError: a task sends to it. ClosedResourceError, BrokenResourceError: as `send`.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        self.check_open(py)?;
        self.begin(WRITING)?;
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
        self.reading.lock().left().len()
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

/// A count that a user gave.
fn positive(name: &str, count: isize) -> PyResult<usize> {
    match usize::try_from(count) {
        Ok(count @ 1..) => Ok(count),
        _ => Err(PyValueError::new_err(format!("{name} must be at least 1, and got {count}"))),
    }
}
