//! Sockets that tasks read: the edge against the wait, the leader against an abort, the close against whoever uses the
//! number or waits, and, without edges, two directions that are armed at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use loom::thread;
use manyhands_core::socket::{CLOSER, Direction};
use manyhands_core::task::{TaskPhase, WaitPhase};
use manyhands_core::{Events, JoinOptions, Socket, Task};

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Loop, Making, close, explore, join_tasks};

/// A loop with a socket on file 0, of which nothing is known yet, and what closes the file.
fn opened(files: &Files, closed: &Count) -> (Loop, Arc<Socket<Call>>) {
    let event_loop = Making::EAGER.on(files);
    let (socket, displaced) = event_loop.socket(0, true, false).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(displaced.is_none());
    let (files, closed) = (files.clone(), closed.clone());
    *CLOSER.lock().unwrap() = Some(Arc::new(move |fd| {
        closed.add();
        files.close_and_reuse(fd);
    }));
    (event_loop, socket)
}

/// What an operation of the seam does in one step: whether it has read something. If not it waits, or the socket is closed.
fn receive(event_loop: &Loop, files: &Files, socket: &Socket<Call>, task: &Arc<Task<Call>>) -> Option<bool> {
    loop {
        let Some(seen) = socket.look(Direction::Read) else {
            let ticket = task.open(true);
            if socket.wait(Direction::Read, task, ticket) {
                event_loop.suspend_task(task);
                return None;
            }
            task.withdraw();
            if socket.closed() {
                return Some(false);
            }
            continue;
        };
        let Some(_lease) = socket.lease() else { return Some(false) };
        if files.take(socket.fd()) {
            return Some(true);
        }
        _ = socket.exhausted(Direction::Read, seen);
    }
}

fn finish(event_loop: &Loop, task: &Task<Call>) {
    task.finish();
    event_loop.request_stop(false).unwrap();
}

/// T88a. Something comes while the task has found nothing and is about to wait, and another thread polls: it goes on.
#[test]
fn edge_races_the_wait_and_the_task_goes_on() {
    explore("edge against wait", || {
        let files = Files::open(1);
        let (closed, ended) = (Count::default(), Count::default());
        let (event_loop, socket) = opened(&files, &closed);
        let task = Task::new(None);
        event_loop.wake(event_loop.start_task(&task));
        let turner = {
            let (event_loop, files, socket, ended) = (event_loop.clone(), files.clone(), socket.clone(), ended.clone());
            thread::spawn(move || turn(&event_loop, &files, &socket, &ended))
        };
        files.write(0);
        turn(&event_loop, &files, &socket, &ended);
        turner.join().unwrap();
        assert_eq!(task.word().phase, TaskPhase::Finished);
        drop(socket);
        close(&event_loop, &ended);
        assert_eq!(closed.get(), 1);
    });
}

/// Serves until the task has received something.
fn turn(event_loop: &Loop, files: &Files, socket: &Arc<Socket<Call>>, ended: &Count) {
    join_tasks(event_loop, ended, JoinOptions::default(), &|task| {
        if task.word().wait == WaitPhase::Ready {
            assert!(!task.take(), "aborted");
        }
        match receive(event_loop, files, socket, task) {
            None => {}
            Some(received) => {
                assert!(received, "the socket is open");
                finish(event_loop, task);
            }
        }
    });
}

/// T89. The leader completes a task's wait while another thread aborts it: one of the two has decided it, and what has
/// come is there for the next wait.
#[test]
fn completion_races_abort_and_one_of_them_decides() {
    explore("completion against abort", || {
        let files = Files::open(1);
        let (closed, ended, aborts) = (Count::default(), Count::default(), Count::default());
        let (event_loop, socket) = opened(&files, &closed);
        let task = Task::new(None);
        event_loop.wake(event_loop.start_task(&task));
        let ticket = Arc::new(AtomicU32::new(0));
        let turner = {
            let (event_loop, files, socket) = (event_loop.clone(), files.clone(), socket.clone());
            let (ended, aborts, ticket) = (ended.clone(), aborts.clone(), ticket.clone());
            thread::spawn(move || {
                join_tasks(&event_loop, &ended, JoinOptions::default(), &|task| {
                    if task.word().wait == WaitPhase::Ready && task.take() {
                        aborts.add();
                        socket.forget(Direction::Read, ticket.load(Ordering::Relaxed));
                    }
                    if receive(&event_loop, &files, &socket, task).is_some() {
                        finish(&event_loop, task);
                    } else {
                        ticket.store(task.word().ticket, Ordering::Relaxed);
                    }
                });
            })
        };
        files.write(0);
        let aborted = task.abort(task.word().ticket);
        let won = usize::from(aborted.is_some());
        if let Some(schedule) = aborted {
            event_loop.wake(event_loop.queue_task(&task, schedule));
        }
        turner.join().unwrap();
        assert_eq!(aborts.get(), won, "aborts that the task has seen");
        assert!(!files.take(0), "nothing was left unread");
        drop(socket);
        close(&event_loop, &ended);
    });
}

