//! A handler that runs, against whoever wants it not to.

use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Making, close, explore, join, post, remove, watch};
use manyhands_core::{Error, Events, RemovalReason, StrandState};

/// T36, T45. When `pause` has waited, no handler is inside and none starts; and whoever told the kernel last, the
/// pause or the re-arm, it is not armed.
#[test]
fn run_races_pause_and_nothing_runs_after_the_wait() {
    explore("run against pause", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let (ended, paused, ran) = (Count::default(), Count::default(), Count::default());
        files.write(0);
        let handler = {
            let (files, paused, ran) = (files.clone(), paused.clone(), ran.clone());
            move || {
                assert_eq!(paused.get(), 0, "a handler after the pause");
                // Once more after this, if nobody pauses it.
                if ran.add() == 2 {
                    files.read(0);
                }
                assert_eq!(paused.get(), 0, "a handler beside the end of the pause");
            }
        };
        let watched = watch(&event_loop, 0, handler);
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        assert!(event_loop.pause(&watched).is_none());
        assert!(event_loop.wait_vacant(&watched, None));
        paused.add();
        event_loop.request_stop(false).unwrap();
        turner.join().unwrap();
        assert_eq!(files.registered(0), Some((watched.token().0, false)), "armed while paused");
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 1);
    });
}

/// T44. A pause that waits is let go by a resume, and the watch is served: whichever of the two tells the kernel last.
#[test]
fn pause_races_resume_and_the_watch_is_served() {
    explore("pause against resume", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let watched = {
            let (files, stopped, ran) = (files.clone(), event_loop.clone(), Count::default());
            watch(&event_loop, 0, move || {
                // The second run depends on the re-arm after the first.
                if ran.add() == 2 {
                    files.read(0);
                    stopped.request_stop(false).unwrap();
                }
            })
        };
        let pauser = {
            let (event_loop, watched) = (event_loop.clone(), watched.clone());
            thread::spawn(move || {
                assert!(event_loop.pause(&watched).is_none());
                assert!(event_loop.wait_vacant(&watched, None));
                let (resumed, gone) = event_loop.resume(&watched);
                assert!(resumed.is_ok() && gone.is_none());
            })
        };
        files.write(0);
        join(&event_loop, &ended);
        pauser.join().unwrap();
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 1);
    });
}

/// T29, T30. Two threads remove a watch whose handler a third may be in: when a removal has waited, nobody is inside
/// and nobody comes; the end is handed out once, to one of the three.
#[test]
fn run_races_remove_and_the_end_is_told_once() {
    explore("run against remove", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let (ended, removed) = (Count::default(), Count::default());
        files.write(0);
        let watched = {
            let (files, removed) = (files.clone(), removed.clone());
            watch(&event_loop, 0, move || {
                assert_eq!(removed.get(), 0, "a handler after the removal");
                files.read(0);
                assert_eq!(removed.get(), 0, "a handler beside the end of the removal");
            })
        };
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        let other = {
            let (event_loop, watched, ended) = (event_loop.clone(), watched.clone(), ended.clone());
            thread::spawn(move || remove(&event_loop, &watched, &ended))
        };
        remove(&event_loop, &watched, &ended);
        removed.add();
        other.join().unwrap();
        event_loop.request_stop(false).unwrap();
        turner.join().unwrap();
        assert_eq!(ended.get(), 1, "ends told");
        assert_eq!(files.registered(0), None);
        assert_eq!(watched.removed(), Some(RemovalReason::Removed));
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 1, "ends told, after the close");
    });
}

/// T33a, T33b. A watch is removed while a timer of its own strand may run: the end is told once, after the timer, and a
/// removal that has waited comes after both.
#[test]
fn a_timer_races_remove_and_the_end_is_told_after_it() {
    explore("timer against remove", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let watched = watch(&event_loop, 0, || ());
        let tick = {
            let ended = ended.clone();
            Call::new(move || {
                assert_eq!(ended.get(), 0, "a timer after the end");
                assert_eq!(ended.get(), 0, "the end beside a timer");
            })
        };
        assert!(event_loop.set_timer(0, None, Some(watched.strand()), tick).is_ok());
        let remover = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || {
                remove(&event_loop, &watched, &ended);
                event_loop.request_stop(false).unwrap();
            })
        };
        // The bounded search begins with this thread: so it finds the timer inside with the fewest switches.
        join(&event_loop, &ended);
        remover.join().unwrap();
        assert_eq!(ended.get(), 1, "ends told");
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 1, "ends told, after the close");
    });
}

