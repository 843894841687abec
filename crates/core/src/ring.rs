//! Operations that the kernel does by itself, and says when it has: io_uring.
//!
//! | file | noun |
//! |---|---|
//! | `table` | the life of an operation: waiting, in the ring, gone; a cancel and the close against its completion |
//! | this one | the kernel's side: the probe, the way in, the way out, the signal, the end, a fork |
//!
//! An operation's memory belongs to its payload, which the ring keeps until the kernel has said that it is done with it,
//! whatever was cancelled or closed meanwhile. If the kernel never says so, the payload is never dropped.
//!
//! `submit`, `cancel`, `reap` and the like move payloads and make no system call that waits: they are for attached threads.
//! What they put in goes to the kernel with [`Ring::flush`], which may copy megabytes: it is for detached threads, takes no
//! payload into its hands and holds no lock while the kernel works. Whoever flushes flushes for everybody.
//!
//! Tried and dropped: signals for what did not end in its own system call only (`IORING_REGISTER_EVENTFD_ASYNC`). The kernel
//! leaves out more than that: what a page that was waited for has finished.

use core::mem::ManuallyDrop;
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, retry_on_intr, write};

pub mod table;

pub use table::{Cancelled, Code, Done, MAX_BYTES, Request};

use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::fork::{self, Remembered};
use crate::slots::Token;
use crate::sync::{Mutex, MutexGuard};
use table::{Entry, Sink, Table};

/// What a completion that is nobody's carries: that of a cancel. No token is like this.
const NOBODY: u64 = u64::MAX;

/// How long the kernel is asked again that has no memory, before the loop's threads are left to ask.
const PATIENCE: Duration = Duration::from_millis(50);

/// Why there is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// A step was refused, with this number: a kernel without it, a container's filter, no descriptor left.
    Refused(&'static str, i32),
    /// The kernel's ring has no such operation.
    Missing(&'static str),
}

impl core::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Refused(step, errno) => write!(f, "{step}: {}", io::Error::from_raw_os_error(*errno)),
            Self::Missing(name) => write!(f, "the kernel's io_uring has no {name}"),
        }
    }
}

/// A ring of the kernel's, with what is in it and what waits for it.
///
/// Threads: any, several at once.
pub struct Ring<P> {
    ring: ManuallyDrop<IoUring>,
    /// Readable once something has ended.
    signal: ManuallyDrop<OwnedFd>,
    /// GUARDED BY itself: also the tail of the submission queue.
    table: Mutex<Table<P>>,
    /// The head of the completion queue.
    head: Mutex<()>,
    remembered: Option<Remembered>,
    epoch: u32,
    process: u32,
    _counted: Counted,
}

impl<P> Ring<P> {
    /// A ring of which `depth` operations are in the kernel's hands at most, if the kernel has one to give and everything
    /// that is needed works.
    pub fn open(depth: u32) -> Result<Self, Unavailable> {
        Self::open_by(depth, |depth| IoUring::builder().dontfork().build(depth))
    }

    fn open_by(depth: u32, setup: impl FnOnce(u32) -> io::Result<IoUring>) -> Result<Self, Unavailable> {
        let refused = |step| move |error: io::Error| Unavailable::Refused(step, error.raw_os_error().unwrap_or(0));
        let mut ring = setup(depth).map_err(refused("io_uring_setup"))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(refused("io_uring_register"))?;
        for (code, name) in [
            (opcode::Read::CODE, "READ"),
            (opcode::Write::CODE, "WRITE"),
            (opcode::Fsync::CODE, "FSYNC"),
            (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        ] {
            if !probe.is_supported(code) {
                return Err(Unavailable::Missing(name));
            }
        }
        // A filter may allow the setup and refuse the entering.
        // SAFETY: an operation without memory.
        unsafe { ring.submission().push(&opcode::Nop::new().build()) }
            .map_err(|_| Unavailable::Refused("io_uring_enter", Errno::NOSPC.raw_os_error()))?;
        retry(|| ring.submit_and_wait(1)).map_err(refused("io_uring_enter"))?;
        _ = ring.completion().next();
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Unavailable::Refused("eventfd", errno.raw_os_error()))?;
        ring.submitter().register_eventfd(signal.as_raw_fd()).map_err(refused("io_uring_register"))?;
        Ok(Self {
            remembered: Some(fork::remember([ring.as_raw_fd(), signal.as_raw_fd()])),
            ring: ManuallyDrop::new(ring),
            signal: ManuallyDrop::new(signal),
            table: Mutex::new(Table::new(depth as usize)),
            head: Mutex::new(()),
            epoch: fork::epoch(),
            process: std::process::id(),
            _counted: Counted::new(Kind::Rings),
        })
    }

    /// Refuses in a forked child: the ring is its parent's, and its memory is not even there.
    pub fn check_fork(&self) -> Result<(), Error> {
        if self.epoch == fork::epoch() { Ok(()) } else { Err(Error::Forked { parent: self.process }) }
    }

    /// The descriptor that is readable when there is something to reap.
    pub fn signal(&self) -> RawFd {
        self.signal.as_raw_fd()
    }

