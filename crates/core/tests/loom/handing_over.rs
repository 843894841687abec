//! The lead: never two leaders (the fake poller asserts it), and never nobody while a handler blocks and work waits.

use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Count, Gate, Making, close, explore, join, watch};
use manyhands_core::clock;

/// T17a. One handler blocks until another has run: whoever is not in the first polls, and is in the second.
#[test]
fn a_handler_races_the_other_threads_park_and_the_lead_is_taken_over() {
    explore("hand-over of the lead", || {
        let files = Files::open(2);
        let event_loop = Making::EAGER.on(&files);
        let (ended, second) = (Count::default(), Gate::new());
        files.write(0);
        let first = {
            let (files, second, stopped) = (files.clone(), second.clone(), event_loop.clone());
            watch(&event_loop, 0, move || {
                files.read(0);
                // Ready only now: no poll from before can have found it.
                files.write(1);
                second.pass();
                stopped.request_stop(false).unwrap();
            })
        };
        let other = {
            let (files, second) = (files.clone(), second.clone());
            watch(&event_loop, 1, move || {
                files.read(1);
                second.open();
            })
        };
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        join(&event_loop, &ended);
        turner.join().unwrap();
        assert!(first.removed().is_none() && other.removed().is_none());
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 2);
    });
}

/// T17a. The same with a lead that is handed over only when the handler has lasted, and no second thread that runs user
/// code before: a standby watches over the lead, however the first came to it.
#[test]
fn a_handler_that_lasts_races_the_standby_and_the_lead_is_taken_over() {
    explore("hand-over to the standby", || {
        let files = Files::open(2);
        let event_loop = Making::LAZY.on(&files);
        let (ended, entered, second) = (Count::default(), Gate::new(), Gate::new());
        files.write(0);
        let first = {
            let (files, entered, second) = (files.clone(), entered.clone(), second.clone());
            let stopped = event_loop.clone();
            watch(&event_loop, 0, move || {
                files.read(0);
                files.write(1);
                entered.open();
                second.pass();
                stopped.request_stop(false).unwrap();
            })
        };
        let other = {
            let (files, second) = (files.clone(), second.clone());
            watch(&event_loop, 1, move || {
                files.read(1);
                second.open();
            })
        };
        let turners: Vec<_> = (0..2)
            .map(|_| {
                let (event_loop, ended) = (event_loop.clone(), ended.clone());
                thread::spawn(move || join(&event_loop, &ended))
            })
            .collect();
        entered.pass();
        clock::set_monotonic(1_000_000_000);
        event_loop.time_is_up();
        for turner in turners {
            turner.join().unwrap();
        }
        assert!(first.removed().is_none() && other.removed().is_none());
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 2);
    });
}
