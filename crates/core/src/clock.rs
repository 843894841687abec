//! The loop's clock: monotonic, or moved by hand in tests.
//!
//! Only timers go by the loop's clock. How long a thread may wait (join's timeout, the hand-over of the lead) is always
//! real time: moving a test's clock must not change how threads meet.

use core::time::Duration;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, Weak};

/// Nanoseconds on CLOCK_MONOTONIC.
#[cfg(not(loom))]
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// loom explores orders, not durations: time stands until a test moves it with [`set_monotonic`].
#[cfg(loom)]
pub fn monotonic() -> u64 {
    LOOM_NOW.load(std::sync::atomic::Ordering::SeqCst)
}

#[cfg(loom)]
static LOOM_NOW: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Moves the time that [`monotonic`] tells under loom.
#[cfg(loom)]
pub fn set_monotonic(nanoseconds: u64) {
    LOOM_NOW.store(nanoseconds, std::sync::atomic::Ordering::SeqCst);
}

/// Whose time a loop's timers go by.
pub enum Clock {
    /// CLOCK_MONOTONIC.
    Monotonic,
    /// Moved by hand.
    Manual(Arc<ManualClock>),
}

impl Clock {
    /// Nanoseconds.
    pub fn now(&self) -> u64 {
        match self {
            Self::Monotonic => monotonic(),
            Self::Manual(clock) => clock.now(),
        }
    }

    /// How long a thread may wait for `when`; None for ever: a clock moved by hand wakes the loops that use it.
    pub(crate) fn until(&self, when: u64) -> Option<Duration> {
        match self {
            Self::Monotonic => Some(Duration::from_nanos(when.saturating_sub(monotonic()))),
            Self::Manual(clock) if clock.now() >= when => Some(Duration::ZERO),
            Self::Manual(_) => None,
        }
    }
}

/// Something that has to look again after the clock was moved: a loop.
pub trait Sleeper: Send + Sync {
    /// The clock was moved.
    fn clock_moved(&self);
    /// The next deadline, if every joined thread waits and nothing is ready; None if something may still happen.
    fn waits_until(&self) -> Waits;
}

/// What a loop on a manual clock is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// Nobody is joined: it neither holds the clock back nor moves it.
    Nobody,
    /// Something runs or is ready: the clock must stand.
    Busy,
    /// Every joined thread waits, for this deadline if there is one.
    Until(Option<u64>),
}

/// A clock that moves when it is told to, or by itself whenever every joined thread of its loops waits.
pub struct ManualClock {
    now: AtomicU64,
    autojump: AtomicBool,
    sleepers: Mutex<Vec<Weak<dyn Sleeper>>>,
}

impl ManualClock {
    /// A clock that stands at `now` nanoseconds.
    pub fn new(now: u64, autojump: bool) -> Self {
        Self { now: AtomicU64::new(now), autojump: AtomicBool::new(autojump), sleepers: Mutex::new(Vec::new()) }
    }

    /// Nanoseconds.
    pub fn now(&self) -> u64 {
        // ORDER: Acquire; pairs with `advance` and `jump`.
        self.now.load(Ordering::Acquire)
    }

    /// Whether it moves by itself.
    pub fn autojump(&self) -> bool {
        self.autojump.load(Ordering::Relaxed)
    }

    /// Says whether it moves by itself, from now on.
    pub fn set_autojump(&self, autojump: bool) {
        self.autojump.store(autojump, Ordering::Relaxed);
        self.wake();
    }

    /// Moves it on and wakes every loop that uses it.
    pub fn advance(&self, nanoseconds: u64) {
        // ORDER: AcqRel; a loop woken by `wake` sees the new time.
        self.now.fetch_add(nanoseconds, Ordering::AcqRel);
        self.wake();
    }

    pub(crate) fn attach(&self, sleeper: Weak<dyn Sleeper>) {
        let mut sleepers = self.sleepers.lock();
        sleepers.retain(|other| other.strong_count() > 0);
        sleepers.push(sleeper);
    }

    /// Called by a loop whose threads all wait: moves the clock to the next deadline if every loop's threads do.
    pub(crate) fn jump(&self) -> bool {
        if !self.autojump() {
            return false;
        }
        let mut next: Option<u64> = None;
        for sleeper in self.loops() {
            match sleeper.waits_until() {
                Waits::Nobody | Waits::Until(None) => {}
                Waits::Busy => return false,
                Waits::Until(Some(when)) => next = Some(next.map_or(when, |other| other.min(when))),
            }
        }
        match next {
            Some(when) if when > self.now() => {
                // ORDER: AcqRel, as in `advance`; never back.
                self.now.fetch_max(when, Ordering::AcqRel);
                self.wake();
                true
            }
            _ => false,
        }
    }

    fn wake(&self) {
        for sleeper in self.loops() {
            sleeper.clock_moved();
        }
    }

    /// Collected under the lock, used after it: a loop's own lock is never taken inside the clock's.
    fn loops(&self) -> Vec<Arc<dyn Sleeper>> {
        self.sleepers.lock().iter().filter_map(Weak::upgrade).collect()
    }
}