    /// Takes an operation; a closed ring gives the payload back. [`Self::flush`] takes it to the kernel.
    ///
    /// # Safety
    ///
    /// The memory that the request names must be the payload's own, stay where it is, and be used by nobody else in a way
    /// that the operation forbids, until the payload has been given back or was abandoned.
    pub unsafe fn submit(&self, request: Request, payload: P) -> Result<Token, P> {
        let (mut table, mut way_in) = self.enter();
        table.submit(request, payload, &mut way_in)
    }

    /// Asks for the end of an operation.
    pub fn cancel(&self, token: Token) -> Cancelled<P> {
        let (mut table, mut way_in) = self.enter();
        table.cancel(token, &mut way_in)
    }

    /// Asks for the end of every operation of a descriptor; gives back those that never began.
    pub fn cancel_descriptor(&self, fd: RawFd) -> Vec<Done<P>> {
        let (mut table, mut way_in) = self.enter();
        table.cancel_descriptor(fd, &mut way_in)
    }

    /// Takes nothing more: gives back what never began, and asks for the end of the rest.
    pub fn close(&self) -> Vec<Done<P>> {
        let (mut table, mut way_in) = self.enter();
        table.close(&mut way_in)
    }

    /// What has ended, and whether something is to be flushed.
    pub fn reap(&self) -> (Vec<Done<P>>, bool) {
        // The signal before the queue: what ends in between signals again.
        let _ = retry_on_intr(|| read(&*self.signal, &mut [0; 8]));
        let head = self.head.lock();
        // SAFETY: the head of this queue is moved under the mutex only.
        let ended: Vec<_> = unsafe { self.ring.completion_shared() }
            .filter(|entry| entry.user_data() != NOBODY)
            .map(|entry| (Token(entry.user_data()), entry.result()))
            .collect();
        drop(head);
        let (mut table, mut way_in) = self.enter();
        let done = ended.into_iter().filter_map(|(token, result)| table.finish(token, result)).collect();
        table.pump(&mut way_in);
        (done, !way_in.queue.is_empty())
    }

    /// Takes to the kernel what was put in, by whomever. Detached; copies what the kernel can read or write at once.
    pub fn flush(&self) {
        let mut since = None;
        loop {
            let (mut table, mut way_in) = self.enter();
            table.pump(&mut way_in);
            let empty = way_in.queue.is_empty();
            drop(way_in);
            drop(table);
            if empty {
                return;
            }
            // Under no lock: two threads that submit submit the same entries, and the kernel takes each once.
            match retry(|| self.ring.submitter().submit()) {
                Ok(_) => since = None,
                // No memory, or no room for completions that nobody has reaped.
                Err(_) if since.get_or_insert_with(Instant::now).elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => {
                    // Whoever reaps flushes.
                    let _ = retry_on_intr(|| write(&*self.signal, &1_u64.to_ne_bytes()));
                    return;
                }
            }
        }
    }

    /// Waits until there is something to reap, or until `limit` has gone by. Detached.
    pub fn wait(&self, limit: Duration) -> bool {
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        // The ring's own number and not the signal's: another thread may have taken the signal and not yet the rest.
        // SAFETY: the ring is open as long as `self`.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        poll(&mut [PollFd::new(&ring, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
    }

    /// How many the kernel has.
    pub fn inside(&self) -> usize {
        self.table.lock().inside()
    }

    /// How many have not ended.
    pub fn pending(&self) -> usize {
        self.table.lock().len()
    }

    /// Whether it takes nothing more.
    pub fn closed(&self) -> bool {
        self.table.lock().closed()
    }

    /// Shows each payload, for the collector: not at all if somebody is at the table.
    pub fn visit(&self, visit: impl FnMut(&P)) {
        if let Some(table) = self.table.try_lock() {
            table.payloads().for_each(visit);
        }
    }

    fn enter(&self) -> (MutexGuard<'_, Table<P>>, WayIn<'_>) {
        let table = self.table.lock();
        // SAFETY: the tail of this queue is moved under the table's mutex only; the callers drop both together.
        let queue = unsafe { self.ring.submission_shared() };
        (table, WayIn { queue })
    }
}

/// The submission queue, for whoever holds the table's mutex.
struct WayIn<'a> {
    queue: squeue::SubmissionQueue<'a>,
}

impl Sink for WayIn<'_> {
    fn put(&mut self, entry: Entry) -> bool {
        let entry = match entry {
            Entry::Cancel(token) => opcode::AsyncCancel::new(token.0).build().user_data(NOBODY),
            Entry::Start(token, Request { code, fd, address, bytes, offset }) => match code {
                Code::Read => opcode::Read::new(types::Fd(fd), address as *mut u8, bytes).offset(offset).build(),
                Code::Write => opcode::Write::new(types::Fd(fd), address as *const u8, bytes).offset(offset).build(),
                Code::Sync => opcode::Fsync::new(types::Fd(fd)).build(),
            }
            .user_data(token.0),
        };
        // SAFETY: `Ring::submit` had the promise that the memory stays.
        unsafe { self.queue.push(&entry) }.is_ok()
    }
}

impl<P> Drop for Ring<P> {
    fn drop(&mut self) {
        if self.check_fork().is_err() {
            // The child has neither the mapping nor the descriptors.
            return;
        }
        self.remembered = None;
        // The kernel may still write to their memory: it is given up, and better than given to somebody else.
        core::mem::forget(self.table.lock().abandon());
        // SAFETY: dropped here for the first and only time; `self` is not used again.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.signal);
        }
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "ring/tests.rs"]
mod tests;
