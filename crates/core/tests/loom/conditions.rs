//! A condition variable that counts who waits: `sync::Condvar`.

use manyhands_core::sync::{Arc, Condvar, Mutex};

/// Whoever notifies has changed the state under the mutex, and may have left it: nobody who waits is overlooked.
#[test]
fn a_notifier_that_looks_for_waiters_races_one_that_begins_to_wait() {
    loom::model(|| {
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let notifiers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    *shared.0.lock() += 1;
                    shared.1.notify_all();
                })
            })
            .collect();
        let mut state = shared.0.lock();
        while *state < 2 {
            state = shared.1.wait(state, None);
        }
        drop(state);
        for notifier in notifiers {
            notifier.join().expect("no panic");
        }
    });
}
