//! A task: something that is resumed again and again until it has finished, by whichever thread is free.
//!
//! Two threads inside one coroutine crash the interpreter, so who may step a task is one word, changed by compare and
//! swap: a task is in the run queue at most once, the thread that took it off is inside until it says `suspend` or
//! `finish`, and a wake that comes meanwhile only marks the word; the thread inside then queues the task itself.
//!
//! A task waits for one thing at a time. `open` opens the wait and gives its ticket; `complete` with that ticket and
//! `abort` race for it, and exactly one of them wins, so that a timeout and an answer at the same instant, or a
//! cancellation and the data, have one outcome. A ticket of an earlier wait wins nothing.
//!
//! What is stepped is the seam's: the core keeps a number for it ([`Task::object`]) and never looks behind it. Whoever
//! made the task keeps that object alive until the word says FINISHED, so an entry of the run queue needs no count of its
//! own, and the leader, who is detached from the interpreter, can queue a task.
//!
//! `docs/design/task.md` has the table and names the races; `tests/loom/tasks.rs` explores them.

mod word;

pub use word::{TASK_TABLE, TaskArrow, TaskPhase, TaskWord, WaitPhase};

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::event_loop::EventLoop;
use crate::hub::{Ready, Wake};
use crate::state::{Mode, Schedule};
use crate::strand::{Entry, Strand};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Something that is resumed until it has finished.
pub struct Task<P: Payload> {
    word: AtomicU64,
    object: AtomicUsize,
    strand: Option<Arc<Strand<P>>>,
    _counted: Counted,
}

impl<P: Payload> Task<P> {
    /// A task. With a strand it runs in order with everything else that is there.
    pub fn new(strand: Option<Arc<Strand<P>>>) -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU64::new(TaskWord::NEW.pack()),
            object: AtomicUsize::new(0),
            strand,
            _counted: Counted::new(Kind::Tasks),
        })
    }

    /// What it stands for: whatever its maker has set.
    pub fn object(&self) -> usize {
        self.object.load(Ordering::Relaxed)
    }

    /// Its maker, before it starts: what it stands for, which he keeps alive until the task has finished.
    pub fn stand_for(&self, object: usize) {
        // ORDER: Relaxed; published by the word, and by the run queue's mutex.
        self.object.store(object, Ordering::Relaxed);
    }

    /// The strand that it runs on, if it shares one.
    pub fn strand(&self) -> Option<&Arc<Strand<P>>> {
        self.strand.as_ref()
    }

    /// Its word, as it was a moment ago.
    pub fn word(&self) -> TaskWord {
        // ORDER: Acquire; pairs with the Release of `change`.
        TaskWord::unpack(self.word.load(Ordering::Acquire))
    }

    fn change<R>(&self, mut step: impl FnMut(&mut TaskWord) -> R) -> R {
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let mut word = TaskWord::unpack(seen);
            let result = step(&mut word);
            // ORDER: AcqRel; who takes a wait sees what was stored before it was decided, and who begins a task sees
            // what the thread that left it did.
            match self.word.compare_exchange_weak(seen, word.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return result,
                Err(other) => seen = other,
            }
        }
    }

    /// The thread inside opens a wait. Its ticket.
    pub fn open(&self, abortable: bool) -> u32 {
        self.change(|word| word.open(abortable))
    }

    /// The thread inside gives the thread to others and goes on later.
    pub fn yield_now(&self) {
        self.change(TaskWord::yield_now);
    }

    /// The thread inside takes the decided wait; whether it was aborted.
    pub fn take(&self) -> bool {
        self.change(TaskWord::take)
    }

    /// The thread inside does not wait after all; whether the wait was aborted.
    pub fn withdraw(&self) -> bool {
        self.change(TaskWord::withdraw)
    }

    /// The task is over.
    pub fn finish(&self) {
        self.change(TaskWord::finish);
    }

    pub(crate) fn begin(&self) -> bool {
        self.change(TaskWord::begin)
    }

    /// Decides the wait with this ticket. None if it was decided before; else the caller passes what to do to
    /// [`EventLoop::queue_task`].
    pub fn complete(&self, ticket: u32) -> Option<Schedule> {
        self.change(|word| word.complete(ticket))
    }

    /// The thread inside, after it has opened a wait: sees a cancellation that came before.
    ///
    /// Whoever cancels raises a flag and then calls [`Self::interrupt`], which writes to the word whatever it finds. So of
    /// the two writes one is the later: `interrupt` finds the wait that `open` has opened, or `open` comes after it, and
    /// what is looked at here is what was written before that.
    pub fn look_again(&self, ticket: u32, told_to_stop: impl FnOnce() -> bool) {
        if told_to_stop() {
            // It is running, so this only marks its word.
            _ = self.abort(ticket);
        }
    }

    /// Whoever cancels, after the flag was raised: ends the open wait, if the task is told to stop. None if there is
    /// nothing to do.
    ///
    /// The ticket is taken before the look: a task that goes on meanwhile may leave what is cancelled, and its next wait
    /// must not be hit. That one looks for itself.
    pub fn interrupt(&self, told_to_stop: impl FnOnce() -> bool) -> Option<Schedule> {
        // ORDER: AcqRel, and a write although it changes nothing: see `look_again`.
        let word = TaskWord::unpack(self.word.fetch_or(0, Ordering::AcqRel));
        if word.wait == WaitPhase::Open && told_to_stop() { self.abort(word.ticket) } else { None }
    }

    /// Ends the wait with this ticket without what it waits for. None if there is nothing to abort.
    pub fn abort(&self, ticket: u32) -> Option<Schedule> {
        self.change(|word| word.abort(ticket))
    }
}

