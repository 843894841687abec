//! What waits for descriptors: one contract, three system calls.
//!
//! A poller turns "tell me when this descriptor can be read" into one blocking call, [`Poller::wait`], and knows
//! nothing else: no strands, no handlers, no generations. It answers with the *token* it was given; what a token
//! means, and whether it is still current, is the loop's business.
//!
//! Who may call what: at most one thread at a time is inside `wait`; every other method may be called by any
//! thread at any time, also beside a `wait`. Changes take effect for the wait in progress. Two changes of the same
//! number at once are the caller's to order (the loop holds that number's lock).
//!
//! * `epoll` is the one to use: the kernel keeps the interest, and a wait costs what is ready.
//! * `poll` and `select` keep the interest in user space (`interest.rs`) and hand all of it to the kernel at every
//!   wait. They exist to prove the contract and to show that cost. Their exceptions are listed in their files.
//!
//! Spurious reports and spurious returns are allowed, lost ones are not. A report says what was so when the kernel
//! looked; a caller that needs the truth reads the descriptor without blocking.
//!
//! Fork: a poller belongs to the process that opened it. In a child its descriptors name the same kernel objects,
//! so a change made there would change the parent. The child may only drop it (which then leaves the numbers
//! alone) or close the numbers of [`Poller::raw_fds`]; neither takes a lock.

mod descriptor;
mod epoll;
mod interest;
mod poll;
mod select;
mod wake;

use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::os::fd::RawFd;
use std::time::Duration;

/// The most events one [`Poller::wait`] appends: bounds what the leader holds before others can see it.
pub const MAX_EVENTS: usize = 256;

/// A set of conditions of a descriptor. The bits are our own and the same for every poller.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Events(pub u32);

impl Events {
    /// No condition.
    pub const NONE: Self = Self(0);
    /// Bytes, a connection to accept, or an end of stream can be read.
    pub const READ: Self = Self(1);
    /// Bytes can be written.
    pub const WRITE: Self = Self(2);
    /// Something exceptional, e.g. TCP urgent data.
    pub const PRIORITY: Self = Self(4);
    /// Both directions are over. Reported whether asked for or not.
    pub const HANGUP: Self = Self(8);
    /// The descriptor has an error pending. Reported whether asked for or not.
    pub const ERROR: Self = Self(16);
    /// The descriptor is closed, or its number belongs to another file now, and the registration is dropped. Only
    /// `poll` and `select` report it; epoll forgets a closed descriptor in silence.
    pub const GONE: Self = Self(32);

    /// The peer sends no more (`EPOLLRDHUP`); what it has sent may still be there. Epoll only, and only by edge.
    pub const END: Self = Self(64);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::READ, "READ"),
        (Self::WRITE, "WRITE"),
        (Self::PRIORITY, "PRIORITY"),
        (Self::HANGUP, "HANGUP"),
        (Self::ERROR, "ERROR"),
        (Self::GONE, "GONE"),
        (Self::END, "END"),
    ];

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// True if no condition is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if every condition of `other` is in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The conditions of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unnamed = self.0;
        let mut separator = "";
        for (event, name) in Self::NAMES {
            if self.contains(event) {
                write!(out, "{separator}{name}")?;
                separator = "|";
                unnamed &= !event.0;
            }
        }
        match (unnamed, separator) {
            (0, "") => out.write_str("NONE"),
            (0, _) => Ok(()),
            _ => write!(out, "{separator}{unnamed:#x}"),
        }
    }
}

/// How often a condition that goes on is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At every wait, as long as it lasts.
    Level,
    /// Once; then nothing until [`Poller::modify`].
    OneShot,
    /// When it begins, and again when more arrives. Epoll only: `poll` and `select` have no edges and treat it as
    /// [`Mode::OneShot`], so that a caller which re-arms after it has read to `EAGAIN` is right with all three.
    Edge,
}

/// One descriptor's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollEvent {
    /// What the registration was given.
    pub token: u64,
    /// What is so; never empty.
    pub events: Events,
}

/// One number as the caller wants it registered.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// The number.
    pub fd: RawFd,
    /// What to report it under.
    pub token: u64,
    /// What to report; with none and [`Mode::OneShot`] it is disarmed.
    pub events: Events,
    /// How often.
    pub mode: Mode,
}

/// Why a poller refused. Nothing has changed then, unless the variant says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollError {
    /// The number is negative, or no open descriptor has it.
    BadDescriptor,
    /// The kind of file is always ready (regular file, directory): waiting for it means nothing.
    NotPollable,
    /// The descriptor is registered already.
    Exists,
    /// The descriptor is not registered, or its number now belongs to another file.
    Missing,
    /// The number is at or beyond what the poller can hold (`select` only).
    TooLarge {
        /// The first number refused.
        limit: i32,
    },
    /// Anything else, as its `errno`: no memory, too many registrations for this user.
    Os(i32),
}

/// Which system call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollerKind {
    /// `epoll_wait`.
    Epoll,
    /// `poll`.
    Poll,
    /// `select`.
    Select,
}

impl PollerKind {
    /// Every kind, the one to prefer first.
    pub const ALL: [Self; 3] = [Self::Epoll, Self::Poll, Self::Select];

