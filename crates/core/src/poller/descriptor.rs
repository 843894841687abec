//! Descriptors, seen from a poller: numbers that belong to somebody else, and the few it owns itself.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::PollError;

impl From<Errno> for PollError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::BADF => Self::BadDescriptor,
            Errno::PERM => Self::NotPollable,
            Errno::EXIST => Self::Exists,
            Errno::NOENT => Self::Missing,
            other => Self::Os(other.raw_os_error()),
        }
    }
}

/// A caller's number as something that system calls can be made with. Negative numbers are refused here, before
/// any system call: -1 is the niche of `BorrowedFd`, so that making one of it is undefined behaviour.
pub(super) fn borrow(fd: RawFd) -> Result<BorrowedFd<'static>, PollError> {
    if fd < 0 {
        return Err(PollError::BadDescriptor);
    }
    // SAFETY: `fd` is not -1. It may be closed, by its owner, at any moment: every use here is one system call
    // that only names the number, and the kernel answers EBADF. Nothing is read, written or closed through it.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// `None` is "for ever". A time too long for the kernel becomes the longest it has.
pub(super) fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    })
}

/// What tells one open file from the next that gets its number: device and inode. Sockets, pipes and terminals have
/// their own; all eventfds, timerfds, signalfds and epolls of a system share one, and so do the two ends of a pipe:
/// there a reuse cannot be seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The identity of what `fd` is now.
    pub(super) fn of(fd: RawFd) -> Result<Self, PollError> {
        Self::look(fd).map(|(identity, _)| identity)
    }

    /// The same, refusing what epoll would refuse. `poll` and `select` take these kinds and report them ready for
    /// ever, which would be a spinning loop instead of an error.
    pub(super) fn of_pollable(fd: RawFd) -> Result<Self, PollError> {
        match Self::look(fd)? {
            (_, FileType::RegularFile | FileType::Directory | FileType::BlockDevice) => Err(PollError::NotPollable),
            (identity, _) => Ok(identity),
        }
    }

    // The fields have other widths on other targets, hence conversions that are none on this one.
    #[allow(clippy::useless_conversion)]
    fn look(fd: RawFd) -> Result<(Self, FileType), PollError> {
        let stat = rustix::fs::fstat(borrow(fd)?)?;
        let identity = Self { device: stat.st_dev.into(), inode: stat.st_ino.into() };
        Ok((identity, FileType::from_raw_mode(stat.st_mode)))
    }
}

/// A descriptor that only the process which opened it closes. After a fork the child's copy of this value is a
/// number that the child has perhaps closed and reused already.
pub(super) struct OwnDescriptor {
    fd: ManuallyDrop<OwnedFd>,
    process: u32,
}

impl OwnDescriptor {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd: ManuallyDrop::new(fd), process: std::process::id() }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Lets `duplicate` put another file under the same number.
    pub(super) fn replace(&self, duplicate: impl FnOnce(&mut OwnedFd) -> Result<(), Errno>) -> Result<(), Errno> {
        // SAFETY: the number is ours, and open until `self` is dropped; it is not closed here.
        let mut same = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.raw()) });
        duplicate(&mut same)
    }

    fn is_foreign(&self) -> bool {
        self.process != std::process::id()
    }
}

impl AsFd for OwnDescriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for OwnDescriptor {
    fn drop(&mut self) {
        if !self.is_foreign() {
            // SAFETY: dropped here for the first and only time; `self` is not used again.
            unsafe { ManuallyDrop::drop(&mut self.fd) }
        }
    }
}
