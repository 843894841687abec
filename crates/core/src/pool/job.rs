//! A job's life: its states, the arrows between them, and what the thread that runs it looks at.
//!
//! The status is a plain value that the pool's mutex guards; it is kept in an atomic so that it can be looked at without
//! the mutex. Code elsewhere moves it only by the methods of [`Status`], one for each verb of [`JOB_TABLE`], from which
//! `docs/design/job.md` is drawn.

use std::sync::atomic::AtomicU64 as PlainU64;

use crate::counters::{Counted, Kind};
use crate::slots::Token;
use crate::sync::Condvar;
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};

/// Where a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// Accepted; no thread has begun it.
    Queued = 0,
    /// Begun. A stepwise job between two steps is running too, without a thread.
    Running = 1,
    /// It waits for its owner.
    Syncing = 2,
    /// It was told to stop and has not ended yet.
    Stopping = 3,
    /// It ended by itself: with a value, or with an exception.
    Finished = 4,
    /// It never ran, or gave up when it was told to.
    Stopped = 5,
}

impl Status {
    /// Every status, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Syncing, Self::Stopping, Self::Finished, Self::Stopped];

    /// Whether nothing follows.
    pub fn ended(self) -> bool {
        matches!(self, Self::Finished | Self::Stopped)
    }

    /// A thread begins it.
    #[must_use]
    pub fn start(self) -> Option<Self> {
        (self == Self::Queued).then_some(Self::Running)
    }

    /// It meets its owner.
    #[must_use]
    pub fn sync(self) -> Option<Self> {
        (self == Self::Running).then_some(Self::Syncing)
    }

    /// Its owner answered, or there is none any more and it may go on without.
    #[must_use]
    pub fn answer(self) -> Option<Self> {
        (self == Self::Syncing).then_some(Self::Running)
    }

    /// Somebody tells it to stop.
    #[must_use]
    pub fn stop(self) -> Option<Self> {
        match self {
            Self::Queued => Some(Self::Stopped),
            Self::Running | Self::Syncing => Some(Self::Stopping),
            Self::Stopping | Self::Finished | Self::Stopped => None,
        }
    }

    /// Its function returned, or raised.
    #[must_use]
    pub fn finish(self) -> Option<Self> {
        matches!(self, Self::Running | Self::Stopping).then_some(Self::Finished)
    }

    /// Its function gave up because it was told to stop.
    #[must_use]
    pub fn give_up(self) -> Option<Self> {
        (self == Self::Stopping).then_some(Self::Stopped)
    }
}

/// One arrow of a job's table.
pub struct JobArrow {
    /// The method of [`Status`] that moves it, a verb.
    pub verb: &'static str,
    /// The status before.
    pub from: Status,
    /// The status after.
    pub to: Status,
    /// What must hold for the arrow to be taken.
    pub when: &'static str,
    /// Who may cause it.
    pub who: &'static str,
}

/// Every arrow of a job's life.
pub const JOB_TABLE: &[JobArrow] = &[
    JobArrow {
        verb: "start",
        from: Status::Queued,
        to: Status::Running,
        when: "its turn has come",
        who: "a free thread of the pool, or a joined thread that has a place for it",
    },
    JobArrow {
        verb: "stop",
        from: Status::Queued,
        to: Status::Stopped,
        when: "always: it never runs",
        who: "anybody, its owner's end, its deadline, the pool's end",
    },
    JobArrow { verb: "sync", from: Status::Running, to: Status::Syncing, when: "it has an owner", who: "the job" },
    JobArrow {
        verb: "stop",
        from: Status::Running,
        to: Status::Stopping,
        when: "always",
        who: "anybody, its owner's end, its deadline, the pool's end, the end of the loop it runs in",
    },
    JobArrow {
        verb: "finish",
        from: Status::Running,
        to: Status::Finished,
        when: "its function returned or raised",
        who: "the job",
    },
    JobArrow {
        verb: "answer",
        from: Status::Syncing,
        to: Status::Running,
        when: "it was answered and on_sync has returned, or its owner is gone and it outlives it",
        who: "anybody who answers",
    },
    JobArrow {
        verb: "stop",
        from: Status::Syncing,
        to: Status::Stopping,
        when: "always",
        who: "as for a running one; the time limit of the sync; a failing on_sync",
    },
    JobArrow {
        verb: "finish",
        from: Status::Stopping,
        to: Status::Finished,
        when: "its function returned a value or raised something else all the same",
        who: "the job",
    },
    JobArrow {
        verb: "give_up",
        from: Status::Stopping,
        to: Status::Stopped,
        when: "JobStopped left its function, or it returned STOPPED",
        who: "the job",
    },
];

