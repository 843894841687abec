//! The clear of a cached readiness against the next edge.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use crate::turning::explore;
use manyhands_core::Events;
use manyhands_core::readiness::Readiness;

/// T88a. Bytes come while a reader has read everything and clears: in the end no byte lies there with the cache saying
/// that there is none, for no further edge would come.
#[test]
fn clear_races_the_next_edge_and_no_byte_is_stranded() {
    explore("clear against edge", || {
        let socket = Arc::new(Mutex::new(0));
        let readiness = Arc::new(Readiness::new());
        let reader = {
            let (socket, readiness) = (socket.clone(), readiness.clone());
            thread::spawn(move || {
                let mut got = 0;
                for _ in 0..2 {
                    let seen = readiness.look();
                    if !seen.events().contains(Events::READ) {
                        break;
                    }
                    got += std::mem::take(&mut *socket.lock().unwrap());
                    // False: an edge came since the look, and the readiness stays.
                    _ = readiness.clear(seen, Events::READ);
                }
                got
            })
        };
        // The sender is the first to run: loom sees a conflict only with the last access to an atomic, and `edge` looks
        // at the word before it changes it.
        for _ in 0..2 {
            *socket.lock().unwrap() += 1;
            readiness.edge(Events::READ);
        }
        let got = reader.join().unwrap();
        let left = *socket.lock().unwrap();
        assert_eq!(got + left, 2);
        assert!(left == 0 || readiness.look().events().contains(Events::READ), "{left} bytes and no readiness");
    });
}
