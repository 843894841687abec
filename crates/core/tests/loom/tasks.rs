//! A task's word: who wakes it, who ends its wait, who is inside.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use loom::sync::atomic::AtomicBool;
use loom::thread;

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Loop, Making, close, explore, join, post};
use manyhands_core::strand::Strand;
use manyhands_core::task::TaskPhase;

pub type Task = manyhands_core::Task<Call>;

/// What a task does when it is stepped for the n-th time, from 1; whether it goes on.
type Step = dyn Fn(&Task, usize) -> bool + Send + Sync;

struct Stepped {
    step: Box<Step>,
    steps: Count,
    inside: Count,
}

/// What the tasks of the model stand for. Not loom's: it is never held while anything of the model runs.
static STEPPED: Mutex<Vec<Arc<Stepped>>> = Mutex::new(Vec::new());

/// What the seam does with a task in hand.
pub fn step(event_loop: &Loop, task: &Arc<Task>) {
    let stepped = STEPPED.lock().unwrap()[task.object()].clone();
    assert_eq!(stepped.inside.add() % 2, 1, "two threads inside");
    let more = (stepped.step)(task, stepped.steps.add());
    assert_eq!(stepped.inside.add() % 2, 0, "two threads inside");
    if more {
        event_loop.suspend_task(task);
    } else {
        task.finish();
        event_loop.request_stop(false).unwrap();
    }
}

/// A task that ends the program when it ends.
pub fn make(
    strand: Option<Arc<Strand<Call>>>,
    step: impl Fn(&Task, usize) -> bool + Send + Sync + 'static,
) -> Arc<Task> {
    let task = Task::new(strand);
    let mut all = STEPPED.lock().unwrap();
    task.stand_for(all.len());
    all.push(Arc::new(Stepped { step: Box::new(step), steps: Count::default(), inside: Count::default() }));
    task
}

pub fn start(event_loop: &Loop, task: &Arc<Task>) {
    event_loop.wake(event_loop.start_task(task));
}

/// Decides the wait with this ticket; whether that was in time.
fn complete(event_loop: &Loop, task: &Arc<Task>, ticket: u32) -> bool {
    let decided = task.complete(ticket);
    decided.map(|schedule| event_loop.wake(event_loop.queue_task(task, schedule))).is_some()
}

pub fn abort(event_loop: &Loop, task: &Arc<Task>) -> bool {
    let decided = task.interrupt(|| true);
    decided.map(|schedule| event_loop.wake(event_loop.queue_task(task, schedule))).is_some()
}

pub fn turner(event_loop: &Loop, ended: &Count) -> thread::JoinHandle<()> {
    let (event_loop, ended) = (event_loop.clone(), ended.clone());
    thread::spawn(move || join(&event_loop, &ended))
}

/// How often it was stepped.
pub fn steps(task: &Arc<Task>) -> usize {
    STEPPED.lock().unwrap()[task.object()].steps.get()
}

pub fn over(event_loop: &Loop, task: &Arc<Task>, ended: &Count, steps: usize) {
    assert_eq!(task.word().phase, TaskPhase::Finished);
    assert_eq!(STEPPED.lock().unwrap()[task.object()].steps.get(), steps, "steps");
    close(event_loop, ended);
    STEPPED.lock().unwrap().clear();
}

/// T84. The wait is decided while the task still runs, or when it has just gone out: it runs again, once.
#[test]
fn completion_races_the_suspend_and_the_task_runs_again() {
    explore("completion against suspend", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let task = make(None, |task, n| {
            if n == 1 {
                // The first ticket of a task is 1.
                assert_eq!(task.open(false), 1);
                return true;
            }
            assert!(!task.take());
            false
        });
        let turner = turner(&event_loop, &ended);
        start(&event_loop, &task);
        // It has not opened its wait yet, or is still inside, or has gone out.
        while !complete(&event_loop, &task, 1) {
            thread::yield_now();
        }
        turner.join().unwrap();
        over(&event_loop, &task, &ended, 2);
    });
}

