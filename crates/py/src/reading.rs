//! What a stream's reader wants, and the bytes that were read and not yet asked for.
//!
//! Small reads go through a scratch buffer of the thread into a bytes object of the exact size: an object of the largest
//! size, cut afterwards, costs several times as much. When a stream has been giving large chunks they are read straight
//! into the object: the copy would cost more than the allocation.

use core::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use manyhands_core::socket::Direction;
use manyhands_core::sync::Mutex;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors;
use crate::stream::export::Export;
use crate::stream::{CALLS, End, StreamCore, Tried, spare};

/// Bytes of a thread's scratch buffer, and the most that is read through it.
const SCRATCH: usize = 64 * 1024;
/// The most that is read at once into an object of its own. 256 KiB is where reads of large messages stop gaining.
const LARGE: usize = 256 * 1024;
/// A stream whose last chunk was as large is read into objects directly.
const DIRECT: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What was read and not yet asked for. The reader changes it, and there is one at a time.
#[derive(Default)]
pub struct Unread {
    bytes: Mutex<Left>,
    /// Whether there is any, for a look without the lock.
    any: AtomicBool,
    /// How much the last read gave.
    last: AtomicUsize,
}

impl Unread {
    /// The reader: changes or takes it.
    fn with<R>(&self, change: impl FnOnce(&mut Left) -> R) -> R {
        let mut left = self.bytes.lock();
        let result = change(&mut left);
        self.any.store(!left.left().is_empty(), Ordering::Relaxed);
        result
    }

    /// The reader: whether there is any. It sees what the reader before it has left: see `StreamCore::begin`.
    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.bytes.lock().left().len()
    }
}

#[derive(Default)]
struct Left {
    bytes: Vec<u8>,
    start: usize,
}