/// Why a job was told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum StopReason {
    /// Somebody called `stop()` or `cancel()`.
    Caller = 1,
    /// Its owner ended.
    OwnerGone = 2,
    /// Its deadline passed.
    Deadline = 3,
    /// Nobody answered its sync in time.
    SyncTimeout = 4,
    /// The callback of its sync raised.
    SyncFailed = 5,
    /// Its pool finishes.
    PoolFinishing = 6,
    /// The loop on whose thread it runs stops.
    LoopStopping = 7,
}

impl StopReason {
    /// Every reason, in the order of their numbers, which begin with 1.
    pub const ALL: [Self; 7] = [
        Self::Caller,
        Self::OwnerGone,
        Self::Deadline,
        Self::SyncTimeout,
        Self::SyncFailed,
        Self::PoolFinishing,
        Self::LoopStopping,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// How a job is to be treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits {
    /// It is a generator, run step by step.
    pub steps: bool,
    /// It takes long: it counts against the share of such jobs.
    pub slow: bool,
    /// It goes on when its owner ends.
    pub outlive: bool,
    /// A thread joined to the loop of this number may run it; 0 for none.
    pub in_place: usize,
    /// It stays on the done queue until it is reaped.
    pub keep: bool,
    /// The higher, the sooner.
    pub priority: i32,
    /// Nanoseconds on the monotonic clock.
    pub deadline: Option<u64>,
}

/// Nanoseconds until a job that swallowed its stop is told again.
const TELL_AGAIN: u64 = 1_000_000_000;

/// What a pool, the thread that runs the job, and whoever asks after it share.
pub struct Job {
    /// Unique in the process, ascending.
    pub id: u64,
    /// How it is to be treated.
    pub traits: Traits,
    token: AtomicU64,
    /// A `Status`. GUARDED BY the pool's state; atomic so that it can be looked at.
    status: AtomicU8,
    /// A `StopReason`, 0 for none. GUARDED BY the pool's state.
    reason: AtomicU8,
    /// Nanoseconds, when the next check-in raises; `u64::MAX` while nobody has asked.
    tell_at: AtomicU64,
    /// Its owner is gone, or it was detached.
    orphaned: AtomicBool,
    /// It is run step by step: from the beginning, or from a moment on that its own thread chose. GUARDED BY the pool's
    /// state, for changes.
    steps: AtomicBool,
    /// Readable once it was told to stop; -1 until somebody needs it. GUARDED BY the pool's state, for changes.
    descriptor: AtomicI32,
    /// Its status moved, or a sync of it did. Waited for under the pool's state.
    pub(crate) changed: Condvar,
    _counted: Counted,
}

impl Job {
    /// A job that no pool has accepted.
    pub fn new(traits: Traits) -> Self {
        static NEXT: PlainU64 = PlainU64::new(1);
        Self {
            id: NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            traits,
            token: AtomicU64::new(Token::NONE.0),
            status: AtomicU8::new(Status::Queued as u8),
            reason: AtomicU8::new(0),
            tell_at: AtomicU64::new(u64::MAX),
            orphaned: AtomicBool::new(false),
            steps: AtomicBool::new(traits.steps),
            descriptor: AtomicI32::new(-1),
            changed: Condvar::new(),
            _counted: Counted::new(Kind::Jobs),
        }
    }

    /// Its place in the pool's table, `Token::NONE` before it was accepted.
    pub fn token(&self) -> Token {
        Token(self.token.load(Ordering::Relaxed))
    }