/// T85a. The task is woken while one of two threads is inside of it: the other does not enter before the first is out.
#[test]
fn a_wake_races_the_step_and_one_thread_is_inside() {
    explore("wake against step", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let task = make(None, |task, n| {
            if n == 1 {
                task.open(false);
                return true;
            }
            assert!(!task.take());
            false
        });
        start(&event_loop, &task);
        let turners = [turner(&event_loop, &ended), turner(&event_loop, &ended)];
        while !complete(&event_loop, &task, 1) {
            thread::yield_now();
        }
        for turner in turners {
            turner.join().unwrap();
        }
        over(&event_loop, &task, &ended, 2);
    });
}

/// T84. What was waited for and a cancellation come at once: one of them decides, is told so, and is what the task sees.
#[test]
fn completion_races_abort_and_one_wins() {
    explore("completion against abort", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, aborted) = (Count::default(), Count::default());
        let task = {
            let aborted = aborted.clone();
            make(None, move |task, n| {
                if n == 1 {
                    task.open(true);
                    return true;
                }
                if task.take() {
                    aborted.add();
                }
                false
            })
        };
        suspended(&event_loop, &task);
        let turner = turner(&event_loop, &ended);
        let completer = {
            let (event_loop, task) = (event_loop.clone(), task.clone());
            thread::spawn(move || complete(&event_loop, &task, 1))
        };
        // On this thread: between its look and its step the completion must fit with two switches.
        let cancelled = abort(&event_loop, &task);
        let completed = completer.join().unwrap();
        turner.join().unwrap();
        assert!(completed != cancelled, "completed {completed}, cancelled {cancelled}");
        assert_eq!(aborted.get() == 1, cancelled);
        over(&event_loop, &task, &ended, 2);
    });
}

/// Steps a task once on this thread, until it waits: what comes then is what the model is about.
fn suspended(event_loop: &Loop, task: &Arc<Task>) {
    start(event_loop, task);
    let options = manyhands_core::JoinOptions { max_handlers: Some(1), ..Default::default() };
    crate::turning::join_with(event_loop, &Count::default(), options);
    assert_eq!(task.word().phase, TaskPhase::Suspended);
}

/// T84. Two completions with one ticket: one wins, and the task runs once more, not twice.
#[test]
fn two_completions_race_and_one_wins() {
    explore("completion against completion", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ended = Count::default();
        let task = make(None, |task, n| {
            if n == 1 {
                task.open(true);
                return true;
            }
            assert!(!task.take());
            false
        });
        suspended(&event_loop, &task);
        let turner = turner(&event_loop, &ended);
        let other = {
            let (event_loop, task) = (event_loop.clone(), task.clone());
            thread::spawn(move || complete(&event_loop, &task, 1))
        };
        let one = complete(&event_loop, &task, 1);
        let two = other.join().unwrap();
        turner.join().unwrap();
        assert!(one != two, "{one} and {two}");
        over(&event_loop, &task, &ended, 2);
    });
}

/// T84. A completion that comes late meets the task in its next wait, and decides nothing there.
#[test]
fn an_old_ticket_races_the_next_wait_and_decides_nothing() {
    explore("old ticket against the next wait", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, allowed) = (Count::default(), Count::default());
        let second = Arc::new(AtomicU32::new(0));
        let task = {
            let (allowed, second) = (allowed.clone(), second.clone());
            make(None, move |task, n| {
                if n > 1 {
                    assert!(!task.take());
                }
                if n < 3 {
                    second.store(task.open(true), Ordering::SeqCst);
                    return true;
                }
                assert_eq!(allowed.get(), 1, "an old ticket has woken it");
                false
            })
        };
        suspended(&event_loop, &task);
        let turner = turner(&event_loop, &ended);
        let late = {
            let (event_loop, task) = (event_loop.clone(), task.clone());
            thread::spawn(move || complete(&event_loop, &task, 1))
        };
        let first = complete(&event_loop, &task, 1);
        assert!(first != late.join().unwrap(), "both in time");
        allowed.add();
        while !complete(&event_loop, &task, 2) {
            thread::yield_now();
        }
        turner.join().unwrap();
        over(&event_loop, &task, &ended, 3);
    });
}

