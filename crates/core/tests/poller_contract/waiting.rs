//! How long a wait lasts, what ends it, and what may be called beside it.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use manyhands_core::poller::{Events, Mode, PollEvent, Poller, PollerKind};

use crate::support::*;

for_every_poller!(
    a_wait_lasts_as_long_as_its_timeout,
    a_wait_without_limit_ends_with_an_event,
    a_wake_ends_the_wait_in_progress,
    a_wake_ends_the_next_wait_if_none_is_in_progress,
    many_wakes_end_one_wait,
    a_wake_with_a_full_counter_does_not_block_and_is_not_lost,
    wakes_race_the_wait_and_none_is_lost,
    wakes_race_the_settling_of_a_wake_and_none_is_lost,
    an_add_takes_effect_for_the_wait_in_progress,
    a_modify_takes_effect_for_the_wait_in_progress,
    a_disarm_and_a_delete_take_effect_for_the_wait_in_progress,
    a_file_that_is_deleted_and_closed_beside_a_wait_is_closed,
    changes_race_the_wait_and_no_event_is_lost,
    ready_sees_and_takes_nothing,
    ready_does_not_count_a_wake_and_does_not_lose_it,
    ready_may_be_asked_beside_a_wait,
);

/// Run `during` while another thread is blocked in a wait without limit, then return what that wait reported.
fn during_a_wait(kind: PollerKind, poller: &dyn Poller, during: impl FnOnce()) -> Vec<PollEvent> {
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            tell.send(thread_id()).unwrap();
            let mut out = Vec::new();
            poller.wait(&mut out, Some(LONG)).unwrap();
            out
        });
        until_waiting(told.recv().unwrap(), kind);
        let start = Instant::now();
        during();
        let out = waiter.join().unwrap();
        assert!(start.elapsed() < LONG / 2, "the wait was not ended");
        out
    })
}

/// Wait, also through returns that report nothing, until there is a report; panics at the limit.
fn next_reports(poller: &dyn Poller) -> Vec<PollEvent> {
    let start = Instant::now();
    loop {
        let out = within(poller, LONG);
        if !out.is_empty() {
            return out;
        }
        assert!(start.elapsed() < LONG, "nothing was reported");
    }
}

fn a_wait_lasts_as_long_as_its_timeout(kind: PollerKind) {
    let poller = opened(kind);
    for microseconds in [1, 300, 999, 1001, 1500, 20_900] {
        let timeout = Duration::from_micros(microseconds);
        let start = Instant::now();
        assert_eq!(within(&*poller, timeout), []);
        assert!(start.elapsed() >= timeout, "{:?} of {timeout:?}", start.elapsed());
    }
    // Beyond what the kernel's types hold: not an error.
    for endless in [Duration::from_secs(1 << 40), Duration::MAX] {
        poller.wake();
        assert_eq!(within(&*poller, endless), []);
    }
}

fn a_wait_without_limit_ends_with_an_event(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    let out = during_a_wait(kind, &*poller, || send(&b));
    assert_eq!(out, [event(1, Events::READ)]);
}

fn a_wake_ends_the_wait_in_progress(kind: PollerKind) {
    let poller = opened(kind);
    for _ in 0..20 {
        assert_eq!(during_a_wait(kind, &*poller, || poller.wake()), []);
    }
}

fn a_wake_ends_the_next_wait_if_none_is_in_progress(kind: PollerKind) {
    let poller = opened(kind);
    poller.wake();
    ended(&*poller);
}

fn many_wakes_end_one_wait(kind: PollerKind) {
    let poller = opened(kind);
    for _ in 0..1000 {
        poller.wake();
    }
    ended(&*poller);
    let start = Instant::now();
    assert_eq!(within(&*poller, SHORT), []);
    assert!(start.elapsed() >= SHORT, "a second wait was ended by the same wakes");
}