/// T18, T47. Two joined threads, one strand: never both inside, and what was posted runs in order, once.
#[test]
fn two_threads_race_for_a_strand_and_one_is_inside() {
    explore("run against run", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, inside, ran) = (Count::default(), Count::default(), Count::default());
        let strand = event_loop.strand(None, None).unwrap();
        let turners: Vec<_> = (0..2)
            .map(|_| {
                let (event_loop, ended) = (event_loop.clone(), ended.clone());
                thread::spawn(move || join(&event_loop, &ended))
            })
            .collect();
        for turn in 1..=2 {
            let (inside, ran, stopped) = (inside.clone(), ran.clone(), event_loop.clone());
            let call = Call::new(move || {
                assert_eq!(inside.add() % 2, 1, "two inside");
                assert_eq!(ran.add(), turn, "out of order");
                assert_eq!(inside.add() % 2, 0, "two inside");
                if turn == 2 {
                    stopped.request_stop(false).unwrap();
                }
            });
            assert!(post(&event_loop, Some(&strand), call));
        }
        for turner in turners {
            turner.join().unwrap();
        }
        assert_eq!(ran.get(), 2);
        close(&event_loop, &ended);
    });
}

/// A strand is closed while a thread runs its messages: what the close hands back did not run, what ran was not handed
/// back, and the final callback runs once, when nobody is inside.
#[test]
fn run_races_the_close_of_its_strand_and_each_message_runs_or_comes_back() {
    explore("run against close of the strand", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, inside, ran, told) = (Count::default(), Count::default(), Count::default(), Count::default());
        let strand = event_loop.strand(None, None).unwrap();
        for _ in 0..2 {
            let (inside, ran) = (inside.clone(), ran.clone());
            let call = Call::new(move || {
                inside.add();
                ran.add();
                inside.add();
            });
            assert!(post(&event_loop, Some(&strand), call));
        }
        let turners: Vec<_> = (0..2)
            .map(|_| {
                let (event_loop, ended) = (event_loop.clone(), ended.clone());
                thread::spawn(move || join(&event_loop, &ended))
            })
            .collect();
        let on_closed = {
            let (inside, told, stopped) = (inside.clone(), told.clone(), event_loop.clone());
            Call::new(move || {
                assert_eq!(inside.get() % 2, 0, "told while somebody is inside");
                told.add();
                stopped.request_stop(false).unwrap();
            })
        };
        let closed = event_loop.close_strand(&strand, Some(on_closed));
        for turner in turners {
            turner.join().unwrap();
        }
        assert_eq!(ran.get() + closed.messages.len(), 2);
        assert_eq!(told.get(), 1);
        assert_eq!(event_loop.strand_view(&strand).state, StrandState::Closed);
        close(&event_loop, &ended);
    });
}

/// An `add` on a strand that is being closed is refused, or taken and ended by the close: never a watch on a closed
/// strand, never a registration that nobody owns.
#[test]
fn add_races_the_close_of_its_strand_and_ends_with_it() {
    explore("add against close of the strand", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let strand = event_loop.strand(None, None).unwrap();
        let adder = {
            let (event_loop, strand) = (event_loop.clone(), strand.clone());
            thread::spawn(move || {
                let call = Call::nothing();
                let added = event_loop.add(0, Events::READ, Some(strand), |_| Ok::<_, Error>(call));
                added.map(|(watch, _)| watch)
            })
        };
        let closed = event_loop.close_strand(&strand, None);
        match adder.join().unwrap() {
            Ok(watch) => {
                assert_eq!(watch.removed(), Some(RemovalReason::StrandClosed));
                assert_eq!(closed.finished.len(), 1);
            }
            Err(error) => {
                assert_eq!(error, Error::StrandClosed);
                assert!(closed.finished.is_empty());
            }
        }
        assert_eq!(files.registered(0), None);
        drop(closed);
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 0, "nothing is left for the close of the loop");
    });
}