/// T85a. Somebody cancels while the task opens a wait: he finds the wait, or the task finds his flag.
#[test]
fn cancellation_races_the_opening_of_a_wait_and_is_not_lost() {
    explore("cancellation against open", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, told) = (Count::default(), Arc::new(AtomicBool::new(false)));
        let task = {
            let told = told.clone();
            make(None, move |task, n| {
                if n == 1 {
                    let ticket = task.open(true);
                    // Relaxed on both sides: it is the word that orders them.
                    task.look_again(ticket, || told.load(loom::sync::atomic::Ordering::Relaxed));
                    return true;
                }
                assert!(task.take(), "nobody completes it");
                false
            })
        };
        start(&event_loop, &task);
        let turner = turner(&event_loop, &ended);
        told.store(true, loom::sync::atomic::Ordering::Relaxed);
        abort(&event_loop, &task);
        turner.join().unwrap();
        over(&event_loop, &task, &ended, 2);
    });
}

/// T85a. A task is started while a thread joins, leads, or is about to park: it runs.
#[test]
fn start_races_join_and_the_task_runs() {
    explore("start against join", || {
        let files = Files::open(0);
        let event_loop = Making::LAZY.on(&files);
        let ended = Count::default();
        let task = make(None, |_, _| false);
        let turners = [turner(&event_loop, &ended), turner(&event_loop, &ended)];
        start(&event_loop, &task);
        for turner in turners {
            turner.join().unwrap();
        }
        over(&event_loop, &task, &ended, 1);
    });
}

/// T85a. A task that shares a strand with messages is never beside one of them, on whichever threads.
#[test]
fn a_task_on_a_strand_races_its_other_items_and_one_is_inside() {
    explore("task against message of its strand", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, inside, ran) = (Count::default(), Count::default(), Count::default());
        let strand = event_loop.strand(None, None).unwrap();
        let task = {
            let inside = inside.clone();
            make(Some(strand.clone()), move |task, n| {
                assert_eq!(inside.add() % 2, 1, "beside a message");
                if n == 1 {
                    task.yield_now();
                } else {
                    assert!(!task.take());
                }
                assert_eq!(inside.add() % 2, 0, "beside a message");
                n == 1
            })
        };
        let turners = [turner(&event_loop, &ended), turner(&event_loop, &ended)];
        let message = {
            let (inside, ran) = (inside.clone(), ran.clone());
            Call::new(move || {
                assert_eq!(inside.add() % 2, 1, "beside the task");
                ran.add();
                assert_eq!(inside.add() % 2, 0, "beside the task");
            })
        };
        // Before the task, which ends the program.
        assert!(post(&event_loop, Some(&strand), message));
        start(&event_loop, &task);
        for turner in turners {
            turner.join().unwrap();
        }
        assert_eq!(ran.get(), 1);
        over(&event_loop, &task, &ended, 2);
    });
}

/// T50. A task is woken while the only thread decides to wait, twice: it never waits beside a task that is queued.
#[test]
fn a_wake_races_park_and_the_task_runs() {
    explore("wake against park", || {
        let files = Files::open(0);
        let event_loop = Making::LAZY.on(&files);
        let ended = Count::default();
        let task = make(None, |task, n| {
            if n > 1 {
                assert!(!task.take());
            }
            if n < 3 {
                task.open(false);
            }
            n < 3
        });
        suspended(&event_loop, &task);
        let turner = turner(&event_loop, &ended);
        assert!(complete(&event_loop, &task, 1));
        while !complete(&event_loop, &task, 2) {
            thread::yield_now();
        }
        turner.join().unwrap();
        over(&event_loop, &task, &ended, 3);
    });
}
