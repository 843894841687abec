//! The re-arm of a watch against the close of its descriptor and the reuse of its number.

use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Count, Making, close, explore, join, remove, watch};
use manyhands_core::Events;

/// T26a. The descriptor is closed, its number reused and added while the old watch's handler runs and re-arms: the new
/// watch is served, the old one ends once, with nothing of the new one touched.
#[test]
fn rearm_races_the_reuse_of_its_number_and_the_new_watch_is_served() {
    explore("re-arm against reuse", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        files.write(0);
        let old = {
            let files = files.clone();
            watch(&event_loop, 0, move || files.read_first(0))
        };
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        files.close_and_reuse(0);
        let new = {
            let (files, stopped) = (files.clone(), event_loop.clone());
            let handler = move || {
                files.read(0);
                stopped.request_stop(false).unwrap();
            };
            let call = crate::turning::Call::new(handler);
            let added = event_loop.add(0, Events::READ, None, |_| Ok::<_, manyhands_core::Error>(call));
            let (new, displaced) = added.unwrap_or_else(|error| panic!("{error:?}"));
            if displaced.is_some() {
                ended.add();
            }
            new
        };
        files.write(0);
        turner.join().unwrap();
        assert!(old.removed().is_some());
        assert_eq!(files.registered(0).map(|(token, _)| token), Some(new.token().0));
        assert_eq!(ended.get(), 1, "ends of the old watch");
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 2);
    });
}

/// T26a, T27. The old watch is removed only after its number belongs to the new one, while its handler may be inside.
#[test]
fn remove_races_the_reuse_of_its_number_and_the_new_watch_stays_registered() {
    explore("remove against reuse", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let old = watch(&event_loop, 0, || panic!("nothing was ready"));
        files.close_and_reuse(0);
        let remover = {
            let (event_loop, old, ended) = (event_loop.clone(), old.clone(), ended.clone());
            thread::spawn(move || remove(&event_loop, &old, &ended))
        };
        let new = {
            let call = crate::turning::Call::nothing();
            let added = event_loop.add(0, Events::READ, None, |_| Ok::<_, manyhands_core::Error>(call));
            let (new, displaced) = added.unwrap_or_else(|error| panic!("{error:?}"));
            if displaced.is_some() {
                ended.add();
            }
            new
        };
        remover.join().unwrap();
        assert_eq!(files.registered(0), Some((new.token().0, true)));
        assert_eq!(ended.get(), 1, "ends of the old watch");
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 2);
    });
}

/// T23. The mask is modified while the handler runs and re-arms: whoever tells the kernel last tells it the latest, so the
/// watch is armed with it in the end.
#[test]
fn rearm_races_modify_and_the_kernel_is_told_the_latest() {
    explore("re-arm against modify", || {
        let files = Files::open(1);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        files.write(0);
        let watched = {
            let (files, stopped) = (files.clone(), event_loop.clone());
            watch(&event_loop, 0, move || {
                files.read(0);
                stopped.request_stop(false).unwrap();
            })
        };
        let turner = {
            let (event_loop, ended) = (event_loop.clone(), ended.clone());
            thread::spawn(move || join(&event_loop, &ended))
        };
        let both = Events::READ | Events::WRITE;
        let (modified, gone) = event_loop.modify(&watched, both);
        assert!(modified.is_ok() && gone.is_none());
        turner.join().unwrap();
        assert_eq!(files.registered(0), Some((watched.token().0, true)), "not armed");
        assert_eq!(files.interest(0), Some(both));
        close(&event_loop, &ended);
        assert_eq!(ended.get(), 1);
    });
}
