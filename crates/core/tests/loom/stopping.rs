//! Stop against join: everybody leaves. Somebody who does not is loom's deadlock.

use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Making, close, explore, join, join_with, post};
use manyhands_core::{Error, Events, JoinOptions, Life, RemovalReason};

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

/// T7. Two of three joined threads stop the loop from their handlers; the third waits.
#[test]
fn stop_races_stop_and_every_thread_leaves() {
    explore("stop against stop", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        for _ in 0..2 {
            let stopped = event_loop.clone();
            let call = Call::new(move || stopped.request_stop(false).unwrap());
            assert!(post(&event_loop, None, call));
        }
        let turners: Vec<_> = (0..2)
            .map(|_| {
                let (event_loop, ended) = (event_loop.clone(), ended.clone());
                thread::spawn(move || join(&event_loop, &ended))
            })
            .collect();
        join(&event_loop, &ended);
        for turner in turners {
            turner.join().unwrap();
        }
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
        assert!(post(&event_loop, None, call));
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

/// T8, T15. A thread that stays until the loop is idle leaves after the last handler has ended on the other thread, and
/// not before: whether the lead is handed over at once, or only when a handler lasts.
#[test]
fn idle_races_the_last_handler_and_the_waiter_leaves_after_it() {
    for (name, making) in [("idle, eager", Making::EAGER), ("idle, lazy", Making::LAZY)] {
        explore(name, move || {
            let files = Files::open(0);
            let event_loop = making.on(&files);
            let (ended, ran) = (Count::default(), Count::default());
            let call = {
                let ran = ran.clone();
                Call::new(move || {
                    ran.add();
                    ran.add();
                })
            };
            assert!(post(&event_loop, None, call));
            let turner = {
                let (event_loop, ended) = (event_loop.clone(), ended.clone());
                thread::spawn(move || join(&event_loop, &ended))
            };
            join_with(&event_loop, &ended, JoinOptions { until_idle: true, ..JoinOptions::default() });
            assert_eq!(ran.get(), 2, "left before the handler had ended");
            event_loop.request_stop(false).unwrap();
            turner.join().unwrap();
            close(&event_loop, &ended);
        });
    }
}

/// T9. A join, a stop and a restart meet: whoever is in when the restart comes keeps it from happening, and a thread that
/// joins after it is served.
#[test]
fn join_races_stop_and_restart_and_the_message_runs() {
    explore("join against stop and restart", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        event_loop.request_stop(false).unwrap();
        let call = {
            let (ran, stopped) = (ran.clone(), event_loop.clone());
            Call::new(move || {
                ran.add();
                stopped.request_stop(false).unwrap();
            })
        };
        assert!(post(&event_loop, None, call));
        match event_loop.restart() {
            Ok(()) => {}
            Err(Error::Inside { .. }) => {
                turner.join().unwrap();
                assert_eq!(ran.get(), 0, "run after the stop");
                event_loop.restart().unwrap();
                join(&event_loop, &ended);
                assert_eq!(ran.get(), 1);
                return close(&event_loop, &ended);
            }
            Err(error) => panic!("{error:?}"),
        }
        // The thread left before the restart, or comes after it.
        join(&event_loop, &ended);
        turner.join().unwrap();
        assert_eq!(ran.get(), 1);
        close(&event_loop, &ended);
    });
}

/// T16. An `add` that meets the close of the loop is taken and ended by it, or refused; nothing stays in the kernel.
#[test]
fn add_races_close_and_nothing_stays_registered() {
    explore("add against close", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let adder = {
            let event_loop = event_loop.clone();
            thread::spawn(move || {
                event_loop.add(0, Events::READ, None, |_| Ok::<_, Error>(Call::nothing())).map(|(watch, _)| watch)
            })
        };
        let ended = Count::default();
        close(&event_loop, &ended);
        match adder.join().unwrap() {
            Ok(watch) => {
                assert_eq!(watch.removed(), Some(RemovalReason::LoopClosed));
                assert_eq!(ended.get(), 1);
            }
            Err(error) => assert_eq!(error, Error::Closed),
        }
        assert_eq!(event_loop.life(), Life::Closed);
        assert_eq!(files.registered(0), None);
    });
}
