//! A post against what ends posting: the terminal message of a strand, the drain of a loop.

use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Making, close, explore, join, post, post_terminal};

/// T52. A post that was taken runs before the terminal message; one that was refused never runs.
#[test]
fn post_races_the_terminal_message_and_is_refused_or_runs_before_it() {
    explore("post against the terminal message", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, ran, last) = (Count::default(), Count::default(), Count::default());
        let strand = event_loop.strand(None, None).unwrap();
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        let poster = {
            let (event_loop, strand, ran, last) = (event_loop.clone(), strand.clone(), ran.clone(), last.clone());
            thread::spawn(move || {
                let call = Call::new(move || {
                    assert_eq!(last.get(), 0, "after the terminal message");
                    ran.add();
                });
                post(&event_loop, Some(&strand), call)
            })
        };
        let call = {
            let (last, stopped) = (last.clone(), event_loop.clone());
            Call::new(move || {
                last.add();
                stopped.request_stop(false).unwrap();
            })
        };
        assert!(post_terminal(&event_loop, &strand, call));
        let taken = poster.join().unwrap();
        turner.join().unwrap();
        assert_eq!(last.get(), 1);
        assert_eq!(ran.get(), usize::from(taken));
        close(&event_loop, &ended);
    });
}

/// T11. A post that a draining loop has taken runs before the drain ends; one that it refused never runs.
#[test]
fn post_races_the_drain_and_is_refused_or_runs() {
    explore("post against the drain", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, ran) = (Count::default(), Count::default());
        let strand = event_loop.strand(None, None).unwrap();
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || {
                join(&event_loop, &ended);
            })
        };
        let poster = {
            let (event_loop, strand, ran) = (event_loop.clone(), strand.clone(), ran.clone());
            thread::spawn(move || {
                let call = Call::new(move || _ = ran.add());
                post(&event_loop, Some(&strand), call)
            })
        };
        event_loop.request_stop(true).unwrap();
        let taken = poster.join().unwrap();
        turner.join().unwrap();
        // Nobody may have been joined when the loop drained: then the caller serves.
        join(&event_loop, &ended);
        assert_eq!(ran.get(), usize::from(taken));
        close(&event_loop, &ended);
    });
}
