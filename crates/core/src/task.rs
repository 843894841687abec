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

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::event_loop::EventLoop;
use crate::hub::{Ready, Wake};
use crate::state::{Mode, Schedule};
use crate::strand::{Entry, Strand};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Where a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TaskPhase {
    /// In no queue; nobody is inside.
    Suspended,
    /// In the run queue, once.
    Queued,
    /// One thread is inside.
    Running,
    /// It is over. For good.
    Finished,
}

/// How far the task's wait is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum WaitPhase {
    /// It waits for nothing.
    None,
    /// Whoever comes first decides it.
    Open,
    /// It was decided, and the task has not seen it yet.
    Ready,
}

/// A task's life in one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TaskWord {
    /// Where it is.
    pub phase: TaskPhase,
    /// What it waits for.
    pub wait: WaitPhase,
    /// The open wait may be aborted.
    pub abortable: bool,
    /// The wait was decided by an abort.
    pub aborted: bool,
    /// Counts waits: an old ticket is no ticket.
    pub ticket: u32,
}

impl TaskWord {
    /// A task just made: nobody has queued it.
    pub const NEW: Self =
        Self { phase: TaskPhase::Suspended, wait: WaitPhase::None, abortable: false, aborted: false, ticket: 0 };

    fn pack(self) -> u64 {
        let flags = u64::from(self.abortable) << 4 | u64::from(self.aborted) << 5;
        self.phase as u64 | (self.wait as u64) << 2 | flags | u64::from(self.ticket) << 32
    }

    fn unpack(word: u64) -> Self {
        let phase = match word & 3 {
            0 => TaskPhase::Suspended,
            1 => TaskPhase::Queued,
            2 => TaskPhase::Running,
            _ => TaskPhase::Finished,
        };
        let wait = match word >> 2 & 3 {
            0 => WaitPhase::None,
            1 => WaitPhase::Open,
            _ => WaitPhase::Ready,
        };
        Self { phase, wait, abortable: word & 16 != 0, aborted: word & 32 != 0, ticket: (word >> 32) as u32 }
    }

    fn queue(&mut self) -> Schedule {
        if self.phase == TaskPhase::Suspended {
            self.phase = TaskPhase::Queued;
            Schedule::Push
        } else {
            Schedule::Leave
        }
    }

    /// Whoever made it: it runs for the first time.
    pub fn start(&mut self) -> Schedule {
        self.queue()
    }

    /// The thread inside: from now on the wait can be decided. Its ticket.
    pub fn open(&mut self, abortable: bool) -> u32 {
        debug_assert_eq!((self.phase, self.wait), (TaskPhase::Running, WaitPhase::None));
        self.wait = WaitPhase::Open;
        self.abortable = abortable;
        self.aborted = false;
        self.ticket = self.ticket.wrapping_add(1);
        self.ticket
    }

    /// Anybody who has the ticket: what was waited for has come. None if the wait was decided before.
    pub fn complete(&mut self, ticket: u32) -> Option<Schedule> {
        if self.wait != WaitPhase::Open || self.ticket != ticket {
            return None;
        }
        self.wait = WaitPhase::Ready;
        Some(self.queue())
    }

    /// Anybody who has the ticket: the wait ends without what it waited for. None if it was decided before, or may not be
    /// aborted.
    pub fn abort(&mut self, ticket: u32) -> Option<Schedule> {
        if self.wait != WaitPhase::Open || !self.abortable || self.ticket != ticket {
            return None;
        }
        self.wait = WaitPhase::Ready;
        self.aborted = true;
        Some(self.queue())
    }

    /// The thread inside: to the tail of the run queue, waiting for nothing.
    pub fn yield_now(&mut self) {
        debug_assert_eq!((self.phase, self.wait), (TaskPhase::Running, WaitPhase::None));
        self.wait = WaitPhase::Ready;
        self.aborted = false;
    }

    /// The thread that took it off the run queue is inside now; not if the task was finished there.
    pub fn begin(&mut self) -> bool {
        let queued = self.phase == TaskPhase::Queued;
        if queued {
            self.phase = TaskPhase::Running;
        }
        queued
    }

    /// The thread inside goes out; it puts the task back if its wait was decided meanwhile.
    pub fn suspend(&mut self) -> Schedule {
        debug_assert_eq!(self.phase, TaskPhase::Running);
        self.phase = TaskPhase::Suspended;
        if self.wait == WaitPhase::Ready { self.queue() } else { Schedule::Leave }
    }

    /// The thread inside: does not wait after all; whether the wait was aborted.
    pub fn withdraw(&mut self) -> bool {
        self.wait = WaitPhase::None;
        core::mem::take(&mut self.aborted)
    }

    /// The thread inside: takes the decided wait; whether it was aborted.
    pub fn take(&mut self) -> bool {
        debug_assert_eq!((self.phase, self.wait), (TaskPhase::Running, WaitPhase::Ready));
        self.wait = WaitPhase::None;
        core::mem::take(&mut self.aborted)
    }

    /// It is over.
    pub fn finish(&mut self) {
        self.phase = TaskPhase::Finished;
        self.wait = WaitPhase::None;
    }
}

