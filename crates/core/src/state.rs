//! The dictionary of states: the word of a strand, of a watch, of a loop.
//!
//! Every state has its sentence here and every arrow stands in a table; code elsewhere moves a word only by the
//! methods of this file, each of which returns what the caller has to do next. The words are plain values: the lock
//! of the thing they belong to guards them. `docs/design/strand.md` is drawn from [`STRAND_TABLE`], and a test
//! walks every word through every method and finds the same arrows.

use core::fmt;

/// Where a strand is, seen from the run queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Phase {
    /// In no queue; nobody is inside.
    Idle,
    /// In the run queue, once; nobody is inside.
    Queued,
    /// One thread is inside. It puts the strand back itself, so the strand is in no queue.
    Running,
}

/// What a strand still takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Mode {
    /// Everything.
    Open,
    /// No more posts: the terminal message is in (or its watch was removed). What is queued still runs.
    Closing,
    /// Nothing further starts.
    Closed,
}

/// What the user sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum StrandState {
    /// Takes and runs.
    Active,
    /// Takes, and runs nothing until it is resumed.
    Paused,
    /// Runs what it has and takes nothing more.
    Closing,
    /// Ended.
    Closed,
}

/// A strand's life in one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StrandWord {
    /// Where it is.
    pub phase: Phase,
    /// What it takes.
    pub mode: Mode,
    /// Whether it may run at all.
    pub paused: bool,
}

/// What to do with a strand after its word has moved.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Schedule {
    /// Put it at the tail of the run queue.
    Push,
    /// Leave it: it is there already, somebody is inside, or it may not run.
    Leave,
}

/// Whether a thread that took a strand off the run queue may go in.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// The thread is inside now.
    Run,
    /// It was paused or closed meanwhile; it rests.
    Rest,
}

impl StrandWord {
    /// A strand just made.
    pub const NEW: Self = Self { phase: Phase::Idle, mode: Mode::Open, paused: false };

    /// Whether something that is queued may run.
    pub fn runnable(self) -> bool {
        !self.paused && self.mode != Mode::Closed
    }

    /// An item was put in.
    pub fn schedule(&mut self) -> Schedule {
        if self.phase == Phase::Idle && self.runnable() {
            self.phase = Phase::Queued;
            Schedule::Push
        } else {
            Schedule::Leave
        }
    }

    /// A thread took it off the run queue.
    pub fn begin(&mut self) -> Begin {
        debug_assert_eq!(self.phase, Phase::Queued);
        if self.runnable() {
            self.phase = Phase::Running;
            Begin::Run
        } else {
            self.phase = Phase::Idle;
            Begin::Rest
        }
    }

    /// The thread inside goes out; `more` says whether items are left.
    pub fn end(&mut self, more: bool) -> Schedule {
        debug_assert_eq!(self.phase, Phase::Running);
        if more && self.runnable() {
            self.phase = Phase::Queued;
            Schedule::Push
        } else {
            self.phase = Phase::Idle;
            Schedule::Leave
        }
    }

    /// Nothing further starts until [`Self::resume`]. A flag: twice paused is paused.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Undoes [`Self::pause`], however often it was paused; `more` says whether items are queued.
    pub fn resume(&mut self, more: bool) -> Schedule {
        self.paused = false;
        if more { self.schedule() } else { Schedule::Leave }
    }

    /// Posts are refused from now on.
    pub fn closing(&mut self) {
        if self.mode == Mode::Open {
            self.mode = Mode::Closing;
        }
    }

    /// Nothing further starts.
    pub fn close(&mut self) {
        self.mode = Mode::Closed;
    }

    /// What the user sees.
    pub fn state(self) -> StrandState {
        match (self.mode, self.paused) {
            (Mode::Closed, _) => StrandState::Closed,
            (Mode::Closing, _) => StrandState::Closing,
            (Mode::Open, true) => StrandState::Paused,
            (Mode::Open, false) => StrandState::Active,
        }
    }
}

impl fmt::Debug for StrandWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}{}", self.phase, self.mode, if self.paused { "/paused" } else { "" })
    }
}

/// One arrow of a table: in which states it may start, who causes it, where it leads.
pub struct Arrow {
    /// The method that moves the word, a verb.
    pub verb: &'static str,
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
    /// What must hold for the arrow to be taken.
    pub when: &'static str,
    /// Who may cause it.
    pub who: &'static str,
}