/// T90. One thread closes while another is about to use the number: it is closed once, and after the use.
#[test]
fn close_races_a_call_on_the_number_and_comes_after_it() {
    explore("close against lease", || {
        let files = Files::open(1);
        let (closed, ended) = (Count::default(), Count::default());
        let (event_loop, socket) = opened(&files, &closed);
        let user = {
            let (files, socket) = (files.clone(), socket.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let Some(lease) = socket.lease() else { return };
                    assert_eq!(files.inode(0), 0, "the number is another's");
                    drop(lease);
                }
            })
        };
        assert!(socket.close());
        assert!(!socket.close());
        assert!(socket.lease().is_none());
        user.join().unwrap();
        assert_eq!(closed.get(), 1);
        assert_eq!(files.inode(0), 1);
        drop(socket);
        close(&event_loop, &ended);
        assert_eq!(closed.get(), 1);
    });
}

/// T90. A socket is closed while its task is about to wait: the task finds out.
#[test]
fn close_races_the_wait_and_the_task_finds_out() {
    explore("close against wait", || {
        let files = Files::open(1);
        let (closed, ended) = (Count::default(), Count::default());
        let (event_loop, socket) = opened(&files, &closed);
        let task = Task::new(None);
        event_loop.wake(event_loop.start_task(&task));
        let turner = {
            let (event_loop, files, socket, ended) = (event_loop.clone(), files.clone(), socket.clone(), ended.clone());
            thread::spawn(move || {
                join_tasks(&event_loop, &ended, JoinOptions::default(), &|task| {
                    if task.word().wait == WaitPhase::Ready {
                        assert!(!task.take(), "aborted");
                    }
                    if let Some(received) = receive(&event_loop, &files, &socket, task) {
                        assert!(!received);
                        finish(&event_loop, task);
                    }
                });
            })
        };
        assert!(socket.close());
        turner.join().unwrap();
        assert_eq!(closed.get(), 1);
        drop(socket);
        close(&event_loop, &ended);
    });
}

/// D3. Where there are no edges two tasks begin to wait at once, one for each direction: the poller is told of both.
#[test]
fn two_directions_race_to_be_armed_and_both_are() {
    explore("two directions", || {
        let files = Files::without_edges(1);
        let (closed, ended) = (Count::default(), Count::default());
        let (event_loop, socket) = opened(&files, &closed);
        let tasks = [Task::new(None), Task::new(None)];
        for task in &tasks {
            event_loop.wake(event_loop.start_task(task));
        }
        // Both are inside of a thread: it has left, and they are still running.
        let running = Count::default();
        join_tasks(&event_loop, &ended, JoinOptions { max_handlers: Some(2), ..JoinOptions::default() }, &|_| {
            running.add();
        });
        assert_eq!(running.get(), 2);
        let [reader, writer] = tasks.clone();
        let other = {
            let (socket, event_loop) = (socket.clone(), event_loop.clone());
            thread::spawn(move || {
                let ticket = writer.open(true);
                assert!(socket.wait(Direction::Write, &writer, ticket));
                event_loop.suspend_task(&writer);
            })
        };
        let ticket = reader.open(true);
        assert!(socket.wait(Direction::Read, &reader, ticket));
        event_loop.suspend_task(&reader);
        other.join().unwrap();
        assert_eq!(files.interest(0), Some(Events::READ.union(Events::WRITE)));
        assert!(socket.close());
        for task in &tasks {
            assert_eq!(task.word().wait, WaitPhase::Ready, "a close tells whoever waits");
            task.finish();
        }
        drop(socket);
        close(&event_loop, &ended);
    });
}
