//! A channel for Python: the compiled half of memory object streams.

use manyhands_core::channel::{After, Counts, Fate, Found, Handle, Offered, Went};
use manyhands_core::permits::Waiter;
use manyhands_core::sync::Mutex;
use pyo3::PyTraverseError;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::awaiting::{Awaiting, Next, go_on};
use crate::errors;
use crate::payload::Carried;
use crate::wait::{cancelled, stop};

type Item = Py<PyAny>;
type Left = After<Carried, Item>;

fn closed(py: Python<'_>) -> PyErr {
    errors::resource(py, "ClosedResourceError", "use another clone of this end, or make a new stream")
}

fn broken(py: Python<'_>) -> PyErr {
    errors::resource(py, "BrokenResourceError", "nobody will receive this: every receiving end of the stream is closed")
}

fn would_block(py: Python<'_>) -> PyErr {
    errors::resource(py, "WouldBlock", "nobody is there for it now: await send() or receive(), which wait")
}

fn end_of_stream(py: Python<'_>, iterates: bool) -> PyErr {
    if iterates {
        return PyStopAsyncIteration::new_err(());
    }
    errors::resource(py, "EndOfStream", "nothing more will come: every sending end of the stream is closed")
}

/// Items from any number of tasks to any number of tasks.
///
/// Args:
///     room: How many items may wait that nobody has received; None for any number.
///
/// Threads: any.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Channel {
    channel: manyhands_core::Channel<Carried, Item>,
}

impl Channel {
    /// What a change of the channel has left to do, under no lock of its own.
    fn finish(py: Python<'_>, mut left: Left) {
        go_on(py, core::mem::take(&mut left.decided));
    }
}

#[pymethods]
impl Channel {
    #[new]
    #[pyo3(signature = (room=None))]
    fn new(room: Option<usize>) -> Self {
        Self { channel: manyhands_core::Channel::new(room.unwrap_or(usize::MAX)) }
    }

    /// How many items may wait that nobody has received; None for any number.
    #[getter]
    fn room(&self) -> Option<usize> {
        Some(self.channel.room()).filter(|room| *room != usize::MAX)
    }

    /// Items in the buffer, open handles of the sending and the receiving end, sends and receives that wait.
    fn counts(&self) -> (usize, usize, usize, usize, usize) {
        let Counts { buffered, senders, receivers, sends, receives } = self.channel.counts();
        (buffered, senders, receivers, sends, receives)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.channel.show(|item| visit.call(item))
    }

    fn __clear__(&self) {
        drop(self.channel.clear());
    }
}

/// A handle of a channel's sending end: the compiled half of `manyhands.MemoryObjectSendStream`.
#[pyclass(frozen, subclass, weakref, module = "manyhands._core")]
pub struct SendEnd {
    channel: Py<Channel>,
    handle: Handle,
}

#[pymethods]
impl SendEnd {
    #[new]
    fn new(channel: &Bound<'_, Channel>) -> Self {
        Self { channel: channel.clone().unbind(), handle: channel.get().channel.add_sender() }
    }

    /// Send an item; wait until somebody receives it, or there is room for it.
    ///
    /// Raises:
    ///     ClosedResourceError: this handle was closed, before or meanwhile.
    ///     BrokenResourceError: every handle of the receiving end is closed, or was meanwhile.
    ///     Cancelled: the task is to stop; the item was not sent.
    fn send(slf: Bound<'_, Self>, item: Py<PyAny>) -> Sending {
        Sending { end: slf.unbind(), item: Mutex::new(Some(item)), awaiting: Awaiting::new() }
    }

    /// Send an item if nobody has to wait for that.
    ///
    /// Raises:
    ///     WouldBlock: nobody waits for it, and there is no room.
    ///     ClosedResourceError, BrokenResourceError: as `send`.
    fn send_nowait(&self, py: Python<'_>, item: Py<PyAny>) -> PyResult<()> {
        let mut left = Left::default();
        let offered = self.channel.get().channel.offer(&self.handle, item, &mut left);
        Channel::finish(py, left);
        match offered {
            Offered::Sent => Ok(()),
            Offered::Full(_) => Err(would_block(py)),
            Offered::Alone(_) => Err(broken(py)),
            Offered::Closed(_) => Err(closed(py)),
        }
    }

    /// Let go of this handle. When the last one is closed, who receives gets what is there and then `EndOfStream`.
    ///
    /// Threads: any. Idempotent.
    fn close(&self, py: Python<'_>) {
        let mut left = Left::default();
        self.channel.get().channel.close_sender(&self.handle, &mut left);
        Channel::finish(py, left);
    }

    #[getter]
    fn _closed(&self) -> bool {
        self.handle.closed()
    }

    #[getter]
    fn _channel(&self, py: Python<'_>) -> Py<Channel> {
        self.channel.clone_ref(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.channel)
    }
}

/// A handle of a channel's receiving end: the compiled half of `manyhands.MemoryObjectReceiveStream`.
#[pyclass(frozen, subclass, weakref, module = "manyhands._core")]
pub struct ReceiveEnd {
    channel: Py<Channel>,
    handle: Handle,
}

impl ReceiveEnd {
    fn receiving(slf: Bound<'_, Self>, iterates: bool) -> Receiving {
        Receiving { end: slf.unbind(), iterates, awaiting: Awaiting::new() }
    }
}

#[pymethods]
impl ReceiveEnd {
    #[new]
    fn new(channel: &Bound<'_, Channel>) -> Self {
        Self { channel: channel.clone().unbind(), handle: channel.get().channel.add_receiver() }
    }

