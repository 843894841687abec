//! How a wait is ended from outside: an eventfd, and one bit that makes many wakes one system call.
//!
//! The bit is set by whoever wakes and cleared by the wait that returns for it. Both are read-modify-writes, so that
//! a thread which finds the bit set, and writes nothing, still hands what it published to the thread that clears it.
//! The order that matters is in `drain` and in the wait of `epoll.rs`: the eventfd is emptied *before* the bit is
//! cleared. The other way round, a wake in between would be swallowed with its bit still set, and every later wake
//! would rely on a write that is gone.

use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, retry_on_intr, write};

use super::PollError;
use super::descriptor::OwnDescriptor;

pub(super) struct Wake {
    fd: OwnDescriptor,
    pending: AtomicBool,
}

impl Wake {
    pub(super) fn open() -> Result<Self, PollError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd: OwnDescriptor::new(fd), pending: AtomicBool::new(false) })
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.raw()
    }

    /// End the wait in progress, or the next one.
    pub(super) fn signal(&self) {
        // ORDER: AcqRel; Release pairs with the Acquire in `settle`: what the caller published is seen by the
        // thread whose wait returns, also if another caller's write is what ends it.
        if self.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.write() == Err(Errno::AGAIN) {
            // The counter is full (somebody else wrote to the number). It is readable, but a write that fails is
            // no new edge for epoll: empty it and write again.
            self.empty();
            let _ = self.write();
        }
    }

    /// The wait has seen the eventfd. Call before looking at what the wakers published.
    pub(super) fn settle(&self) {
        // ORDER: AcqRel; Acquire pairs with the Release in `signal`.
        self.pending.swap(false, Ordering::AcqRel);
    }

    /// `settle`, for a poller that sees levels and not edges: the eventfd must not be readable any more.
    pub(super) fn drain(&self) {
        self.drain_by(|| self.empty());
    }

    /// The order of the two, apart from what empties: a test puts a wake between them.
    fn drain_by(&self, empty: impl FnOnce()) {
        empty();
        self.settle();
    }

    /// True if a wake is under way that no wait has returned for. A hint: it may change at once.
    pub(super) fn is_pending(&self) -> bool {
        // ORDER: Acquire; nothing is read through it, it only keeps the look at the poller behind it.
        self.pending.load(Ordering::Acquire)
    }

    fn write(&self) -> Result<usize, Errno> {
        retry_on_intr(|| write(&self.fd, &1_u64.to_ne_bytes()))
    }

    fn empty(&self) {
        let _ = retry_on_intr(|| read(&self.fd, &mut [0; 8]));
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_races_the_draining_and_the_next_one_is_not_lost() {
        let wake = Wake::open().unwrap();
        wake.signal();
        wake.drain_by(|| {
            wake.signal();
            wake.empty();
        });
        wake.signal();
        assert_eq!(read(&wake, &mut [0; 8]), Ok(8), "readable again");
    }
}
