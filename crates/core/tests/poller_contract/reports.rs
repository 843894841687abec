//! What is reported, under which token, and how often.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};

use manyhands_core::poller::{Events, MAX_EVENTS, Mode, PollerKind};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SendFlags;

use crate::support::*;

for_every_poller!(
    a_condition_is_reported_under_its_token,
    nothing_is_reported_while_nothing_is_so,
    a_condition_that_is_so_already_counts,
    only_what_was_asked_for_is_reported,
    a_level_is_reported_at_every_wait,
    one_shot_is_reported_once_until_it_is_armed_again,
    an_edge_is_reported_once_and_again_when_armed,
    modify_replaces_token_and_events,
    a_disarmed_descriptor_is_silent_until_modify,
    a_disarmed_descriptor_whose_peer_closed_does_not_repeat_itself,
    a_deleted_descriptor_is_not_reported,
    a_hang_up_reaches_a_registration_that_asked_only_for_read,
    an_error_reaches_a_registration_that_asked_only_for_write,
    urgent_data_is_a_priority,
    reports_are_appended,
    a_full_batch_has_256_reports_and_later_ones_go_round,
);

fn a_condition_is_reported_under_its_token(kind: PollerKind) {
    let (poller, (a, b), (c, d)) = (opened(kind), pair(), pair());
    add(&*poller, &a, 7, Events::READ, Mode::Level);
    add(&*poller, &c, u64::MAX - 1, Events::READ, Mode::Level);
    send(&b);
    assert_eq!(now(&*poller), [event(7, Events::READ)]);
    receive(&a);
    send(&d);
    assert_eq!(now(&*poller), [event(u64::MAX - 1, Events::READ)]);
}

fn nothing_is_reported_while_nothing_is_so(kind: PollerKind) {
    let (poller, (a, _b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ | Events::PRIORITY, Mode::Level);
    assert_eq!(now(&*poller), []);
}

fn a_condition_that_is_so_already_counts(kind: PollerKind) {
    for mode in [Mode::Level, Mode::OneShot, Mode::Edge] {
        let (poller, (a, b)) = (opened(kind), pair());
        send(&b);
        add(&*poller, &a, 1, Events::READ, mode);
        assert_eq!(now(&*poller), [event(1, Events::READ)], "{mode:?}");
    }
}

fn only_what_was_asked_for_is_reported(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    send(&b);
    add(&*poller, &a, 1, Events::WRITE, Mode::Level);
    assert_eq!(now(&*poller), [event(1, Events::WRITE)]);
    poller.modify(a.as_raw_fd(), 1, Events::READ | Events::WRITE, Mode::Level).unwrap();
    assert_eq!(now(&*poller), [event(1, Events::READ | Events::WRITE)]);
    poller.modify(a.as_raw_fd(), 1, Events::PRIORITY, Mode::Level).unwrap();
    assert_eq!(now(&*poller), []);
}

fn a_level_is_reported_at_every_wait(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    send(&b);
    for _ in 0..3 {
        assert_eq!(now(&*poller), [event(1, Events::READ)]);
    }
    receive(&a);
    assert_eq!(now(&*poller), []);
}

fn one_shot_is_reported_once_until_it_is_armed_again(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::OneShot);
    for _ in 0..2 {
        send(&b);
        assert_eq!(now(&*poller), [event(1, Events::READ)]);
        send(&b);
        assert_eq!(now(&*poller), []);
        poller.modify(a.as_raw_fd(), 1, Events::READ, Mode::OneShot).unwrap();
    }
}

fn an_edge_is_reported_once_and_again_when_armed(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Edge);
    send(&b);
    assert_eq!(now(&*poller), [event(1, Events::READ)]);
    assert_eq!(now(&*poller), []);
    send(&b);
    let more = match kind {
        PollerKind::Epoll => vec![event(1, Events::READ)],
        PollerKind::Poll | PollerKind::Select => vec![], // no edges: it is a one-shot there
    };
    assert_eq!(now(&*poller), more);
    poller.modify(a.as_raw_fd(), 1, Events::READ, Mode::Edge).unwrap();
    assert_eq!(now(&*poller), [event(1, Events::READ)]);
}

