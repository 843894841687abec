//! Operations that the kernel does: their completion, their cancel, the close. The kernel here is a list.

use std::sync::Arc;

use loom::sync::{Mutex, MutexGuard};
use loom::thread;
use manyhands_core::Token;
use manyhands_core::ring::table::{Entry, Sink, Table};
use manyhands_core::ring::{Cancelled, Code, Request};

use crate::turning::explore;

/// What the kernel was given, in order.
#[derive(Default)]
struct Kernel(Vec<Entry>);

impl Sink for Kernel {
    fn put(&mut self, entry: Entry) -> bool {
        self.0.push(entry);
        true
    }
}

/// A ring's table and its way in, under the one mutex; a payload is its number, counted when it comes back.
struct Ring {
    inside: Mutex<(Table<usize>, Kernel)>,
    back: Mutex<[u32; 2]>,
}

impl Ring {
    fn new() -> Arc<Self> {
        Arc::new(Self { inside: Mutex::new((Table::new(1), Kernel::default())), back: Mutex::new([0; 2]) })
    }

    fn lock(&self) -> MutexGuard<'_, (Table<usize>, Kernel)> {
        self.inside.lock().unwrap()
    }

    fn submit(&self, payload: usize) -> Option<Token> {
        let (table, kernel) = &mut *self.lock();
        let request = Request { code: Code::Read, fd: 3, address: 0, bytes: 0, offset: 0 };
        table.submit(request, payload, kernel).inspect_err(|payload| self.give_back(*payload)).ok()
    }

    fn cancel(&self, token: Token) -> bool {
        let (table, kernel) = &mut *self.lock();
        let cancelled = table.cancel(token, kernel);
        if let Cancelled::Back(done) = &cancelled {
            self.give_back(done.payload);
        }
        matches!(cancelled, Cancelled::Back(_))
    }

    /// The kernel has done it, and somebody reaps.
    fn finish(&self, token: Token) {
        let (table, kernel) = &mut *self.lock();
        if let Some(done) = table.finish(token, 0) {
            self.give_back(done.payload);
        }
        table.pump(kernel);
    }

    fn close(&self) {
        let (table, kernel) = &mut *self.lock();
        table.close(kernel).iter().for_each(|done| self.give_back(done.payload));
    }

    fn give_back(&self, payload: usize) {
        self.back.lock().unwrap()[payload] += 1;
    }

    fn started(&self) -> Vec<Token> {
        let entries = &self.lock().1.0;
        let token = |entry: &Entry| if let Entry::Start(token, _) = entry { Some(*token) } else { None };
        entries.iter().filter_map(token).collect()
    }
}

/// T89. The kernel finishes an operation, so that the next one goes in, while that one is cancelled: it comes back at once
/// and the kernel never has it, or the kernel has it and its completion gives it back. Each payload comes back once.
#[test]
fn cancel_races_completion_and_each_payload_comes_back_once() {
    explore("cancel against completion", || {
        let ring = Ring::new();
        let (first, second) = (ring.submit(0).unwrap(), ring.submit(1).unwrap());
        let kernel = {
            let ring = ring.clone();
            thread::spawn(move || ring.finish(first))
        };
        let canceller = {
            let ring = ring.clone();
            thread::spawn(move || ring.cancel(first) | ring.cancel(second))
        };
        kernel.join().unwrap();
        let came_back = canceller.join().unwrap();
        assert_eq!(ring.started().contains(&second), !came_back);
        if !came_back {
            ring.finish(second);
        }
        assert_eq!(*ring.back.lock().unwrap(), [1, 1]);
        assert!(ring.lock().0.is_empty());
    });
}

/// T90. A close meets a call that submits: the payload comes back, or the kernel has the operation and behind it the word to
/// end it. Nothing is in the ring that nobody asked to end.
#[test]
fn close_races_submit_and_what_is_in_the_ring_is_asked_to_end() {
    explore("close against submit", || {
        let ring = Ring::new();
        let submitter = {
            let ring = ring.clone();
            thread::spawn(move || (ring.submit(0), ring.submit(1)))
        };
        ring.close();
        let tokens = submitter.join().unwrap();
        for token in [tokens.0, tokens.1].into_iter().flatten() {
            let entries = &ring.lock().1.0;
            let place = |wanted: &Entry| entries.iter().position(|entry| entry == wanted);
            let started = entries.iter().position(|entry| matches!(entry, Entry::Start(other, _) if *other == token));
            assert!(started.is_none() || started < place(&Entry::Cancel(token)));
        }
        for token in ring.started() {
            ring.finish(token);
        }
        assert_eq!(*ring.back.lock().unwrap(), [1, 1]);
        assert!(ring.lock().0.is_empty());
    });
}
