//! An operation of a task on a stream: what it does in one step, and in which order it waits.
//!
//! `object` makes it a Python object; nothing here knows how.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use manyhands_core::socket::Direction;
use manyhands_core::task::WaitPhase;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::export::Export;
use super::{CALLS, CUT, READING, StreamCore, Tried, WRITING};
use crate::held::Held;
use crate::reading::{self, Want};
use crate::task::{self, Task};
use crate::wait::{cancelled, look_again};

/// What an awaitable does at every try.
pub enum Act {
    Receive(Want),
    /// How much of it is out.
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

const NEW: u8 = 0;
/// It lets others run.
const YIELDED: u8 = 1;
/// It has left its ticket with the socket.
const WAITS: u8 = 2;
/// A thread is inside.
const STEPS: u8 = 3;
const OVER: u8 = 4;

/// How a step ended, if it did not raise.
pub enum Step {
    Suspended,
    Done(Option<Py<PyAny>>),
}

/// An operation of a task on a stream: awaited once, by the task that asked for it.
pub struct Transfer {
    pub stream: Held<StreamCore>,
    act: Act,
    state: AtomicU8,
    /// The ticket of the wait that it is in.
    ticket: AtomicU32,
}

impl Transfer {
    pub fn new(stream: Bound<'_, StreamCore>, act: Act) -> Self {
        Self { stream: Held::new(stream), act, state: AtomicU8::new(NEW), ticket: AtomicU32::new(0) }
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
    fn over(&self, py: Python<'_>) {
        self.state.store(OVER, Ordering::Relaxed);
        let stream = self.stream.get();
        if stream.socket.inherited() {
            return;
        }
        match &self.act {
            Act::Send(data, sent) => {
                let sent = sent.load(Ordering::Relaxed);
                if sent > 0 && sent < data.bytes(py).len() {
                    stream.ended.fetch_or(CUT, Ordering::Relaxed);
                }
                data.release(py);
            }
            Act::Receive(want) => {
                reading::put_back(&stream.unread, want);
                if let Want::Into(export) = want {
                    export.release(py);
                }
            }
            Act::SendSome(data) => data.release(py),
            Act::Accept | Act::Ready(_) => {}
        }
        stream.end(self.act.busy());
    }

    /// To the tail of the run queue, and on from there.
    fn give_way(&self, task: &Task) -> Step {
        task.core.yield_now();
        self.state.store(YIELDED, Ordering::Relaxed);
        Step::Suspended
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

    /// The task that awaits it goes on with it.
    pub fn step(&self, py: Python<'_>, task: Option<&Task>) -> PyResult<Step> {
        let task = task.ok_or_else(|| {
            PyRuntimeError::new_err("a stream is used by a task: await this inside of manyhands.run()")
        })?;
        let word = &task.core;
        match self.state.load(Ordering::Relaxed) {
            NEW => {
                self.check(py, task)?;
                if task.told_to_stop() {
                    return Err(cancelled(py));
                }
                self.stream.get().begin(py, self.act.busy())?;
                if task::spend() {
                    return Ok(self.give_way(task));
                }
                self.state.store(STEPS, Ordering::Relaxed);
            }
            OVER => return Err(PyRuntimeError::new_err("an operation is awaited once: start a new one")),
            YIELDED if word.word().wait == WaitPhase::Ready => {
                self.state.store(STEPS, Ordering::Relaxed);
                word.take();
                if task.told_to_stop() {
                    self.over(py);
                    return Err(cancelled(py));
                }
            }
            WAITS if word.word().wait == WaitPhase::Ready => {
                self.state.store(STEPS, Ordering::Relaxed);
                if word.take() {
                    self.take_ticket_back();
                    self.over(py);
                    return Err(cancelled(py));
                }
            }
            _ => return Err(PyRuntimeError::new_err("an operation is awaited by the task that began it")),
        }
        loop {
            match self.attempt(py) {
                Tried::Done(value) => {
                    self.over(py);
                    return Ok(Step::Done(value));
                }
                Tried::Failed(error) => {
                    self.over(py);
                    return Err(error);
                }
                Tried::More => return Ok(self.give_way(task)),
                Tried::Blocked => {
                    let socket = &self.stream.get().socket;
                    let ticket = word.open(true);
                    self.ticket.store(ticket, Ordering::Relaxed);
                    if socket.wait(self.act.direction(), word, ticket) {
                        self.state.store(WAITS, Ordering::Relaxed);
                        look_again(task, ticket);
                        return Ok(Step::Suspended);
                    }
                    if word.withdraw() {
                        self.over(py);
                        return Err(cancelled(py));
                    }
                    if socket.closed() {
                        self.over(py);
                        return Err(self.stream.get().gone(py));
                    }
                }
            }
        }
    }

    fn take_ticket_back(&self) {
        self.stream.get().socket.forget(self.act.direction(), self.ticket.load(Ordering::Relaxed));
    }

    /// Whether its end is that of its memory: it waits for nothing, and has nothing but counts and references.
    pub fn is_light(&self) -> bool {
        matches!(self.state.load(Ordering::Relaxed), NEW | OVER)
            && matches!(self.act, Act::Receive(Want::Some(_)) | Act::Send(Export::Bytes(_), _) | Act::Ready(_))
    }

    /// The coroutine was closed, was thrown into, or is no more: it may have waited here.
    pub fn close(&self, py: Python<'_>) {
        let state = self.state.load(Ordering::Relaxed);
        if state == WAITS {
            self.take_ticket_back();
        }
        if matches!(state, YIELDED | WAITS) {
            self.over(py);
        }
    }
}
