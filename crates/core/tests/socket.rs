//! Sockets that tasks read and write, on real descriptors and over every poller: waking, closing, and whose the number is.
//!
//! A task here is its word alone. It runs from the moment that a thread takes it off the run queue until the test suspends
//! it, so a test holds a running task in its hand.

#![cfg(not(loom))]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use manyhands_core::event_loop::Options;
use manyhands_core::poller::{PollError, PollerKind};
use manyhands_core::socket::{Direction, Notified};
use manyhands_core::task::{TaskPhase, WaitPhase};
use manyhands_core::{Clock, Error, EventLoop, Events, Item, JoinOptions, Next, Payload, RemovalReason, Socket, Task};

struct Nothing;

impl Payload for Nothing {
    fn duplicate(&self) -> Self {
        Self
    }
}

type Loop = Arc<EventLoop<Nothing>>;

/// The numbers of descriptors are the process's, and most of these tests are about numbers: one at a time.
static NUMBERS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    NUMBERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn each_poller(test: impl Fn(PollerKind, Loop)) {
    let _alone = alone();
    for kind in PollerKind::ALL {
        let options =
            Options { poller: kind, clock: Clock::Monotonic, parallel: true, handover: Duration::from_micros(200) };
        test(kind, EventLoop::new(options).unwrap_or_else(|error| panic!("{error:?}")));
    }
}

/// A socket and its peer.
fn opened(event_loop: &Loop, tcp: bool) -> (Arc<Socket<Nothing>>, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    for end in [&near, &far] {
        end.set_nonblocking(true).unwrap();
    }
    let (socket, displaced) =
        event_loop.socket(near.into_raw_fd(), tcp, false).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(displaced.is_none());
    (socket, far)
}

/// Looks once: the tasks that were taken off the run queue are running now.
fn look(event_loop: &Loop) -> Vec<Arc<Task<Nothing>>> {
    let mut running = Vec::new();
    let options = JoinOptions { one_tick: true, ..JoinOptions::default() };
    let Some(mut seat) = event_loop.enter(options).unwrap() else { return running };
    loop {
        match event_loop.next(&mut seat) {
            Next::Run(Item::Task(task)) => running.push(task),
            Next::Run(_) | Next::Come(_) | Next::Unserved(_) => {}
            Next::Finished(finished) => drop(finished),
            Next::Wait => event_loop.wait(&mut seat),
            Next::Leave => break,
        }
    }
    drop(event_loop.leave(seat));
    running
}

/// A task that runs.
fn running(event_loop: &Loop) -> Arc<Task<Nothing>> {
    let task = Task::new(None);
    event_loop.wake(event_loop.start_task(&task));
    let running = look(event_loop);
    assert!(running.len() == 1 && Arc::ptr_eq(&running[0], &task));
    task
}

/// A task that waits; the ticket of its wait.
fn waiting(event_loop: &Loop, socket: &Socket<Nothing>, direction: Direction) -> (Arc<Task<Nothing>>, u32) {
    let task = running(event_loop);
    // Whatever is ready is disproved first, as by a system call that finds nothing.
    while let Some(seen) = socket.look(direction) {
        _ = socket.exhausted(direction, seen);
    }
    let ticket = task.open(true);
    assert!(socket.wait(direction, &task, ticket));
    event_loop.suspend_task(&task);
    (task, ticket)
}

fn woken(event_loop: &Loop, task: &Arc<Task<Nothing>>) -> bool {
    look(event_loop).iter().any(|running| Arc::ptr_eq(running, task))
}

fn is_open(fd: RawFd) -> bool {
    std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists()
}

/// Puts another file under a number.
fn reuse(fd: RawFd) -> UnixStream {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    // SAFETY: the number is open, and whoever owned it is told by what the test does next.
    let mut number = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
    rustix::io::dup2(&near, &mut number).unwrap();
    far
}

#[test]
fn what_comes_wakes_the_task_that_waits_for_it_and_no_other() {
    each_poller(|kind, event_loop| {
        let (socket, mut far) = opened(&event_loop, false);
        let (reader, _) = waiting(&event_loop, &socket, Direction::Read);
        assert!(look(&event_loop).is_empty(), "{kind:?}: nothing has come");
        far.write_all(b"x").unwrap();
        assert!(woken(&event_loop, &reader), "{kind:?}");
        assert!(!reader.take());
        assert!(socket.look(Direction::Read).is_some());
        reader.finish();
    });
}

#[test]
fn a_direction_that_is_ready_leaves_the_other_waiting() {
    each_poller(|kind, event_loop| {
        let (socket, mut far) = opened(&event_loop, false);
        // With edges the first look would report that it can be written to.
        look(&event_loop);
        let (reader, _) = waiting(&event_loop, &socket, Direction::Read);
        while let Some(lease) = socket.lease() {
            if rustix::io::write(lease.fd(), &[0; 4096]).is_err() {
                break;
            }
        }
        let (writer, _) = waiting(&event_loop, &socket, Direction::Write);
        assert!(look(&event_loop).is_empty(), "{kind:?}: full, and nothing has come");
        let mut sink = vec![0; 1 << 20];
        while far.read(&mut sink).is_ok() {}
        assert!(woken(&event_loop, &writer), "{kind:?}");
        assert_eq!(reader.word().phase, TaskPhase::Suspended);
        far.write_all(b"x").unwrap();
        assert!(woken(&event_loop, &reader), "{kind:?}");
        for task in [reader, writer] {
            task.finish();
        }
    });
}