fn a_wake_with_a_full_counter_does_not_block_and_is_not_lost(kind: PollerKind) {
    let poller = opened(kind);
    let raw = match poller.raw_fds() {
        [wake, -1] => wake,
        [_, wake] => wake,
    };
    // SAFETY: the poller owns it and outlives the borrow.
    let counter = unsafe { BorrowedFd::borrow_raw(raw) };
    rustix::io::write(counter, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    now(&*poller);
    // Epoll never empties its counter, so it is full still; the others have found it readable and emptied it.
    let _ = rustix::io::write(counter, &(u64::MAX - 1).to_ne_bytes());
    for _ in 0..3 {
        assert_eq!(during_a_wait_after_settling(kind, &*poller), []);
    }
}

fn during_a_wait_after_settling(kind: PollerKind, poller: &dyn Poller) -> Vec<PollEvent> {
    now(poller);
    during_a_wait(kind, poller, || poller.wake())
}

/// Two threads, each of which wakes the waiter once for every round and goes on when it has been heard, so that its
/// next wake meets the waiter on its way back into the wait.
fn wakes_race_the_wait_and_none_is_lost(kind: PollerKind) {
    let poller = opened(kind);
    let (said, heard) = ([AtomicU64::new(0), AtomicU64::new(0)], AtomicU64::new(0));
    std::thread::scope(|scope| {
        for word in &said {
            scope.spawn(|| say_every_round(&*poller, word, &heard));
        }
        hear_every_round(&*poller, &said, &heard);
    });
}

/// The same beside a thread that does nothing but wake, and so meets the waiter at every step of its return.
fn wakes_race_the_settling_of_a_wake_and_none_is_lost(kind: PollerKind) {
    let poller = opened(kind);
    let (said, heard) = ([AtomicU64::new(0)], AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| say_every_round(&*poller, &said[0], &heard));
        scope.spawn(|| {
            while heard.load(Ordering::Relaxed) < ROUNDS / 2 {
                poller.wake();
            }
        });
        hear_every_round(&*poller, &said, &heard);
    });
}

const ROUNDS: u64 = 5_000;

fn say_every_round(poller: &dyn Poller, word: &AtomicU64, heard: &AtomicU64) {
    for round in 1..=ROUNDS {
        // Relaxed: that the waiter sees it is the promise of `wake`.
        word.store(round, Ordering::Relaxed);
        poller.wake();
        until(|| heard.load(Ordering::Acquire) >= round);
    }
}

fn hear_every_round(poller: &dyn Poller, said: &[AtomicU64], heard: &AtomicU64) {
    let mut round = 0;
    while round < ROUNDS {
        ended(poller);
        round = said.iter().map(|word| word.load(Ordering::Relaxed)).min().unwrap();
        heard.store(round, Ordering::Release);
    }
}

fn an_add_takes_effect_for_the_wait_in_progress(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    send(&b);
    let out = during_a_wait(kind, &*poller, || add(&*poller, &a, 1, Events::READ, Mode::Level));
    // Epoll reports it in the same wait; the others return first, to ask again.
    let out = if out.is_empty() { now(&*poller) } else { out };
    assert_eq!(out, [event(1, Events::READ)]);
}

fn a_modify_takes_effect_for_the_wait_in_progress(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::OneShot);
    send(&b);
    assert_eq!(now(&*poller).len(), 1);
    let out = during_a_wait(kind, &*poller, || {
        poller.modify(a.as_raw_fd(), 2, Events::READ, Mode::OneShot).unwrap();
    });
    let out = if out.is_empty() { now(&*poller) } else { out };
    assert_eq!(out, [event(2, Events::READ)]);
}

