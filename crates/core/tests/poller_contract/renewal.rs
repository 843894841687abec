//! Registrations that no number leads to any more, and how all others survive leaving them behind.

use std::os::fd::{AsRawFd, OwnedFd};

use manyhands_core::poller::{Events, Mode, PollerKind, Registration};

use crate::support::*;

for_every_poller!(
    a_renewal_keeps_what_is_wanted_as_it_is_wanted,
    a_dead_registration_is_reported_until_the_renewal,
    a_renewal_leaves_out_a_number_that_belongs_to_another_file_by_now,
    a_wake_before_a_renewal_ends_the_next_wait,
);

fn wanted(fd: &impl AsRawFd, token: u64, events: Events, mode: Mode) -> Registration {
    Registration { fd: fd.as_raw_fd(), token, events, mode }
}

fn a_renewal_keeps_what_is_wanted_as_it_is_wanted(kind: PollerKind) {
    let poller = opened(kind);
    let (level, once, silent) = (pair(), pair(), pair());
    add(&*poller, &level.0, 1, Events::READ, Mode::Level);
    add(&*poller, &once.0, 2, Events::READ, Mode::OneShot);
    add(&*poller, &silent.0, 3, Events::READ, Mode::OneShot);
    assert_eq!(poller.disarm(silent.0.as_raw_fd(), 3), Ok(()));
    let numbers = poller.raw_fds();
    let renewed = poller.renew(&[
        wanted(&level.0, 1, Events::READ, Mode::Level),
        wanted(&once.0, 2, Events::READ, Mode::OneShot),
        wanted(&silent.0, 3, Events::NONE, Mode::OneShot),
    ]);
    assert_eq!(renewed, Ok(()));
    assert_eq!(poller.raw_fds(), numbers, "a fork closes them by number");
    for (_, far) in [&level, &once, &silent] {
        send(far);
    }
    let mut first = next_but_wakes(&*poller);
    first.sort_by_key(|event| event.token);
    assert_eq!(first, [event(1, Events::READ), event(2, Events::READ)]);
    assert_eq!(now(&*poller), [event(1, Events::READ)]);
    assert_eq!(poller.modify(silent.0.as_raw_fd(), 3, Events::READ, Mode::Level), Ok(()), "it is registered");
    assert_eq!(poller.delete(once.0.as_raw_fd()), Ok(()));
}

/// The reports of the first wait that has any: the first after a renewal may end for a wake of before.
fn next_but_wakes(poller: &dyn manyhands_core::poller::Poller) -> Vec<manyhands_core::poller::PollEvent> {
    let first = now(poller);
    if first.is_empty() { now(poller) } else { first }
}

fn a_dead_registration_is_reported_until_the_renewal(kind: PollerKind) {
    let (poller, (own, far), (a, b)) = (opened(kind), private_socket(), pair());
    let _kept = own.try_clone().unwrap();
    add(&*poller, &own, 1, Events::READ, Mode::Level);
    add(&*poller, &a, 2, Events::READ, Mode::Level);
    send(&far);
    drop(own);
    let dead = now(&*poller);
    if kind == PollerKind::Epoll {
        assert_eq!(dead, [event(1, Events::READ)]);
        assert_eq!(now(&*poller), dead, "for ever");
    } else {
        assert_eq!(dead, [event(1, Events::GONE)], "the others look at the number, once");
    }
    assert_eq!(poller.renew(&[wanted(&a, 2, Events::READ, Mode::Level)]), Ok(()));
    assert_eq!(next_but_wakes(&*poller), []);
    send(&b);
    assert_eq!(now(&*poller), [event(2, Events::READ)]);
}

fn a_renewal_leaves_out_a_number_that_belongs_to_another_file_by_now(kind: PollerKind) {
    let (poller, (mut own, _far), (a, b)) = (opened(kind), private_socket(), pair());
    add(&*poller, &own, 1, Events::READ, Mode::Level);
    send(&b);
    reuse(&mut own, OwnedFd::from(a));
    assert_eq!(poller.renew(&[wanted(&own, 1, Events::READ, Mode::Level)]), Ok(()));
    let reports = next_but_wakes(&*poller);
    assert!(reports.iter().all(|report| report.events == Events::GONE), "{reports:?}");
    assert_eq!(now(&*poller), []);
}

fn a_wake_before_a_renewal_ends_the_next_wait(kind: PollerKind) {
    let poller = opened(kind);
    poller.wake();
    assert_eq!(poller.renew(&[]), Ok(()));
    ended(&*poller);
    poller.wake();
    ended(&*poller);
}