    /// Receive the next item, waiting for it.
    ///
    /// Raises:
    ///     EndOfStream: nothing is left, and every handle of the sending end is closed.
    ///     ClosedResourceError: this handle was closed, before or meanwhile.
    ///     Cancelled: the task is to stop; the item, if there is one, is another's.
    fn receive(slf: Bound<'_, Self>) -> Receiving {
        Self::receiving(slf, false)
    }

    /// Receive the next item if there is one.
    ///
    /// Raises:
    ///     WouldBlock: there is none now.
    ///     EndOfStream, ClosedResourceError: as `receive`.
    fn receive_nowait(&self, py: Python<'_>) -> PyResult<Item> {
        let mut left = Left::default();
        let found = self.channel.get().channel.find(&self.handle, &mut left);
        Channel::finish(py, left);
        match found {
            Found::Item(item) => Ok(item),
            Found::Empty => Err(would_block(py)),
            Found::Alone => Err(end_of_stream(py, false)),
            Found::Closed => Err(closed(py)),
        }
    }

    /// Let go of this handle. When the last one is closed, who sends gets `BrokenResourceError`, and what was not received
    /// is dropped.
    ///
    /// Threads: any. Idempotent.
    fn close(&self, py: Python<'_>) {
        let mut left = Left::default();
        self.channel.get().channel.close_receiver(&self.handle, &mut left);
        Channel::finish(py, left);
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: Bound<'_, Self>) -> Receiving {
        Self::receiving(slf, true)
    }

    #[getter]
    fn _closed(&self) -> bool {
        self.handle.closed()
    }

    #[getter]
    fn _channel(&self, py: Python<'_>) -> Py<Channel> {
        self.channel.clone_ref(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.channel)
    }
}

/// One `await` of a send. Made by `SendEnd.send`.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Sending {
    end: Py<SendEnd>,
    /// Until it is tried.
    item: Mutex<Option<Item>>,
    awaiting: Awaiting,
}

#[pymethods]
impl Sending {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let end = self.end.get();
        let channel = &end.channel.get().channel;
        match self.awaiting.next(py)? {
            Next::Yield => Ok(Some(py.None())),
            Next::Try(task) => {
                let item = self.item.lock().take();
                let Some(item) = item else { return Err(closed(py)) };
                let mut left = Left::default();
                let (owner, core) = (task.get().loop_core(), &task.get().core);
                let went = channel.send(&end.handle, item, &mut left, || Waiter::open(owner, core));
                Channel::finish(py, left);
                match went {
                    Went::Through(Offered::Sent) => stop(py, None),
                    Went::Through(Offered::Full(_)) => Err(would_block(py)),
                    Went::Through(Offered::Alone(_)) => Err(broken(py)),
                    Went::Through(Offered::Closed(_)) => Err(closed(py)),
                    Went::Waits(place) => self.awaiting.stand(py, task.get(), place),
                }
            }
            Next::Decided { place, aborted } => {
                let ended = channel.leave_senders(place).map(|caller| caller.end());
                if aborted {
                    return Err(cancelled(py));
                }
                match ended {
                    Some((Fate::Alone, _)) => Err(broken(py)),
                    Some((Fate::Closed, _)) => Err(closed(py)),
                    _ => stop(py, None),
                }
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.end)?;
        match self.item.try_lock() {
            Some(item) => visit.call(&*item),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let item = self.item.lock().take();
        drop(item);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Its coroutine was thrown away: the item was not sent, unless it was decided that it is.
        if let Some(place) = self.awaiting.left() {
            drop(self.end.get().channel.get().channel.leave_senders(place));
        }
    }
}

/// One `await` of an item. Made by `ReceiveEnd.receive`.
#[pyclass(frozen, module = "manyhands._core")]
pub struct Receiving {
    end: Py<ReceiveEnd>,
    iterates: bool,
    awaiting: Awaiting,
}

#[pymethods]
impl Receiving {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let end = self.end.get();
        let channel = &end.channel.get().channel;
        match self.awaiting.next(py)? {
            Next::Yield => Ok(Some(py.None())),
            Next::Try(task) => {
                let mut left = Left::default();
                let (owner, core) = (task.get().loop_core(), &task.get().core);
                let went = channel.receive(&end.handle, &mut left, || Waiter::open(owner, core));
                Channel::finish(py, left);
                match went {
                    Went::Through(Found::Item(item)) => stop(py, Some(item.into_bound(py))),
                    Went::Through(Found::Closed) => Err(closed(py)),
                    Went::Through(_) => Err(end_of_stream(py, self.iterates)),
                    Went::Waits(place) => self.awaiting.stand(py, task.get(), place),
                }
            }
            Next::Decided { place, aborted } => {
                let ended = channel.leave_receivers(place).map(|caller| caller.end());
                if aborted {
                    return Err(cancelled(py));
                }
                match ended {
                    Some((Fate::Done, Some(item))) => stop(py, Some(item.into_bound(py))),
                    Some((Fate::Closed, _)) => Err(closed(py)),
                    _ => Err(end_of_stream(py, self.iterates)),
                }
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.end)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let Some(place) = self.awaiting.left() else { return };
        let channel = &self.end.get().channel.get().channel;
        // Its coroutine was thrown away; what it was given is the next one's.
        if let Some((Fate::Done, Some(item))) = channel.leave_receivers(place).map(|caller| caller.end()) {
            let mut left = Left::default();
            channel.give_back(item, &mut left);
            // SAFETY: an object of Python's is dropped on attached threads only.
            Channel::finish(unsafe { Python::assume_attached() }, left);
        }
    }
}
