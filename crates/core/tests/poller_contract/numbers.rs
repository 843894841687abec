//! Numbers: refused, registered twice, closed under the poller, reused for another file.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use manyhands_core::poller::{Events, Mode, PollError, PollerKind, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

for_every_poller!(
    a_negative_number_is_refused_by_every_call,
    a_closed_number_is_refused,
    what_is_always_ready_is_refused,
    a_second_add_is_refused_and_the_first_stays,
    what_is_not_registered_is_missing,
    a_second_delete_is_missing,
    a_descriptor_closed_before_the_wait_is_reported_gone_once,
    a_number_reused_before_the_wait_is_reported_gone_once,
    a_reused_number_is_missing_to_modify_disarm_and_delete,
    a_closed_number_is_not_there_to_modify_disarm_and_delete,
    a_reused_number_can_be_added_and_only_the_new_file_is_reported,
    a_number_beyond_fd_setsize_is_too_large_for_select_only,
);

fn a_negative_number_is_refused_by_every_call(kind: PollerKind) {
    let poller = opened(kind);
    for fd in [-1, -100, i32::MIN] {
        assert_eq!(poller.add(fd, 1, Events::READ, Mode::Level), Err(PollError::BadDescriptor));
        assert_eq!(poller.modify(fd, 1, Events::READ, Mode::Level), Err(PollError::BadDescriptor));
        assert_eq!(poller.disarm(fd, 1), Err(PollError::BadDescriptor));
        assert_eq!(poller.delete(fd), Err(PollError::BadDescriptor));
    }
}

fn a_closed_number_is_refused(kind: PollerKind) {
    let poller = opened(kind);
    let number = closed_number();
    assert_eq!(poller.add(number, 1, Events::READ, Mode::Level), Err(PollError::BadDescriptor));
    assert_eq!(now(&*poller), []);
}

fn what_is_always_ready_is_refused(kind: PollerKind) {
    let poller = opened(kind);
    for always in [a_file(), File::open("/").unwrap()] {
        let refused = poller.add(always.as_raw_fd(), 1, Events::READ, Mode::Level);
        assert_eq!(refused, Err(PollError::NotPollable));
        assert_eq!(poller.delete(always.as_raw_fd()), Err(PollError::Missing));
    }
    assert_eq!(now(&*poller), []);
}

fn a_second_add_is_refused_and_the_first_stays(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    let second = poller.add(a.as_raw_fd(), 2, Events::WRITE, Mode::Level);
    assert_eq!(second, Err(PollError::Exists));
    send(&b);
    assert_eq!(now(&*poller), [event(1, Events::READ)]);
}

fn what_is_not_registered_is_missing(kind: PollerKind) {
    let (poller, (a, _b)) = (opened(kind), pair());
    let fd = a.as_raw_fd();
    assert_eq!(poller.modify(fd, 1, Events::READ, Mode::Level), Err(PollError::Missing));
    assert_eq!(poller.disarm(fd, 1), Err(PollError::Missing));
    assert_eq!(poller.delete(fd), Err(PollError::Missing));
}

