//! What the seam does, in a few lines: a loop of closures, and the thread that turns it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use manyhands_core::poller::PollerKind;
use manyhands_core::{
    Clock, EventLoop, Events, Item, JoinOptions, Next, Options, Origin, Payload, Place, RemovalReason, Strand, Task,
    Watch,
};

use crate::fake_poller::Files;
use crate::tasks;

/// A payload that is a closure.
pub struct Call(Arc<dyn Fn() + Send + Sync>);

impl Call {
    pub fn new(function: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    pub fn nothing() -> Self {
        Self::new(|| ())
    }

    pub fn run(self) {
        (self.0)();
    }
}

impl Payload for Call {
    fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

pub type Loop = Arc<EventLoop<Call>>;

/// How a loop under test is made.
#[derive(Clone, Copy)]
pub struct Making {
    /// Whether two threads may run user code at once.
    pub parallel: bool,
    /// Nanoseconds.
    pub handover: u64,
}

impl Making {
    /// What the free-threaded tests use: followers take the lead at once.
    pub const EAGER: Self = Self { parallel: true, handover: 0 };
    /// The lead is taken only from a handler that lasts; with the interpreter's lock.
    pub const LAZY: Self = Self { parallel: false, handover: 200_000 };

    pub fn on(self, files: &Files) -> Loop {
        manyhands_core::clock::set_monotonic(0);
        let options = Options {
            poller: PollerKind::Epoll,
            clock: Clock::Monotonic,
            parallel: self.parallel,
            handover: Duration::from_nanos(self.handover),
        };
        EventLoop::with_poller(files.poller(), options)
    }
}

/// Counts what happened. Under a mutex of loom's: it reorders only what it knows to conflict, so an order that a test
/// asserts must be one that it sees.
#[derive(Clone)]
pub struct Count(Arc<loom::sync::Mutex<usize>>);

impl Default for Count {
    fn default() -> Self {
        Self(Arc::new(loom::sync::Mutex::new(0)))
    }
}

impl Count {
    pub fn add(&self) -> usize {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        *count
    }

    pub fn get(&self) -> usize {
        *self.0.lock().unwrap()
    }
}

/// Turns the loop as a joined thread does, until it has to leave; counts the watches that ended into `ended`.
pub fn join(event_loop: &Loop, ended: &Count) {
    join_with(event_loop, ended, JoinOptions::default());
}

/// As [`join`], with options.
pub fn join_with(event_loop: &Loop, ended: &Count, options: JoinOptions) {
    join_tasks(event_loop, ended, options, &|task| tasks::step(event_loop, task));
}

/// As [`join_with`]; tasks are stepped by `step`, which suspends or finishes them.
pub fn join_tasks(event_loop: &Loop, ended: &Count, options: JoinOptions, step: &dyn Fn(&Arc<Task<Call>>)) {
    let Some(mut seat) = event_loop.enter(options).unwrap() else { return };
    loop {
        match event_loop.next(&mut seat) {
            Next::Run(Item::Watch(_, call, _)) => (call.0)(),
            Next::Run(Item::Task(task)) => step(&task),
            Next::Run(Item::Message(call) | Item::Terminal(call) | Item::Completion(call) | Item::Timer(call)) => {
                (call.0)()
            }
            Next::Finished(finished) => {
                ended.add();
                drop(finished);
            }
            Next::Come(call) => {
                call.run();
                event_loop.give_place(None, None);
            }
            Next::Unserved(call) => call.run(),
            Next::Wait => event_loop.wait(&mut seat),
            Next::Leave => break,
        }
    }
    let left = event_loop.leave(seat);
    left.unserved.into_iter().for_each(Call::run);
    for finished in left.finished {
        ended.add();
        drop(finished);
    }
}

/// Posts on a strand, or on none; whether the loop took it.
pub fn post(event_loop: &Loop, strand: Option<&Arc<Strand<Call>>>, call: Call) -> bool {
    let posted = match strand {
        Some(strand) => event_loop.post(strand, call, Place::Ordinary, Origin::Outside),
        None => event_loop.post_alone(call, Place::Ordinary, Origin::Outside),
    };
    match posted {
        Ok(wake) => event_loop.wake(wake),
        Err(_) => return false,
    }
    true
}

/// Posts the terminal message of a strand; whether the loop took it.
pub fn post_terminal(event_loop: &Loop, strand: &Arc<Strand<Call>>, call: Call) -> bool {
    match event_loop.post_terminal(strand, Some(call), Origin::Outside) {
        Ok(wake) => event_loop.wake(wake),
        Err(_) => return false,
    }
    true
}

/// Registers a watch for READ with this handler.
pub fn watch(event_loop: &Loop, fd: i32, handler: impl Fn() + Send + Sync + 'static) -> Arc<Watch<Call>> {
    let call = Call::new(handler);
    let added = event_loop.add(fd, Events::READ, None, |_| Ok::<_, manyhands_core::Error>(call));
    added.unwrap_or_else(|error| panic!("{error:?}")).0
}

/// What `remove()` of the seam does: ends it, pays if that is its part, waits for who is inside or pays. When it returns,
/// the end has been told.
pub fn remove(event_loop: &Loop, watch: &Arc<Watch<Call>>, ended: &Count) {
    let finished = event_loop.end_watch(watch, RemovalReason::Removed);
    if finished.is_some() {
        ended.add();
    }
    drop(finished);
    assert!(event_loop.wait_vacant(watch, None));
    assert_eq!(ended.get(), 1, "ends told when a removal has waited");
}

/// Breaks the loop's cycles after a test, and asserts what holds of every loop that everybody has left.
pub fn close(event_loop: &Loop, ended: &Count) {
    assert!(event_loop.seats().is_empty(), "somebody is still counted in");
    let (finished, _) = event_loop.close().unwrap();
    for _ in finished {
        ended.add();
    }
    for call in event_loop.take_completions() {
        (call.0)();
    }
}

/// A gate for handlers that must wait for each other: one mutex and one condition of loom.
#[derive(Clone)]
pub struct Gate(Arc<(loom::sync::Mutex<bool>, loom::sync::Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new((loom::sync::Mutex::new(false), loom::sync::Condvar::new())))
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }
}

/// Explores a test twice, on a poller whose registrations are armed again after each report and on one where it pays to
/// leave them armed, and prints how many orders there were.
pub fn explore(name: &str, test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    for (level, how) in [(false, "once"), (true, "by level")] {
        let test = test.clone();
        explore_armed(level, &format!("{name}, {how}"), move || test());
    }
}

/// As [`explore`], for what concerns registrations that stay armed.
pub fn explore_level(name: &str, test: impl Fn() + Send + Sync + 'static) {
    explore_armed(true, name, test);
}

fn explore_armed(level: bool, name: &str, test: impl Fn() + Send + Sync + 'static) {
    let orders = Arc::new(AtomicU64::new(0));
    let counted = orders.clone();
    let began = std::time::Instant::now();
    LEVEL.store(level, Ordering::SeqCst);
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        test();
    });
    println!("{name}: {} orders in {:.1?}", orders.load(Ordering::Relaxed), began.elapsed());
}

/// Whether it pays to leave a registration armed, in the model that is explored now: one test runs at a time.
static LEVEL: AtomicBool = AtomicBool::new(false);

/// See [`LEVEL`].
pub fn level() -> bool {
    LEVEL.load(Ordering::SeqCst)
}