fn modify_replaces_token_and_events(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    send(&b);
    poller.modify(a.as_raw_fd(), 2, Events::WRITE, Mode::OneShot).unwrap();
    assert_eq!(now(&*poller), [event(2, Events::WRITE)]);
    assert_eq!(now(&*poller), []);
}

fn a_disarmed_descriptor_is_silent_until_modify(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    poller.disarm(a.as_raw_fd(), 1).unwrap();
    send(&b);
    assert_eq!(now(&*poller), []);
    assert_eq!(poller.ready(), Ok(false));
    poller.modify(a.as_raw_fd(), 1, Events::READ, Mode::Level).unwrap();
    assert_eq!(now(&*poller), [event(1, Events::READ)]);
}

fn a_disarmed_descriptor_whose_peer_closed_does_not_repeat_itself(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    poller.disarm(a.as_raw_fd(), 1).unwrap();
    drop(b);
    let first = match kind {
        PollerKind::Epoll => vec![event(1, Events::HANGUP)],
        PollerKind::Poll | PollerKind::Select => vec![],
    };
    assert_eq!(now(&*poller), first);
    assert_eq!(now(&*poller), []);
    poller.modify(a.as_raw_fd(), 1, Events::READ, Mode::Level).unwrap();
    let seen = match kind {
        PollerKind::Select => Events::READ,
        PollerKind::Epoll | PollerKind::Poll => Events::READ | Events::HANGUP,
    };
    assert_eq!(now(&*poller), [event(1, seen)]);
}

fn a_deleted_descriptor_is_not_reported(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    send(&b);
    poller.delete(a.as_raw_fd()).unwrap();
    assert_eq!(now(&*poller), []);
    add(&*poller, &a, 2, Events::READ, Mode::Level);
    assert_eq!(now(&*poller), [event(2, Events::READ)]);
}

fn a_hang_up_reaches_a_registration_that_asked_only_for_read(kind: PollerKind) {
    let poller = opened(kind);
    let (read, write) = rustix::pipe::pipe().unwrap();
    add(&*poller, &read, 1, Events::READ, Mode::Level);
    drop(write);
    let seen = match kind {
        PollerKind::Select => Events::READ, // three sets, and no hang-up among them
        PollerKind::Epoll | PollerKind::Poll => Events::HANGUP,
    };
    assert_eq!(now(&*poller), [event(1, seen)]);
}

fn an_error_reaches_a_registration_that_asked_only_for_write(kind: PollerKind) {
    let poller = opened(kind);
    let (read, write) = rustix::pipe::pipe().unwrap();
    add(&*poller, &write, 1, Events::WRITE, Mode::Level);
    drop(read);
    let seen = match kind {
        PollerKind::Select => Events::WRITE,
        PollerKind::Epoll | PollerKind::Poll => Events::WRITE | Events::ERROR,
    };
    assert_eq!(now(&*poller), [event(1, seen)]);
}

fn urgent_data_is_a_priority(kind: PollerKind) {
    let poller = opened(kind);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (receiver, _) = listener.accept().unwrap();
    add(&*poller, &receiver, 1, Events::PRIORITY, Mode::Level);
    rustix::net::send(sender.as_fd(), b"!", SendFlags::OOB).unwrap();
    assert_eq!(within(&*poller, LONG), [event(1, Events::PRIORITY)]);
}

fn reports_are_appended(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    send(&b);
    let mut out = vec![event(9, Events::WRITE)];
    assert_eq!(poller.wait(&mut out, None), Ok(1));
    assert_eq!(out, [event(9, Events::WRITE), event(1, Events::READ)]);
}

fn a_full_batch_has_256_reports_and_later_ones_go_round(kind: PollerKind) {
    // Three of this test at once would have more open than a usual limit allows.
    static MANY_DESCRIPTORS: Mutex<()> = Mutex::new(());
    let _alone = MANY_DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner);
    let poller = opened(kind);
    let ready: Vec<_> = (0..300).map(|_| eventfd(1, EventfdFlags::CLOEXEC).unwrap()).collect();
    for (token, fd) in (0..).zip(&ready) {
        add(&*poller, fd, token, Events::READ, Mode::Level);
    }
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let batch = now(&*poller);
        assert_eq!(batch.len(), MAX_EVENTS);
        seen.extend(batch.iter().map(|event| event.token));
    }
    assert_eq!(seen.len(), ready.len());
}
