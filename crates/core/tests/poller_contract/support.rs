//! What the tests share: descriptors to watch, numbers nobody else takes, and looking at a blocked thread.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use manyhands_core::poller::{Events, Mode, PollEvent, Poller, PollerKind, open};

/// A limit that must not be reached.
pub const LONG: Duration = Duration::from_secs(10);

/// Long enough that "it waited" and "it returned at once" cannot be confused.
pub const SHORT: Duration = Duration::from_millis(30);

pub fn opened(kind: PollerKind) -> Box<dyn Poller> {
    open(kind).expect("the poller opens")
}

/// A connected pair that never blocks.
pub fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a socket pair");
    near.set_nonblocking(true).expect("non-blocking");
    far.set_nonblocking(true).expect("non-blocking");
    (near, far)
}

pub fn send(mut to: &UnixStream) {
    assert_eq!(to.write(b"x").expect("one byte fits"), 1);
}

pub fn receive(mut from: &UnixStream) {
    let _ = from.read(&mut [0; 64]).expect("bytes to read");
}

/// What a wait that does not block reports.
pub fn now(poller: &dyn Poller) -> Vec<PollEvent> {
    within(poller, Duration::ZERO)
}

pub fn within(poller: &dyn Poller, timeout: Duration) -> Vec<PollEvent> {
    let mut out = Vec::new();
    let count = poller.wait(&mut out, Some(timeout)).expect("the poller waits");
    assert_eq!(count, out.len(), "wait returns how many it appended");
    out
}

/// Wait, and fail if nothing but the limit ended it.
pub fn ended(poller: &dyn Poller) {
    let start = Instant::now();
    assert_eq!(within(poller, LONG), []);
    assert!(start.elapsed() < LONG / 2, "a wake was lost");
}

pub fn event(token: u64, events: Events) -> PollEvent {
    PollEvent { token, events }
}

pub fn add(poller: &dyn Poller, fd: &impl AsRawFd, token: u64, events: Events, mode: Mode) {
    poller.add(fd.as_raw_fd(), token, events, mode).expect("registered");
}

/// A duplicate of `fd` under a number that no other test uses, and that nothing else in the process is given: the
/// kernel hands out the lowest free number, and the tests never have that many open.
pub fn private_number(fd: impl AsFd) -> OwnedFd {
    static NEXT: AtomicI32 = AtomicI32::new(700);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < 1024, "out of private numbers");
    let own = rustix::io::fcntl_dupfd_cloexec(fd, number).expect("a duplicate");
    assert_eq!(own.as_raw_fd(), number);
    own
}

/// A socket that is open under one private number only, and its other end.
pub fn private_socket() -> (OwnedFd, UnixStream) {
    let (near, far) = pair();
    (private_number(&near), far)
}

/// A number that is closed, and stays so.
pub fn closed_number() -> RawFd {
    private_socket().0.as_raw_fd()
}

/// Let the number of `fd` be another file, in one step.
pub fn reuse(fd: &mut OwnedFd, by: impl AsFd) {
    rustix::io::dup2(by, fd).expect("the number is reused");
}

pub fn thread_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// The number of the system call a thread of this process is blocked in; `None` while it runs.
pub fn blocked_in(thread: i32) -> Option<i64> {
    let path = format!("/proc/self/task/{thread}/syscall");
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The system calls that wait: epoll_pwait, ppoll, pselect6 (the classic ones are these, with one argument less).
pub const fn waits_in(kind: PollerKind) -> i64 {
    let (epoll, poll, select) = if cfg!(target_arch = "x86_64") { (281, 271, 270) } else { (22, 73, 72) };
    match kind {
        PollerKind::Epoll => epoll,
        PollerKind::Poll => poll,
        PollerKind::Select => select,
    }
}

/// Return once `thread` is blocked in the wait of a poller of this kind.
pub fn until_waiting(thread: i32, kind: PollerKind) {
    until(|| blocked_in(thread) == Some(waits_in(kind)));
}

pub fn until(so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < LONG, "it did not come about");
        std::thread::yield_now();
    }
}
