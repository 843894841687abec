//! Stop against join: everybody leaves. Somebody who does not is loom's deadlock.

use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Making, close, explore, join};
use manyhands_core::event_loop::{Origin, Place};

/// T1, T2, T13. Two threads join while a third stops the loop: before, in the poller, parked, or never in.
#[test]
fn stop_races_join_and_every_thread_leaves() {
    explore("stop against join", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let turners: Vec<_> = (0..2)
            .map(|_| {
                let (event_loop, ended) = (event_loop.clone(), ended.clone());
                thread::spawn(move || join(&event_loop, &ended))
            })
            .collect();
        event_loop.request_stop(false).unwrap();
        assert!(event_loop.wait_left(None));
        for turner in turners {
            turner.join().unwrap();
        }
        close(&event_loop, &ended);
    });
}

/// T7. Two threads that are joined stop the loop from their handlers.
#[test]
fn stop_races_stop_and_every_thread_leaves() {
    explore("stop against stop", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        for _ in 0..2 {
            let stopped = event_loop.clone();
            let call = Call::new(move || stopped.request_stop(false).unwrap());
            assert!(event_loop.post_alone(call, Place::Ordinary, Origin::Outside).is_ok());
        }
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        join(&event_loop, &ended);
        turner.join().unwrap();
        close(&event_loop, &ended);
    });
}

/// T11. A drain with two joined threads and one message ends, and the message has run.
#[test]
fn drain_races_join_and_every_thread_leaves() {
    explore("drain against join", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        let call = {
            let ran = ran.clone();
            Call::new(move || _ = ran.add())
        };
        assert!(event_loop.post_alone(call, Place::Ordinary, Origin::Outside).is_ok());
        let turners: Vec<_> = (0..2)
            .map(|_| {
                let (event_loop, ended) = (event_loop.clone(), ended.clone());
                thread::spawn(move || join(&event_loop, &ended))
            })
            .collect();
        event_loop.request_stop(true).unwrap();
        for turner in turners {
            turner.join().unwrap();
        }
        assert_eq!(ran.get(), 1);
        close(&event_loop, &ended);
    });
}
