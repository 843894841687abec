//! Registrations that stay armed while the handler runs, against a second thread that polls beside it, and against the
//! dead among them.

use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Gate, Making, close, explore_level, join, join_with, watch};
use manyhands_core::{Error, Events, JoinOptions, RemovalReason};

/// T24. A second thread polls once beside the handler, makes the watch silent and leaves: whether before the handler's end
/// or after it, what the handler left unread is reported again.
#[test]
fn mute_races_the_end_of_the_handler_and_the_rest_is_reported() {
    explore_level("mute against the end of the handler", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        files.write(0);
        let watched = {
            let (files, stopped) = (files.clone(), event_loop.clone());
            watch(&event_loop, 0, move || {
                if ran.add() == 2 {
                    files.read(0);
                    stopped.request_stop(false).unwrap();
                }
            })
        };
        assert!(files.by_level(0), "nobody polls beside a handler yet");
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        join_with(&event_loop, &ended, JoinOptions { one_tick: true, ..JoinOptions::default() });
        turner.join().unwrap();
        assert_eq!(files.registered(0), Some((watched.token().0, true)));
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 1);
    });
}

/// T17a, T28. A thread joins beside a handler that waits for another watch's: it is told of the handler's own watch at most
/// a few times, serves the other, and loses nothing. A registration that stayed armed would keep it busy for ever.
#[test]
fn join_races_a_handler_whose_watch_stays_armed_and_does_not_spin() {
    explore_level("join against a handler", || {
        let files = Files::open(2);
        let event_loop = Making::EAGER.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        let met = Gate::new();
        files.write(0);
        {
            let (files, met, stopped) = (files.clone(), met.clone(), event_loop.clone());
            watch(&event_loop, 0, move || {
                if ran.add() == 2 {
                    files.read(0);
                    return stopped.request_stop(false).unwrap();
                }
                files.write(1);
                met.pass();
            });
        }
        {
            let files = files.clone();
            watch(&event_loop, 1, move || {
                files.read(1);
                met.open();
            });
        }
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        join(&event_loop, &ended);
        turner.join().unwrap();
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 2);
    });
}

/// T28. A watch is added and modified while the leader leaves a dead registration behind: the dead one is gone, and the
/// new one is registered as it was asked for last.
#[test]
fn renewal_races_add_and_modify_and_no_registration_is_lost() {
    explore_level("renewal against add and modify", || {
        let files = Files::open(2);
        let event_loop = Making::EAGER.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        let old = watch(&event_loop, 0, || panic!("it was removed"));
        files.write(0);
        files.close_and_reuse_duplicated(0);
        assert!(event_loop.end_watch(&old, RemovalReason::Removed).is_some());
        assert_eq!(files.dead(), 1);
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        let call = {
            let (files, ran, stopped) = (files.clone(), ran.clone(), event_loop.clone());
            Call::new(move || {
                // Else once more: the second report of the dead one is to come.
                if files.dead() == 0 {
                    files.read(1);
                    ran.add();
                    stopped.request_stop(false).unwrap();
                }
            })
        };
        let added = event_loop.add(1, Events::WRITE, None, |_| Ok::<_, Error>(call));
        let (new, _) = added.unwrap_or_else(|error| panic!("{error:?}"));
        let (modified, gone) = event_loop.modify(&new, Events::READ);
        assert!(modified.is_ok() && gone.is_none());
        files.write(1);
        turner.join().unwrap();
        assert_eq!(files.registered(1), Some((new.token().0, true)));
        assert_eq!(files.interest(1), Some(Events::READ));
        assert_eq!(ran.get(), 1);
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 1);
    });
}