impl<P: Payload> EventLoop<P> {
    /// Queues a task for the first time.
    pub fn start_task(&self, task: &Arc<Task<P>>) -> Wake {
        let schedule = task.change(TaskWord::start);
        self.queue_task(task, schedule)
    }

    /// Puts a task whose word said `Push` into the run queue. Never refused: a task that was started ends.
    pub fn queue_task(&self, task: &Arc<Task<P>>, schedule: Schedule) -> Wake {
        if schedule == Schedule::Leave {
            return Wake::Nobody;
        }
        match &task.strand {
            Some(strand) => self.queue_on_strand(task, strand),
            None => {
                let mut hub = self.hub.lock();
                hub.ready.push_back(Ready::Task(task.clone()));
                self.hub.wake_for_work(&mut hub)
            }
        }
    }

    fn queue_on_strand(&self, task: &Arc<Task<P>>, strand: &Arc<Strand<P>>) -> Wake {
        let mut body = strand.body.lock();
        if body.word.mode == Mode::Closed {
            // The loop was closed over it.
            return Wake::Nobody;
        }
        body.queue.push_back(Entry::Task(task.clone()));
        match body.word.schedule() {
            Schedule::Push => self.enqueue(self.hub.lock(), strand),
            Schedule::Leave => Wake::Nobody,
        }
    }

    /// The leader: the run-queue entry of a task that has just been decided; None if it went to its strand.
    pub(crate) fn ready_task(&self, task: Arc<Task<P>>) -> Option<Ready<P>> {
        let Some(strand) = task.strand.clone() else { return Some(Ready::Task(task)) };
        let mut body = strand.body.lock();
        body.queue.push_back(Entry::Task(task));
        let push = body.word.schedule() == Schedule::Push;
        drop(body);
        push.then_some(Ready::Strand(strand))
    }

    /// The thread inside goes out of the task.
    pub fn suspend_task(&self, task: &Arc<Task<P>>) {
        let schedule = task.change(TaskWord::suspend);
        let wake = self.queue_task(task, schedule);
        self.wake(wake);
    }
}