fn a_disarm_and_a_delete_take_effect_for_the_wait_in_progress(kind: PollerKind) {
    let (poller, (a, b), (c, d)) = (opened(kind), pair(), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    add(&*poller, &c, 2, Events::READ, Mode::Level);
    let out = during_a_wait(kind, &*poller, || {
        poller.disarm(a.as_raw_fd(), 1).unwrap();
        poller.delete(c.as_raw_fd()).unwrap();
        send(&b);
        send(&d);
        poller.wake();
    });
    assert_eq!(out, []);
    assert_eq!(now(&*poller), []);
}

fn a_file_that_is_deleted_and_closed_beside_a_wait_is_closed(kind: PollerKind) {
    let poller = opened(kind);
    let over = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                _ = within(&*poller, LONG);
            }
        });
        let _end = End(&over, &*poller);
        let mut listener = TcpListener::bind("127.0.0.1:0");
        let mut rounds = 0;
        while let Ok(listening) = listener
            && rounds < 1_000
        {
            rounds += 1;
            add(&*poller, &listening, 1, Events::READ, Mode::Level);
            let address = listening.local_addr().unwrap();
            poller.delete(listening.as_raw_fd()).unwrap();
            drop(listening);
            listener = TcpListener::bind(address);
        }
        rounds
    });
    assert_eq!(taken, 1_000, "then the port was not free");
}

/// Ends the thread that waits, also when the test fails.
struct End<'a>(&'a AtomicBool, &'a dyn Poller);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.wake();
    }
}

fn changes_race_the_wait_and_no_event_is_lost(kind: PollerKind) {
    let (poller, (a, b), (c, _d)) = (opened(kind), pair(), pair());
    add(&*poller, &a, 1, Events::READ, Mode::OneShot);
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let poller = &*poller;
        scope.spawn(move || {
            // Another number comes and goes, and wakes the user-space pollers at every turn.
            while told.try_recv() == Err(mpsc::TryRecvError::Empty) {
                add(poller, &c, 3, Events::READ, Mode::Level);
                poller.modify(c.as_raw_fd(), 3, Events::PRIORITY, Mode::Level).unwrap();
                poller.delete(c.as_raw_fd()).unwrap();
            }
        });
        for round in 2..2_000 {
            send(&b);
            let reports = next_reports(poller);
            assert_eq!(reports, [event(round - 1, Events::READ)]);
            receive(&a);
            poller.modify(a.as_raw_fd(), round, Events::READ, Mode::OneShot).unwrap();
        }
        tell.send(()).unwrap();
    });
}

fn ready_sees_and_takes_nothing(kind: PollerKind) {
    for mode in [Mode::Level, Mode::OneShot, Mode::Edge] {
        let (poller, (a, b)) = (opened(kind), pair());
        add(&*poller, &a, 1, Events::READ, mode);
        assert_eq!(poller.ready(), Ok(false));
        send(&b);
        assert_eq!(poller.ready(), Ok(true));
        assert_eq!(poller.ready(), Ok(true));
        assert_eq!(now(&*poller), [event(1, Events::READ)]);
        assert_eq!(poller.ready(), Ok(mode == Mode::Level));
    }
}

fn ready_does_not_count_a_wake_and_does_not_lose_it(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::OneShot);
    poller.wake();
    assert_eq!(poller.ready(), Ok(false));
    ended(&*poller); // the wake is still there
    poller.wake();
    send(&b);
    assert_eq!(poller.ready(), Ok(true));
    assert_eq!(now(&*poller), [event(1, Events::READ)]);
    assert_eq!(poller.ready(), Ok(false));
    assert_eq!(during_a_wait_after_settling(kind, &*poller), []);
}

fn ready_may_be_asked_beside_a_wait(kind: PollerKind) {
    let (poller, (a, b)) = (opened(kind), pair());
    add(&*poller, &a, 1, Events::READ, Mode::Level);
    let out = during_a_wait(kind, &*poller, || {
        for _ in 0..100 {
            assert_eq!(poller.ready(), Ok(false));
        }
        send(&b);
    });
    assert_eq!(out, [event(1, Events::READ)]);
}
