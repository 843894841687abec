//! A task's life in one word, and every arrow that it can take. Nothing here is shared: `task` changes it by compare and
//! swap.

use crate::state::Schedule;

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

    pub(super) fn pack(self) -> u64 {
        let flags = u64::from(self.abortable) << 4 | u64::from(self.aborted) << 5;
        self.phase as u64 | (self.wait as u64) << 2 | flags | u64::from(self.ticket) << 32
    }

    pub(super) fn unpack(word: u64) -> Self {
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