    /// The name a user writes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Poll => "poll",
            Self::Select => "select",
        }
    }

    /// The kind with this name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The contract; the head of this file says who may call what. `tests/poller_contract.rs` is its proof.
pub trait Poller: Send + Sync {
    /// Begin to report `fd` under `token` (any value but `u64::MAX`). Conditions that are so already count.
    ///
    /// # Errors
    /// `BadDescriptor`, `NotPollable`, `Exists`, `TooLarge`, `Os`. A number that was closed, reused for another
    /// file and not registered since is not `Exists`: the old registration is dead and makes room.
    fn add(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError>;

    /// Replace token, events and mode, and arm again: a condition that is so already is reported (again).
    ///
    /// # Errors
    /// `BadDescriptor` if no file has the number, `Missing` if the file that has it is not registered. Either
    /// means that what was registered under the number is gone.
    fn modify(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError>;

    /// Report nothing of `fd` until `modify`. Epoll cannot turn HANGUP and ERROR off: it may report them once more.
    /// A report that `wait` has already appended stays.
    ///
    /// # Errors
    /// As `modify`.
    fn disarm(&self, fd: RawFd, token: u64) -> Result<(), PollError>;

    /// Whether a change costs a system call, so that a registration which stays armed is cheaper than one that is armed
    /// again after each report.
    fn level_pays(&self) -> bool {
        false
    }

    /// Whether [`Mode::Edge`] is what it says.
    fn has_edges(&self) -> bool {
        false
    }

    /// Forget every registration that is not among `wanted`, also one that no number leads to any more. Of `wanted`,
    /// what is not registered is left out. By the thread that waits, between two waits, and nobody changes anything
    /// meanwhile. Conditions that are so already are reported again.
    ///
    /// # Errors
    /// `Os`: no descriptor or no memory. What was registered stays registered, as `wanted` says or as it was.
    fn renew(&self, wanted: &[Registration]) -> Result<(), PollError> {
        _ = wanted;
        Ok(())
    }

    /// Forget `fd`. When this has returned, no wait keeps its file open.
    ///
    /// # Errors
    /// `BadDescriptor` for a negative number; `Missing` if it is closed, reused or was never registered.
    fn delete(&self, fd: RawFd) -> Result<(), PollError>;

    /// Wait until something is to be reported, `wake` is called or `timeout` has passed, and append at most
    /// [`MAX_EVENTS`] reports to `out`; with more ready than that, later calls go round. `None` waits for ever.
    /// It may return with nothing at any time (a signal, a wake): callers keep their own deadline. It does not
    /// return before a timeout of up to 24 days because of rounding.
    ///
    /// # Errors
    /// Only if the poller itself is broken (its descriptors were closed): not to be tried again.
    fn wait(&self, out: &mut Vec<PollEvent>, timeout: Option<Duration>) -> Result<usize, PollError>;

    /// Would a `wait` that does not block report something? Takes nothing from it, and does not count a wake. Two
    /// calls at once may answer yes for a wake.
    ///
    /// # Errors
    /// As `wait`.
    fn ready(&self) -> Result<bool, PollError>;

    /// Make the wait in progress, or else the next one, return. Never blocks; many calls before that return count
    /// as one. What the caller wrote before is visible to the thread whose `wait` returns. Async-signal-safe.
    fn wake(&self);

    /// The descriptors the poller owns (-1 for none), for a forked child to close.
    fn raw_fds(&self) -> [RawFd; 2];

    /// The name of its kind.
    fn name(&self) -> &'static str;
}

/// What is left of a poller whose loop was closed: it has no descriptors, and refuses.
pub(crate) fn closed() -> Box<dyn Poller> {
    Box::new(Closed)
}

struct Closed;

impl Poller for Closed {
    fn add(&self, _: RawFd, _: u64, _: Events, _: Mode) -> Result<(), PollError> {
        Err(PollError::BadDescriptor)
    }

    fn modify(&self, _: RawFd, _: u64, _: Events, _: Mode) -> Result<(), PollError> {
        Err(PollError::BadDescriptor)
    }

    fn disarm(&self, _: RawFd, _: u64) -> Result<(), PollError> {
        Err(PollError::BadDescriptor)
    }

    fn delete(&self, _: RawFd) -> Result<(), PollError> {
        Err(PollError::Missing)
    }

    fn wait(&self, _: &mut Vec<PollEvent>, _: Option<Duration>) -> Result<usize, PollError> {
        Err(PollError::BadDescriptor)
    }

    fn ready(&self) -> Result<bool, PollError> {
        Ok(false)
    }

    fn wake(&self) {}

    fn raw_fds(&self) -> [RawFd; 2] {
        [-1; 2]
    }

    fn name(&self) -> &'static str {
        "closed"
    }
}

/// Open a poller of this kind.
///
/// # Errors
/// `Os` when the process or the system has no descriptors left; `TooLarge` when `select` is given a number it
/// cannot hold for its own wake-up.
pub fn open(kind: PollerKind) -> Result<Box<dyn Poller>, PollError> {
    Ok(match kind {
        PollerKind::Epoll => Box::new(epoll::Epoll::open()?),
        PollerKind::Poll => Box::new(poll::Poll::open()?),
        PollerKind::Select => Box::new(select::Select::open()?),
    })
}