fn a_second_delete_is_missing(kind: PollerKind) {
    let (poller, (a, _b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    assert_eq!(poller.delete(a.as_raw_fd()), Ok(()));
    assert_eq!(poller.delete(a.as_raw_fd()), Err(PollError::Missing));
}

fn a_file() -> File {
    File::open(std::env::current_exe().unwrap()).unwrap()
}

/// Epoll forgets in silence what nobody else holds open; the others find out and say so.
fn gone_unless_epoll(kind: PollerKind) -> Vec<manyhands_core::poller::PollEvent> {
    match kind {
        PollerKind::Epoll => vec![],
        PollerKind::Poll | PollerKind::Select => vec![event(1, Events::GONE)],
    }
}

fn a_descriptor_closed_before_the_wait_is_reported_gone_once(kind: PollerKind) {
    let (poller, (own, _far), (a, b)) = (opened(kind), private_socket(), pair());
    add(&*poller, &own, 1, Events::READ, Mode::Level);
    drop(own);
    assert_eq!(poller.ready(), Ok(kind != PollerKind::Epoll));
    assert_eq!(now(&*poller), gone_unless_epoll(kind));
    assert_eq!(now(&*poller), []);
    add(&*poller, &a, 2, Events::READ, Mode::Level);
    send(&b);
    assert_eq!(now(&*poller), [event(2, Events::READ)], "the others are served as before");
}

fn a_number_reused_before_the_wait_is_reported_gone_once(kind: PollerKind) {
    let (poller, (mut own, _far), (a, b)) = (opened(kind), private_socket(), pair());
    add(&*poller, &own, 1, Events::READ, Mode::Level);
    send(&b);
    reuse(&mut own, &a);
    assert_eq!(now(&*poller), gone_unless_epoll(kind), "not READ, which is the new owner's");
    assert_eq!(now(&*poller), []);
}

fn a_reused_number_is_missing_to_modify_disarm_and_delete(kind: PollerKind) {
    let socket = OwnedFd::from(pair().0);
    let file = OwnedFd::from(a_file());
    for other in [socket, file] {
        let reused = || {
            let (poller, (mut own, _far)) = (opened(kind), private_socket());
            add(&*poller, &own, 1, Events::READ, Mode::Level);
            reuse(&mut own, &other);
            (poller, own)
        };
        let (poller, own) = reused();
        let modified = poller.modify(own.as_raw_fd(), 1, Events::READ, Mode::Level);
        assert_eq!(modified, Err(PollError::Missing));
        assert_eq!(now(&*poller), [], "whoever heard Missing needs no GONE");
        let (poller, own) = reused();
        assert_eq!(poller.disarm(own.as_raw_fd(), 1), Err(PollError::Missing));
        let (poller, own) = reused();
        assert_eq!(poller.delete(own.as_raw_fd()), Err(PollError::Missing));
        assert_eq!(now(&*poller), []);
    }
}

fn a_closed_number_is_not_there_to_modify_disarm_and_delete(kind: PollerKind) {
    let closed = || {
        let (poller, (own, _far)) = (opened(kind), private_socket());
        add(&*poller, &own, 1, Events::READ, Mode::Level);
        (poller, own.as_raw_fd())
    };
    let (poller, fd) = closed();
    assert_eq!(poller.modify(fd, 1, Events::READ, Mode::Level), Err(PollError::BadDescriptor));
    assert_eq!(now(&*poller), [], "whoever heard BadDescriptor needs no GONE");
    let (poller, fd) = closed();
    assert_eq!(poller.disarm(fd, 1), Err(PollError::BadDescriptor));
    let (poller, fd) = closed();
    assert_eq!(poller.delete(fd), Err(PollError::Missing));
    assert_eq!(now(&*poller), []);
}

fn a_reused_number_can_be_added_and_only_the_new_file_is_reported(kind: PollerKind) {
    let (poller, (mut own, far), (a, b)) = (opened(kind), private_socket(), pair());
    add(&*poller, &own, 1, Events::READ, Mode::Level);
    send(&far);
    reuse(&mut own, &a);
    add(&*poller, &own, 2, Events::READ, Mode::Level);
    assert_eq!(now(&*poller), []);
    send(&b);
    assert_eq!(now(&*poller), [event(2, Events::READ)]);
    assert_eq!(poller.delete(own.as_raw_fd()), Ok(()));
}

fn a_number_beyond_fd_setsize_is_too_large_for_select_only(kind: PollerKind) {
    allow_numbers_up_to(1100);
    let (poller, (a, b)) = (opened(kind), pair());
    let large: OwnedFd = rustix::io::fcntl_dupfd_cloexec(&a, 1024).unwrap();
    let fd = large.as_raw_fd();
    let added = poller.add(fd, 1, Events::READ, Mode::Level);
    send(&b);
    match kind {
        PollerKind::Select => {
            assert_eq!(added, Err(PollError::TooLarge { limit: 1024 }));
            assert_eq!(poller.modify(fd, 1, Events::READ, Mode::Level), Err(PollError::Missing));
            assert_eq!(poller.delete(fd), Err(PollError::Missing));
            assert_eq!(now(&*poller), []);
        }
        PollerKind::Epoll | PollerKind::Poll => {
            assert_eq!(added, Ok(()));
            assert_eq!(now(&*poller), [event(1, Events::READ)]);
        }
    }
}

fn allow_numbers_up_to(number: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < number) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(number), maximum }).unwrap();
    }
}

#[test]
fn a_poller_is_found_by_its_name_only() {
    for kind in PollerKind::ALL {
        assert_eq!(PollerKind::parse(kind.name()), Some(kind));
        assert_eq!(open(kind).unwrap().name(), kind.name());
    }
    assert_eq!(PollerKind::parse("kqueue"), None);
    assert_eq!(PollerKind::parse("EPOLL"), None);
}

#[test]
fn events_print_their_names() {
    assert_eq!(format!("{:?}", Events::NONE), "NONE");
    assert_eq!(format!("{:?}", Events::READ | Events::HANGUP), "READ|HANGUP");
    assert_eq!(format!("{:?}", Events::WRITE | Events::END), "WRITE|END");
    assert_eq!(format!("{:?}", Events(128 + 2)), "WRITE|0x80");
}
