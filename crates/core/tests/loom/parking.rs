//! A thread that decides to wait, against somebody who makes work for it. A lost wake-up is loom's deadlock.

use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Gate, Loop, Making, close, explore, join, join_with, post, watch};
use manyhands_core::JoinOptions;

/// T50. The leader decides to wait in the poller while somebody posts.
#[test]
fn the_leaders_park_races_a_post_and_the_message_runs() {
    explore("park of the leader against post", || {
        let files = Files::open(0);
        let event_loop = Making::LAZY.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        let other = {
            let (event_loop, ran) = (event_loop.clone(), ran.clone());
            thread::spawn(move || post_one_of_two(&event_loop, &ran))
        };
        post_one_of_two(&event_loop, &ran);
        other.join().unwrap();
        turner.join().unwrap();
        assert_eq!(ran.get(), 2);
        close(&event_loop, &ended);
    });
}

/// A message; the second of two stops the loop.
fn post_one_of_two(event_loop: &Loop, ran: &Count) {
    let (ran, stopped) = (ran.clone(), event_loop.clone());
    let call = Call::new(move || {
        if ran.add() == 2 {
            stopped.request_stop(false).unwrap();
        }
    });
    assert!(post(event_loop, None, call));
}

/// T19, T51. Two messages that need each other, twice: the second of each pair must reach the other thread, on its way to
/// park, parked, or parked again.
#[test]
fn the_followers_park_races_a_post_and_both_messages_run() {
    explore("park of the follower against post", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let turners: Vec<_> = (0..2)
            .map(|_| {
                let (event_loop, ended) = (event_loop.clone(), ended.clone());
                thread::spawn(move || join(&event_loop, &ended))
            })
            .collect();
        let met = Gate::new();
        let first = met.clone();
        post_a_pair(&event_loop, move || first.open());
        met.pass();
        let stopped = event_loop.clone();
        post_a_pair(&event_loop, move || stopped.request_stop(false).unwrap());
        for turner in turners {
            turner.join().unwrap();
        }
        close(&event_loop, &ended);
    });
}

/// Two messages, each of which waits until the other runs; the first goes on with `then`.
fn post_a_pair(event_loop: &Loop, then: impl Fn() + Send + Sync + 'static) {
    let met = [Gate::new(), Gate::new()];
    let other = met.clone();
    let call = Call::new(move || {
        other[1].open();
        other[0].pass();
    });
    let first = Call::new(move || {
        met[0].open();
        met[1].pass();
        then();
    });
    assert!(post(event_loop, None, first));
    assert!(post(event_loop, None, call));
}

/// T22. A watch added while the leader is on its way into the poller is served.
#[test]
fn the_leaders_park_races_an_add_and_the_watch_is_served() {
    explore("park of the leader against add", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        files.write(0);
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        let watched = {
            let (files, stopped) = (files.clone(), event_loop.clone());
            watch(&event_loop, 0, move || {
                files.read(0);
                stopped.request_stop(false).unwrap();
            })
        };
        turner.join().unwrap();
        assert_eq!(watched.removed(), None);
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 1);
    });
}

/// T8, T51. A thread leaves after its first handler while a message comes that it may have been woken for: the other
/// joined thread runs it.
#[test]
fn leave_races_a_post_and_the_other_thread_runs_it() {
    explore("leave against post", || {
        let files = Files::open(0);
        let event_loop = Making::LAZY.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        let brief = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            let options = JoinOptions { max_handlers: Some(1), ..JoinOptions::default() };
            thread::spawn(move || join_with(&event_loop, &ended, options))
        };
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        post_one_of_two(&event_loop, &ran);
        post_one_of_two(&event_loop, &ran);
        turner.join().unwrap();
        brief.join().unwrap();
        assert_eq!(ran.get(), 2);
        close(&event_loop, &ended);
    });
}

/// T97. A timer is cancelled while another thread turns the loop, and its payload, when it is dropped, sets a timer and
/// posts: payloads are dropped under no lock, so nobody waits for himself or in a ring.
#[test]
fn cancel_races_the_leader_and_the_payload_is_dropped_under_no_lock() {
    explore("cancel against the leader", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        let last = LastWords { event_loop: Some(event_loop.clone()), ran: ran.clone() };
        let call = Call::new(move || {
            let _kept = &last;
        });
        let strand = event_loop.strand(None, None).unwrap();
        let token = event_loop.set_timer(1, None, Some(&strand), call);
        let token = token.unwrap_or_else(|refused| panic!("{:?}", refused.error));
        assert!(event_loop.cancel_timer(token, Some(&strand)));
        turner.join().unwrap();
        assert_eq!(ran.get(), 1);
        close(&event_loop, &ended);
    });
}

/// Part of a payload: what an object's finalizer does.
struct LastWords {
    event_loop: Option<Loop>,
    ran: Count,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let Some(event_loop) = self.event_loop.take() else { return };
        assert!(event_loop.set_timer(u64::MAX, None, None, Call::nothing()).is_ok());
        let (ran, stopped) = (self.ran.clone(), event_loop.clone());
        let call = Call::new(move || {
            ran.add();
            stopped.request_stop(false).unwrap();
        });
        assert!(post(&event_loop, None, call));
    }
}