/// One arrow of the table.
pub struct TaskArrow {
    /// The method that moves the word, a verb.
    pub verb: &'static str,
    /// The phase before.
    pub from: TaskPhase,
    /// The phase after.
    pub to: TaskPhase,
    /// What must hold for the arrow to be taken.
    pub when: &'static str,
    /// Who may cause it.
    pub who: &'static str,
}

/// Every arrow between two different phases of a task. `open`, `take` and `yield_now` move only its wait.
pub const TASK_TABLE: &[TaskArrow] = &[
    TaskArrow {
        verb: "start",
        from: TaskPhase::Suspended,
        to: TaskPhase::Queued,
        when: "it has just been made",
        who: "whoever made it",
    },
    TaskArrow {
        verb: "complete",
        from: TaskPhase::Suspended,
        to: TaskPhase::Queued,
        when: "the wait is open and the ticket is its own",
        who: "any thread; the leader, for a descriptor",
    },
    TaskArrow {
        verb: "abort",
        from: TaskPhase::Suspended,
        to: TaskPhase::Queued,
        when: "the wait is open, may be aborted, and the ticket is its own",
        who: "any thread that cancels",
    },
    TaskArrow {
        verb: "begin",
        from: TaskPhase::Queued,
        to: TaskPhase::Running,
        when: "it was not finished there",
        who: "the joined thread that took it off the run queue",
    },
    TaskArrow {
        verb: "suspend",
        from: TaskPhase::Running,
        to: TaskPhase::Suspended,
        when: "its wait is open",
        who: "the thread inside",
    },
    TaskArrow {
        verb: "suspend",
        from: TaskPhase::Running,
        to: TaskPhase::Queued,
        when: "its wait was decided while it ran, or it yields",
        who: "the thread inside",
    },
    TaskArrow {
        verb: "finish",
        from: TaskPhase::Running,
        to: TaskPhase::Finished,
        when: "it returned or raised",
        who: "the thread inside",
    },
    TaskArrow {
        verb: "finish",
        from: TaskPhase::Suspended,
        to: TaskPhase::Finished,
        when: "nobody serves the loop any more",
        who: "its maker, who drops it",
    },
    TaskArrow {
        verb: "finish",
        from: TaskPhase::Queued,
        to: TaskPhase::Finished,
        when: "nobody serves the loop any more",
        who: "its maker, who drops it",
    },
];

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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn words() -> impl Iterator<Item = TaskWord> {
        use TaskPhase::{Finished, Queued, Running, Suspended};
        [Suspended, Queued, Running, Finished].into_iter().flat_map(|phase| {
            [WaitPhase::None, WaitPhase::Open, WaitPhase::Ready].into_iter().flat_map(move |wait| {
                [false, true].into_iter().flat_map(move |abortable| {
                    [false, true].map(|aborted| TaskWord { phase, wait, abortable, aborted, ticket: 7 })
                })
            })
        })
    }

    #[test]
    fn a_word_is_what_was_packed() {
        for word in words() {
            assert_eq!(TaskWord::unpack(word.pack()), word);
        }
    }

    #[test]
    fn the_table_has_every_arrow_that_the_methods_take_and_no_other() {
        let mut taken = HashSet::new();
        for word in words() {
            let mut step = |verb: &'static str, apply: &dyn Fn(&mut TaskWord)| {
                let mut after = word;
                apply(&mut after);
                if after.phase != word.phase {
                    taken.insert((verb, word.phase, after.phase));
                }
            };
            step("start", &|w| _ = w.start());
            step("complete", &|w| _ = w.complete(7));
            step("abort", &|w| _ = w.abort(7));
            step("begin", &|w| _ = w.begin());
            step("finish", &TaskWord::finish);
            if word.phase == TaskPhase::Running {
                step("suspend", &|w| _ = w.suspend());
            }
        }
        let table: HashSet<_> = TASK_TABLE.iter().map(|arrow| (arrow.verb, arrow.from, arrow.to)).collect();
        assert_eq!(table, taken);
    }

    #[test]
    fn a_ticket_of_an_earlier_wait_decides_nothing() {
        let mut word = TaskWord { phase: TaskPhase::Running, ..TaskWord::NEW };
        let old = word.open(true);
        assert_eq!(word.complete(old), Some(Schedule::Leave));
        assert!(!word.take());
        let new = word.open(true);
        assert_eq!(word.complete(old), None);
        assert_eq!(word.suspend(), Schedule::Leave);
        assert_eq!(word.complete(new), Some(Schedule::Push));
        assert_eq!(word.complete(new), None);
    }

    #[test]
    fn an_abort_and_a_completion_have_one_winner() {
        let mut word = TaskWord { phase: TaskPhase::Running, ..TaskWord::NEW };
        let ticket = word.open(true);
        assert_eq!(word.suspend(), Schedule::Leave);
        assert_eq!(word.abort(ticket), Some(Schedule::Push));
        assert_eq!(word.complete(ticket), None);
        assert!(word.begin());
        assert!(word.take());
        let ticket = word.open(false);
        assert_eq!(word.abort(ticket), None);
        assert_eq!(word.complete(ticket), Some(Schedule::Leave));
    }
}