    pub(crate) fn set_token(&self, token: Token) {
        self.token.store(token.0, Ordering::Relaxed);
    }

    /// Whether it is run step by step.
    pub fn steps(&self) -> bool {
        self.steps.load(Ordering::Relaxed)
    }

    pub(crate) fn set_steps(&self) {
        self.steps.store(true, Ordering::Relaxed);
    }

    /// Where it is, a moment ago.
    pub fn status(&self) -> Status {
        // ORDER: Acquire; pairs with the Release in `set_status`: who sees the end sees the outcome.
        Status::ALL[usize::from(self.status.load(Ordering::Acquire))]
    }

    pub(crate) fn set_status(&self, status: Status) {
        // ORDER: Release; pairs with the Acquire in `status`.
        self.status.store(status as u8, Ordering::Release);
    }

    /// Why it was told to stop, if it was.
    pub fn reason(&self) -> Option<StopReason> {
        // ORDER: Acquire; pairs with the Release in `tell`.
        StopReason::from_number(self.reason.load(Ordering::Acquire))
    }

    pub(crate) fn tell(&self, reason: StopReason) {
        // ORDER: Release; pairs with the Acquire in `reason` and `check_in`.
        self.reason.store(reason as u8, Ordering::Release);
        self.tell_at.store(0, Ordering::Release);
    }

    /// On the job's own thread: whether it has to stop now. True at the first call after the stop, and again each second
    /// for a job that goes on all the same.
    #[inline]
    pub fn check_in(&self) -> bool {
        // ORDER: Acquire; pairs with the Release in `tell`.
        let at = self.tell_at.load(Ordering::Acquire);
        if at == u64::MAX { false } else { self.told(at) }
    }

    #[cold]
    fn told(&self, at: u64) -> bool {
        let now = crate::clock::monotonic();
        if now < at {
            return false;
        }
        // Only the job's own thread and `tell` store here, and `tell` stores once.
        self.tell_at.store(now + TELL_AGAIN, Ordering::Relaxed);
        true
    }

    /// Whether the stop was seen by a check-in.
    pub fn was_told(&self) -> bool {
        !matches!(self.tell_at.load(Ordering::Relaxed), 0 | u64::MAX)
    }

    /// Whether its owner is gone, or it was detached.
    pub fn orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Relaxed)
    }

    pub(crate) fn set_orphaned(&self) {
        self.orphaned.store(true, Ordering::Relaxed);
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.descriptor.load(Ordering::Relaxed)
    }

    pub(crate) fn set_descriptor(&self, fd: i32) {
        self.descriptor.store(fd, Ordering::Relaxed);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let fd = self.descriptor();
        if fd >= 0 {
            // SAFETY: made by `Pool::stop_descriptor` for this job alone; nobody else closes it.
            unsafe { rustix::io::close(fd) };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_has_every_arrow_that_the_methods_take_and_no_other() {
        type Verb = (&'static str, fn(Status) -> Option<Status>);
        let verbs: [Verb; 6] = [
            ("start", Status::start),
            ("sync", Status::sync),
            ("answer", Status::answer),
            ("stop", Status::stop),
            ("finish", Status::finish),
            ("give_up", Status::give_up),
        ];
        let taken: HashSet<_> = Status::ALL
            .into_iter()
            .flat_map(|from| verbs.iter().filter_map(move |(verb, step)| Some((*verb, from, step(from)?))))
            .collect();
        let table: HashSet<_> = JOB_TABLE.iter().map(|arrow| (arrow.verb, arrow.from, arrow.to)).collect();
        assert_eq!(table, taken);
    }

    #[test]
    fn nothing_follows_an_end() {
        assert!(JOB_TABLE.iter().all(|arrow| !arrow.from.ended()));
    }

    #[test]
    fn a_stop_is_told_once_until_a_second_has_passed() {
        let job = Job::new(Traits::default());
        assert!(!job.check_in());
        job.tell(StopReason::Caller);
        assert!(job.check_in());
        assert!(!job.check_in());
        assert_eq!(job.reason(), Some(StopReason::Caller));
    }
}