#[test]
fn a_ticket_that_was_taken_back_wakes_nobody_and_the_next_is_served() {
    each_poller(|kind, event_loop| {
        let (socket, mut far) = opened(&event_loop, false);
        let (first, ticket) = waiting(&event_loop, &socket, Direction::Read);
        let schedule = first.abort(ticket).unwrap();
        event_loop.wake(event_loop.queue_task(&first, schedule));
        assert!(woken(&event_loop, &first));
        assert!(first.take(), "aborted");
        socket.forget(Direction::Read, ticket);
        far.write_all(b"x").unwrap();
        assert!(look(&event_loop).is_empty(), "{kind:?}");
        first.finish();
        let (second, _) = waiting(&event_loop, &socket, Direction::Read);
        far.write_all(b"y").unwrap();
        assert!(woken(&event_loop, &second), "{kind:?}");
        second.finish();
    });
}

#[test]
fn a_short_read_is_the_last_only_of_tcp_and_only_if_nothing_odd_was_reported() {
    each_poller(|_, event_loop| {
        for (tcp, ends, left) in [(true, false, false), (true, true, true), (false, false, true)] {
            let (socket, mut far) = opened(&event_loop, tcp);
            let (task, _) = waiting(&event_loop, &socket, Direction::Read);
            far.write_all(b"x").unwrap();
            if ends {
                far.shutdown(std::net::Shutdown::Write).unwrap();
            }
            assert!(woken(&event_loop, &task));
            task.finish();
            let seen = socket.look(Direction::Read).unwrap();
            // `poll` and `select` report no end, and a level besides: there the next wait finds it.
            let odd = seen.events().bits() & !Events::READ.union(Events::WRITE).bits() != 0;
            socket.short(Direction::Read, seen);
            assert_eq!(socket.look(Direction::Read).is_some(), left && (!tcp || odd), "tcp={tcp} ends={ends}");
        }
    });
}

#[test]
fn a_close_tells_who_waits_and_closes_the_number_once() {
    each_poller(|kind, event_loop| {
        let (socket, _far) = opened(&event_loop, false);
        let (reader, _) = waiting(&event_loop, &socket, Direction::Read);
        let fd = socket.fd();
        assert!(socket.close());
        assert!(!socket.close());
        assert!(!is_open(fd));
        assert!(socket.lease().is_none());
        assert!(woken(&event_loop, &reader), "{kind:?}");
        assert!(!reader.take());
        let ticket = reader.open(true);
        assert!(!socket.wait(Direction::Read, &reader, ticket), "{kind:?}: it is closed");
        reader.finish();
    });
}

#[test]
fn the_number_is_open_for_as_long_as_somebody_has_a_lease() {
    each_poller(|_, event_loop| {
        let (socket, _far) = opened(&event_loop, false);
        let fd = socket.fd();
        let (one, two) = (socket.lease().unwrap(), socket.lease().unwrap());
        assert!(socket.close());
        drop(one);
        assert!(is_open(fd));
        drop(two);
        assert!(!is_open(fd));
    });
}

#[test]
fn a_socket_that_nobody_has_closes_its_number() {
    each_poller(|_, event_loop| {
        let (socket, _far) = opened(&event_loop, false);
        let fd = socket.fd();
        drop(socket);
        assert!(!is_open(fd));
    });
}