/// Every arrow between two different phases of a strand. `pause`, `closing` and `close` move no phase: they change
/// what the next `schedule`, `begin` or `end` may do.
pub const STRAND_TABLE: &[Arrow] = &[
    Arrow {
        verb: "schedule",
        from: Phase::Idle,
        to: Phase::Queued,
        when: "an item is queued, not paused, not closed",
        who: "any thread that posts; the leader, for an event or a timer",
    },
    Arrow {
        verb: "resume",
        from: Phase::Idle,
        to: Phase::Queued,
        when: "items are queued, not closed",
        who: "any thread",
    },
    Arrow {
        verb: "begin",
        from: Phase::Queued,
        to: Phase::Running,
        when: "not paused, not closed",
        who: "the joined thread that took it off the run queue",
    },
    Arrow {
        verb: "begin",
        from: Phase::Queued,
        to: Phase::Idle,
        when: "paused or closed while it was queued",
        who: "the joined thread that took it off the run queue",
    },
    Arrow {
        verb: "end",
        from: Phase::Running,
        to: Phase::Queued,
        when: "items are left, not paused, not closed",
        who: "the thread inside",
    },
    Arrow {
        verb: "end",
        from: Phase::Running,
        to: Phase::Idle,
        when: "no item is left, or paused, or closed",
        who: "the thread inside",
    },
];

/// Why a watch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum RemovalReason {
    /// Somebody called `remove`.
    Removed = 1,
    /// The descriptor was closed behind the loop's back.
    FdGone = 2,
    /// Its handler raised.
    HandlerError = 3,
    /// Its strand ended.
    StrandClosed = 4,
    /// The loop was closed.
    LoopClosed = 5,
}

/// The flags of a watch's word.
pub mod watch {
    /// Its events are not delivered; cleared by `resume`.
    pub const PAUSED: u32 = 1;
    /// Readiness was reported and waits in the strand's queue, as one entry.
    pub const PENDING: u32 = 2;
    /// It was removed: no handler starts any more. Never cleared.
    pub const REMOVED: u32 = 4;
    /// It is out of the kernel and out of the table of numbers. Only with REMOVED.
    pub const UNREGISTERED: u32 = 8;
    /// Its final callback was handed out. Only with UNREGISTERED, and once.
    pub const FINISHED: u32 = 16;
    /// The kernel's registration is armed by level, and stays so while the handler runs. Written only by whoever tells the
    /// kernel, under the number's lock and the strand's together, before he tells it.
    pub const LEVEL: u32 = 32;
}

/// A loop's life. OPEN -> DRAINING -> STOPPED -> (restart) OPEN; CLOSED from any of them once nobody is inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Life {
    /// Serves.
    Open,
    /// Runs what it has, polls no more, takes nothing from outside.
    Draining,
    /// Joined threads leave after the handler they are in. `drained`: it refuses posts until the restart.
    Stopped {
        /// Whether it got here by a drain.
        drained: bool,
    },
    /// For good.
    Closed,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn words() -> impl Iterator<Item = StrandWord> {
        [Phase::Idle, Phase::Queued, Phase::Running].into_iter().flat_map(|phase| {
            [Mode::Open, Mode::Closing, Mode::Closed]
                .into_iter()
                .flat_map(move |mode| [false, true].map(|paused| StrandWord { phase, mode, paused }))
        })
    }

    #[test]
    fn the_table_has_every_arrow_that_the_methods_take_and_no_other() {
        let mut taken = HashSet::new();
        for word in words() {
            let mut step = |verb: &'static str, apply: &dyn Fn(&mut StrandWord)| {
                let mut after = word;
                apply(&mut after);
                if after.phase != word.phase {
                    taken.insert((verb, word.phase, after.phase));
                }
            };
            step("schedule", &|w| _ = w.schedule());
            for more in [false, true] {
                step("resume", &|w| _ = w.resume(more));
                if word.phase == Phase::Running {
                    step("end", &|w| _ = w.end(more));
                }
            }
            if word.phase == Phase::Queued {
                step("begin", &|w| _ = w.begin());
            }
            step("pause", &|w| w.pause());
            step("closing", &|w| w.closing());
            step("close", &|w| w.close());
        }
        let table: HashSet<_> = STRAND_TABLE.iter().map(|arrow| (arrow.verb, arrow.from, arrow.to)).collect();
        assert_eq!(table, taken);
    }

    #[test]
    fn a_strand_is_pushed_exactly_when_it_becomes_queued() {
        for word in words() {
            let mut after = word;
            let pushed = after.schedule() == Schedule::Push;
            assert_eq!(pushed, word.phase == Phase::Idle && after.phase == Phase::Queued);
        }
    }
}
