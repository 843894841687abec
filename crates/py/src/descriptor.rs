//! Waiting for a descriptor in a job, so that a stop ends the wait.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::{attach, current};

const READ: u32 = 1;
const WRITE: u32 = 2;

fn flags(events: u32) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, events & READ != 0);
    flags.set(PollFlags::OUT, events & WRITE != 0);
    flags
}

/// Wait until a descriptor can be read (1) or written to (2); a hang-up or an error is both. In a job that is told to stop
/// it raises `JobStopped`, at once.
///
/// Returns:
///     What is ready of what was asked for; 0 after `timeout` seconds.
#[pyfunction]
#[pyo3(signature = (fd, events, timeout = None))]
pub fn wait_descriptor(py: Python<'_>, fd: i32, events: u32, timeout: Option<f64>) -> PyResult<u32> {
    if fd < 0 || events & !(READ | WRITE) != 0 || events == 0 {
        return Err(PyValueError::new_err(format!(
            "wait_descriptor takes an open descriptor and READ, WRITE or both, and got {fd}, {events}"
        )));
    }
    let timeout = attach::timeout("timeout", timeout)?;
    crate::pool::check_in(py)?;
    let stop = match current::job(py) {
        None => None,
        Some(job) => {
            let made = job.get().core().stop_descriptor(job.get().job());
            Some(made.map_err(|errno| PyOSError::new_err((errno, "no descriptor to be told to stop by")))?)
        }
    };
    let failed = std::sync::atomic::AtomicI32::new(0);
    let found = std::sync::atomic::AtomicU32::new(0);
    let order = std::sync::atomic::Ordering::Relaxed;
    attach::wait(py, timeout, |limit| {
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let limit = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            // SAFETY: neither number is negative. The user's may be closed meanwhile: poll then reports NVAL. The job's
            // own lives as long as the job, which this thread runs.
            let borrow = |fd| unsafe { BorrowedFd::borrow_raw(fd) };
            let user = borrow(fd);
            let stop = stop.map(borrow);
            let mut fds = vec![PollFd::new(&user, flags(events))];
            fds.extend(stop.as_ref().map(|stop| PollFd::new(stop, PollFlags::IN)));
            match poll(&mut fds, limit.as_ref()) {
                // The interpreter looks for signals, and comes back.
                Err(Errno::INTR) if deadline.is_some() => return false,
                Err(Errno::INTR) => continue,
                Err(error) => failed.store(error.raw_os_error(), order),
                Ok(0) => return false,
                Ok(_) => {
                    let got = fds[0].revents();
                    if got.contains(PollFlags::NVAL) {
                        failed.store(Errno::BADF.raw_os_error(), order);
                    }
                    let both = got.intersects(PollFlags::HUP | PollFlags::ERR);
                    let mut ready = if both { events } else { 0 };
                    ready |= if got.contains(PollFlags::IN) { READ } else { 0 };
                    ready |= if got.contains(PollFlags::OUT) { WRITE } else { 0 };
                    found.store(ready & events, order);
                }
            }
            return true;
        }
    })?;
    crate::pool::check_in(py)?;
    match failed.into_inner() {
        0 => Ok(found.into_inner()),
        errno => Err(PyOSError::new_err((errno, std::io::Error::from_raw_os_error(errno).to_string()))),
    }
}
