//! What concerns the process: which system call waits, signals, descriptors owned, and a forked child.

use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use manyhands_core::poller::{Events, Mode, PollError, Poller, PollerKind};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::support::*;

// What rustix keeps to itself; the libc that std links has them.
unsafe extern "C" {
    fn fork() -> i32;
    fn _exit(status: i32) -> !;
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn pthread_kill(thread: std::os::unix::thread::RawPthread, number: i32) -> i32;
}

const SIGUSR1: i32 = 10;

for_every_poller!(
    it_waits_in_its_own_system_call,
    a_signal_ends_the_wait_without_an_error,
    its_descriptors_are_closed_with_it,
    its_descriptors_are_not_inherited_across_exec,
    a_poller_whose_descriptor_was_closed_says_so_instead_of_spinning,
    a_forked_child_that_drops_it_leaves_the_numbers_alone,
);

fn is_open(fd: RawFd) -> bool {
    // SAFETY: not -1 (the callers filter), and only asked whether it is open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_getfd(fd).is_ok()
}

fn owned(poller: &dyn Poller) -> Vec<RawFd> {
    poller.raw_fds().into_iter().filter(|&fd| fd != -1).collect()
}

fn it_waits_in_its_own_system_call(kind: PollerKind) {
    let poller = opened(kind);
    for timeout in [None, Some(LONG), Some(Duration::MAX)] {
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let poller = &*poller;
            scope.spawn(move || {
                tell.send(thread_id()).unwrap();
                poller.wait(&mut Vec::new(), timeout).unwrap();
            });
            let waiter = told.recv().unwrap();
            // Any call of this kind, so that a wrong one fails below instead of waiting for ever.
            const EPOLL_PWAIT2: i64 = 441;
            let calls = PollerKind::ALL.map(waits_in);
            let waits = |call| call == EPOLL_PWAIT2 || calls.contains(&call);
            until(|| blocked_in(waiter).is_some_and(waits));
            let call = blocked_in(waiter);
            poller.wake();
            assert_eq!(call, Some(waits_in(kind)));
        });
    }
}

extern "C" fn ignore(_: i32) {}

fn a_signal_ends_the_wait_without_an_error(kind: PollerKind) {
    // SAFETY: the handler does nothing.
    unsafe { signal(SIGUSR1, ignore) };
    let poller: Arc<dyn Poller> = Arc::from(opened(kind));
    let (tell, told) = mpsc::channel();
    let waiter = std::thread::spawn({
        let poller = Arc::clone(&poller);
        move || {
            tell.send(thread_id()).unwrap();
            poller.wait(&mut Vec::new(), Some(LONG))
        }
    });
    until_waiting(told.recv().unwrap(), kind);
    let start = Instant::now();
    // SAFETY: the thread is not joined yet.
    assert_eq!(unsafe { pthread_kill(waiter.as_pthread_t(), SIGUSR1) }, 0);
    assert_eq!(waiter.join().unwrap(), Ok(0));
    assert!(start.elapsed() < LONG / 2);
    poller.wake();
    ended(&*poller); // it goes on as before
}

fn its_descriptors_are_closed_with_it(kind: PollerKind) {
    // Counted in a child, where no other test opens anything.
    let status = in_a_child(|| {
        let count = || std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0);
        let before = count();
        let poller = opened(kind);
        let owned = owned(&*poller);
        let fits = owned.iter().all(|&fd| is_open(fd)) && count() == before + owned.len();
        drop(poller);
        fits && count() == before
    });
    assert_eq!(status, Some(0));
}

fn its_descriptors_are_not_inherited_across_exec(kind: PollerKind) {
    let poller = opened(kind);
    for fd in owned(&*poller) {
        // SAFETY: the poller owns it and outlives the borrow.
        let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}

fn a_poller_whose_descriptor_was_closed_says_so_instead_of_spinning(kind: PollerKind) {
    // In a child: the number must not be somebody else's when the poller uses it.
    let status = in_a_child(|| {
        let poller = opened(kind);
        // SAFETY: open, and given up by the poller's owner; the poller is forgotten below.
        unsafe { rustix::io::close(owned(&*poller)[0]) };
        let answer = poller.wait(&mut Vec::new(), Some(SHORT));
        std::mem::forget(poller);
        answer == Err(PollError::BadDescriptor)
    });
    assert_eq!(status, Some(0));
}

fn a_forked_child_that_drops_it_leaves_the_numbers_alone(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    let numbers = owned(&*poller);
    let parents = &poller;
    let status = in_a_child(|| {
        // SAFETY: a copy of the parent's box, dropped once in this process, which never returns to the original.
        drop(unsafe { std::ptr::read(parents) });
        numbers.iter().all(|&fd| is_open(fd))
    });
    assert_eq!(status, Some(0), "the child still had the numbers after the drop");
    send(&b);
    assert_eq!(now(&*poller), [event(1, Events::READ)], "the parent's registration is untouched");
}

/// The exit status of a forked child that runs `check`: 0 for true.
fn in_a_child(check: impl FnOnce() -> bool) -> Option<i32> {
    // SAFETY: the child runs `check` on its only thread and ends without returning; libc makes its allocator usable
    // after a fork.
    match unsafe { fork() } {
        0 => {
            let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
            // SAFETY: it ends the child, with nothing flushed or dropped twice.
            unsafe { _exit(if matches!(answer, Ok(true)) { 0 } else { 1 }) }
        }
        child => {
            let child = Pid::from_raw(child).expect("forked");
            let (_, status) = waitpid(Some(child), WaitOptions::empty()).ok()??;
            status.exit_status()
        }
    }
}