impl Left {
    /// What is left.
    fn left(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn take(&mut self, count: usize) {
        self.start += count;
        if self.start == self.bytes.len() {
            // An idle stream keeps no memory.
            self.bytes = Vec::new();
            self.start = 0;
        }
    }

    /// As much as there is room for; how much that was.
    fn move_to(&mut self, room: &mut [u8]) -> usize {
        let count = self.left().len().min(room.len());
        room[..count].copy_from_slice(&self.left()[..count]);
        self.take(count);
        count
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn put_back(&mut self, bytes: &[u8]) {
        let rest = self.bytes.split_off(self.start);
        self.bytes.clear();
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(&rest);
    }
}

/// What the reader wants.
pub enum Want {
    /// At least one byte, at most so many.
    Some(usize),
    /// A bytes object that is filled, and how far it is.
    Exactly(Mutex<Option<(Py<PyBytes>, usize)>>, usize),
    /// Everything up to and with the delimiter, at most so many bytes; how many were searched in vain.
    Until(Vec<u8>, usize, Mutex<usize>),
    /// At least one byte, into a buffer of the caller's.
    Into(Export),
}

impl Want {
    pub fn exactly(py: Python<'_>, count: usize) -> PyResult<Self> {
        Ok(Self::Exactly(Mutex::new(Some((uninitialised(py, count)?, 0))), count))
    }

    pub fn until(delimiter: Vec<u8>, max: usize) -> Self {
        Self::Until(delimiter, max, Mutex::new(0))
    }
}

/// A bytes object whose content is yet to be written.
fn uninitialised(py: Python<'_>, count: usize) -> PyResult<Py<PyBytes>> {
    // SAFETY: attached; a new reference, or null with MemoryError set.
    let object = unsafe {
        let object = ffi::PyBytes_FromStringAndSize(core::ptr::null(), count as ffi::Py_ssize_t);
        Bound::from_owned_ptr_or_err(py, object)?
    };
    // SAFETY: it is a bytes object.
    Ok(unsafe { object.cast_into_unchecked() }.unbind())
}

/// The memory of a bytes object that nobody else has seen.
#[allow(clippy::mut_from_ref, reason = "the memory is the object's, and its one owner fills it")]
fn memory(bytes: &Py<PyBytes>, count: usize) -> &mut [u8] {
    // SAFETY: attached, and the object was made by `uninitialised` with this size; it has not been handed out.
    unsafe { core::slice::from_raw_parts_mut(ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>(), count) }
}

/// The thread's scratch buffer.
fn with_scratch<R>(count: usize, read: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with_borrow_mut(|scratch| {
        if scratch.is_empty() {
            scratch.resize(SCRATCH, 0);
        }
        read(&mut scratch[..count.min(SCRATCH)])
    })
}

fn end(py: Python<'_>, stream: &StreamCore) -> Tried {
    match stream.at_end(py) {
        End::Proper => Tried::Failed(errors::resource(py, "EndOfStream", "")),
        End::Broken(error) => Tried::Failed(error),
        End::Undecided => Tried::More,
    }
}

/// Tries once to give the reader what it wants.
pub fn attempt(py: Python<'_>, stream: &StreamCore, want: &Want) -> Tried {
    match want {
        Want::Some(max) => some(py, stream, *max),
        Want::Exactly(filled, count) => exactly(py, stream, filled, *count),
        Want::Until(delimiter, max, searched) => until(py, stream, (delimiter, *max), searched),
        Want::Into(export) => into(py, stream, export.writable()),
    }
}

fn done(bytes: Bound<'_, PyBytes>) -> Tried {
    Tried::Done(Some(bytes.into_any().unbind()))
}

fn some(py: Python<'_>, stream: &StreamCore, max: usize) -> Tried {
    if stream.unread.any() {
        let copy = stream.unread.with(|left| {
            let copy = left.left()[..left.left().len().min(max)].to_vec();
            left.take(copy.len());
            copy
        });
        return done(PyBytes::new(py, &copy));
    }
    let last = stream.unread.last.load(Ordering::Relaxed);
    let read = if last >= DIRECT && max > DIRECT {
        large(py, stream, max.min(LARGE).min(2 * last.max(SCRATCH)))
    } else {
        // An error is made outside: a finalizer that runs meanwhile may want the scratch buffer.
        with_scratch(max, |scratch| match stream.read(scratch) {
            Ok(Some(count)) => Ok(Some((spare::bytes(py, &scratch[..count]).unbind(), count))),
            Ok(None) => Ok(None),
            Err(errno) => Err(errno),
        })
        .map_err(|errno| stream.broken(py, errno))
    };
    match read {
        Err(error) => Tried::Failed(error),
        Ok(None) => Tried::Blocked,
        Ok(Some((_, 0))) => end(py, stream),
        Ok(Some((bytes, count))) => {
            stream.unread.last.store(count, Ordering::Relaxed);
            done(bytes.into_bound(py))
        }
    }
}

/// Reads into an object of its own, which is cut afterwards.
fn large(py: Python<'_>, stream: &StreamCore, max: usize) -> PyResult<Option<(Py<PyBytes>, usize)>> {
    if stream.socket.look(Direction::Read).is_none() {
        return Ok(None);
    }
    let bytes = uninitialised(py, max)?;
    match stream.read(memory(&bytes, max)) {
        Err(errno) => Err(stream.broken(py, errno)),
        Ok(None) => Ok(None),
        Ok(Some(count)) if count == max => Ok(Some((bytes, count))),
        Ok(Some(count)) => {
            let mut object = bytes.into_ptr();
            // SAFETY: attached; the object is nobody else's. On failure it is freed, the pointer null and an error set.
            let cut = unsafe { ffi::_PyBytes_Resize(&raw mut object, count as ffi::Py_ssize_t) };
            if cut != 0 {
                return Err(PyErr::fetch(py));
            }
            // SAFETY: a bytes object that is ours.
            let bytes: Bound<'_, PyBytes> = unsafe { Bound::from_owned_ptr(py, object).cast_into_unchecked() };
            Ok(Some((bytes.unbind(), count)))
        }
    }
}

fn exactly(py: Python<'_>, stream: &StreamCore, filled: &Mutex<Option<(Py<PyBytes>, usize)>>, count: usize) -> Tried {
    // Taken out, so that nothing of Python's is touched under the lock.
    let Some((bytes, mut done_to)) = filled.lock().take() else { return Tried::Blocked };
    let room = memory(&bytes, count);
    if stream.unread.any() {
        done_to += stream.unread.with(|left| left.move_to(&mut room[done_to..]));
    }
    let mut calls = 0;
    let tried = loop {
        if done_to == count {
            return done(bytes.into_bound(py));
        }
        if calls == CALLS {
            break Tried::More;
        }
        calls += 1;
        match stream.read(&mut room[done_to..]) {
            Ok(Some(0)) => match stream.at_end(py) {
                End::Proper => return Tried::Failed(errors::incomplete(py, &room[..done_to])),
                End::Broken(error) => break Tried::Failed(error),
                End::Undecided => break Tried::More,
            },
            Ok(Some(more)) => done_to += more,
            Ok(None) => break Tried::Blocked,
            Err(errno) => break Tried::Failed(stream.broken(py, errno)),
        }
    };
    *filled.lock() = Some((bytes, done_to));
    tried
}

/// Whoever did not get all that it wanted leaves what it has read to the next.
pub fn put_back(unread: &Unread, want: &Want) {
    if let Want::Exactly(filled, count) = want {
        let taken = filled.lock().take();
        if let Some((bytes, done_to)) = taken
            && done_to > 0
        {
            unread.with(|left| left.put_back(&memory(&bytes, *count)[..done_to]));
        }
    }
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(needle.len() - 1);
    haystack.get(start..)?.windows(needle.len()).position(|window| window == needle).map(|at| start + at)
}

/// What a look for the delimiter has found.
enum Found {
    Line(Vec<u8>),
    /// As much as may be, without it.
    TooLong,
    Nothing,
}

fn until(py: Python<'_>, stream: &StreamCore, (delimiter, max): (&[u8], usize), searched: &Mutex<usize>) -> Tried {
    for _ in 0..CALLS {
        let found = stream.unread.with(|unread| {
            let left = unread.left();
            let from = (*searched.lock()).min(left.len());
            *searched.lock() = left.len();
            match find(left, delimiter, from).map(|at| at + delimiter.len()) {
                Some(end) if end <= max => {
                    let line = left[..end].to_vec();
                    unread.take(end);
                    Found::Line(line)
                }
                _ if left.len() >= max => Found::TooLong,
                _ => Found::Nothing,
            }
        });
        match found {
            Found::Line(line) => return done(PyBytes::new(py, &line)),
            Found::TooLong => return Tried::Failed(errors::resource(py, "DelimiterNotFound", &max.to_string())),
            Found::Nothing => {}
        }
        let read = with_scratch(SCRATCH, |scratch| {
            let read = stream.read(scratch);
            if let Ok(Some(count)) = read {
                stream.unread.with(|left| left.push(&scratch[..count]));
            }
            read
        });
        match read {
            Err(errno) => return Tried::Failed(stream.broken(py, errno)),
            Ok(None) => return Tried::Blocked,
            Ok(Some(0)) => {
                match stream.at_end(py) {
                    End::Proper => {}
                    End::Broken(error) => return Tried::Failed(error),
                    End::Undecided => return Tried::More,
                }
                let partial = stream.unread.with(|left| {
                    let partial = left.left().to_vec();
                    left.take(partial.len());
                    partial
                });
                return Tried::Failed(errors::incomplete(py, &partial));
            }
            Ok(Some(_)) => {}
        }
    }
    Tried::More
}

fn into(py: Python<'_>, stream: &StreamCore, room: &mut [u8]) -> Tried {
    let count = if stream.unread.any() { stream.unread.with(|left| left.move_to(room)) } else { 0 };
    let read = if count > 0 { Ok(Some(count)) } else { stream.read(room) };
    match read {
        Err(errno) => Tried::Failed(stream.broken(py, errno)),
        Ok(None) => Tried::Blocked,
        Ok(Some(0)) => end(py, stream),
        Ok(Some(count)) => match count.into_pyobject(py) {
            Ok(count) => Tried::Done(Some(count.into_any().unbind())),
            Err(never) => match never {},
        },
    }
}