#[test]
fn a_close_of_a_number_that_is_another_files_closes_nothing() {
    each_poller(|kind, event_loop| {
        let (socket, _far) = opened(&event_loop, false);
        let fd = socket.fd();
        let _far = reuse(fd);
        assert!(socket.close());
        assert!(is_open(fd), "{kind:?}");
        // SAFETY: the number is the test's.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    });
}

#[test]
fn the_next_owner_of_a_number_displaces_a_socket_and_it_touches_the_number_no_more() {
    each_poller(|kind, event_loop| {
        let (old, _far) = opened(&event_loop, false);
        let (reader, _) = waiting(&event_loop, &old, Direction::Read);
        let fd = old.fd();
        let mut far = reuse(fd);
        let (new, displaced) = event_loop.socket(fd, false, false).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(displaced.is_none());
        assert!(woken(&event_loop, &reader), "{kind:?}");
        assert!(!reader.take());
        reader.finish();
        assert!(old.closed() && old.lease().is_none());
        drop(old);
        assert!(is_open(fd), "{kind:?}");
        let (reader, _) = waiting(&event_loop, &new, Direction::Read);
        far.write_all(b"x").unwrap();
        assert!(woken(&event_loop, &reader), "{kind:?}");
        reader.finish();
        assert!(new.close());
        assert!(!is_open(fd));
    });
}

#[test]
fn a_socket_displaces_a_watch_which_ends() {
    each_poller(|kind, event_loop| {
        let (near, _far) = UnixStream::pair().unwrap();
        let fd = near.into_raw_fd();
        let added = event_loop.add(fd, Events::READ, None, |_| Ok::<_, Error>(Nothing));
        let (watch, _) = added.unwrap_or_else(|error| panic!("{error:?}"));
        let _far = reuse(fd);
        let (socket, displaced) = event_loop.socket(fd, false, false).unwrap_or_else(|error| panic!("{error:?}"));
        let ended = displaced.unwrap_or_else(|| panic!("{kind:?}: the watch has ended"));
        assert_eq!(ended.reason, RemovalReason::FdGone);
        assert!(Arc::ptr_eq(&ended.watch, &watch));
        drop(ended);
        assert!(socket.close());
    });
}

#[test]
fn a_descriptor_that_was_closed_behind_its_back_is_noticed_where_the_poller_sees_it() {
    each_poller(|kind, event_loop| {
        let (socket, _far) = opened(&event_loop, false);
        let (reader, ticket) = waiting(&event_loop, &socket, Direction::Read);
        // SAFETY: this is the mistake that is tested.
        drop(unsafe { OwnedFd::from_raw_fd(socket.fd()) });
        let noticed = woken(&event_loop, &reader);
        // epoll forgets in silence; there it is noticed when the number has its next owner.
        assert_eq!(noticed, kind != PollerKind::Epoll, "{kind:?}");
        assert_eq!(socket.closed(), noticed);
        if !noticed {
            assert!(reader.abort(ticket).is_some());
        }
        reader.finish();
    });
}

#[test]
fn a_wait_on_a_descriptor_that_was_closed_behind_its_back_ends_where_the_poller_is_told_of_it() {
    each_poller(|kind, event_loop| {
        if kind == PollerKind::Epoll {
            return;
        }
        let (socket, _far) = opened(&event_loop, false);
        let task = running(&event_loop);
        // SAFETY: this is the mistake that is tested.
        drop(unsafe { OwnedFd::from_raw_fd(socket.fd()) });
        while let Some(seen) = socket.look(Direction::Read) {
            _ = socket.exhausted(Direction::Read, seen);
        }
        let ticket = task.open(true);
        assert!(socket.wait(Direction::Read, &task, ticket));
        assert_eq!(task.word().wait, WaitPhase::Ready, "{kind:?}");
        assert!(socket.closed());
        task.finish();
    });
}

#[test]
fn whoever_closes_the_number_himself_says_so_and_finds_it_free() {
    each_poller(|kind, event_loop| {
        assert!(matches!(event_loop.notify_closing(-1), Notified::Nobody));
        let (socket, _far) = opened(&event_loop, false);
        let (reader, _) = waiting(&event_loop, &socket, Direction::Read);
        let fd = socket.fd();
        let Notified::Socket(told) = event_loop.notify_closing(fd) else { panic!("{kind:?}: a socket has it") };
        told.vacate();
        assert!(woken(&event_loop, &reader), "{kind:?}");
        assert!(socket.closed() && is_open(fd));
        reader.finish();
        assert!(matches!(event_loop.notify_closing(fd), Notified::Nobody));
        // Nothing of it is registered: it can be again.
        let (again, _) = event_loop.socket(fd, false, false).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(again.close());
        assert!(!is_open(fd));
    });
}

#[test]
fn a_watch_ends_when_its_number_is_about_to_be_closed() {
    each_poller(|kind, event_loop| {
        let (near, _far) = UnixStream::pair().unwrap();
        let added = event_loop.add(near.as_raw_fd(), Events::READ, None, |_| Ok::<_, Error>(Nothing));
        let (watch, _) = added.unwrap_or_else(|error| panic!("{error:?}"));
        let Notified::Watch(Some(ended)) = event_loop.notify_closing(near.as_raw_fd()) else {
            panic!("{kind:?}: a watch has it");
        };
        assert_eq!(ended.reason, RemovalReason::FdGone);
        assert!(watch.removed().is_some());
    });
}

#[test]
fn a_descriptor_that_is_refused_is_the_callers() {
    each_poller(|kind, event_loop| {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let refused = event_loop.socket(file.as_raw_fd(), false, false).map(|_| ()).unwrap_err();
        assert!(matches!(refused, Error::Poll(PollError::NotPollable)), "{kind:?}: {refused:?}");
        assert!(is_open(file.as_raw_fd()));
        let (near, _far) = UnixStream::pair().unwrap();
        drop(event_loop.close().unwrap());
        let refused = event_loop.socket(near.as_raw_fd(), false, false).map(|_| ()).unwrap_err();
        assert!(matches!(refused, Error::Closed), "{refused:?}");
        assert!(is_open(near.as_raw_fd()));
    });
}

#[test]
fn a_socket_outlives_its_loop_and_can_be_closed() {
    each_poller(|_, event_loop| {
        let (one, _far) = opened(&event_loop, false);
        let (two, _far) = opened(&event_loop, false);
        drop(event_loop.close().unwrap());
        assert!(one.close());
        assert!(!is_open(one.fd()));
        drop(event_loop);
        assert!(two.close());
        assert!(!is_open(two.fd()));
    });
}
