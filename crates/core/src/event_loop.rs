//! All of it together: what a loop is made of, and what is asked of it from outside.
//!
//! Calls that take or return a payload are *attached* calls: they may drop one, so the seam makes them while it holds
//! the interpreter. [`EventLoop::wait`] and the `wait_…` calls are detached ones.

use core::time::Duration;
use std::os::fd::RawFd;

use crate::Payload;
use crate::clock::{Clock, Sleeper};
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::fork::{self, Remembered};
use crate::hub::{Hub, Wake};
use crate::numbers::Numbers;
use crate::owned::OwnedJobs;
use crate::poller::{self, Poller, PollerKind};
use crate::slots::Slots;
use crate::socket::Socket;
use crate::state::Life;
use crate::strand::Strand;
use crate::sync::{Arc, Mutex, RwLock, Weak};
use crate::timer::Timers;
use crate::watch::Record;

/// How a loop is made.
pub struct Options {
    /// Which system call waits.
    pub poller: PollerKind,
    /// Whose time its timers go by.
    pub clock: Clock,
    /// Whether two threads can run user code at the same time.
    pub parallel: bool,
    /// After this time the lead may be taken from a thread that runs handlers.
    pub handover: Duration,
}

/// The loop that many threads turn.
pub struct EventLoop<P: Payload> {
    pub(crate) hub: Hub<P>,
    /// Written once, by `close`, which leaves a poller without descriptors behind.
    pub(crate) poller: RwLock<Box<dyn Poller>>,
    pub(crate) numbers: Numbers,
    /// Whether it pays to arm by level: the poller's answer.
    level_pays: bool,
    pub(crate) watches: Mutex<Slots<Option<Record<P>>>>,
    pub(crate) strands: Mutex<Slots<Arc<Strand<P>>>>,
    pub(crate) sockets: Mutex<Slots<Weak<Socket<P>>>>,
    pub(crate) timers: Mutex<Timers<P>>,
    pub(crate) clock: Clock,
    /// While the main thread is joined: the readable end that signals are written to, and the descriptor that they were
    /// written to before (-1 for none), which gets a copy.
    pub(crate) signals: Mutex<Option<(RawFd, RawFd)>>,
    pub(crate) owned: Mutex<OwnedJobs>,
    epoch: u32,
    process: u32,
    /// Until `close` gives the descriptors back.
    pub(crate) remembered: Mutex<Option<Remembered>>,
    _counted: Counted,
}

impl<P: Payload> EventLoop<P> {
    /// A loop that nobody has joined.
    pub fn new(options: Options) -> Result<Arc<Self>, Error> {
        let poller = poller::open(options.poller)?;
        Ok(Self::with_poller(poller, options))
    }

    /// As [`Self::new`], on a poller that is open already.
    pub fn with_poller(poller: Box<dyn Poller>, options: Options) -> Arc<Self> {
        let [one, two] = poller.raw_fds();
        let level_pays = poller.level_pays();
        let made = Arc::new(Self {
            hub: Hub::new(options.parallel, options.handover.as_nanos() as u64),
            poller: RwLock::new(poller),
            numbers: Numbers::new(),
            level_pays,
            watches: Mutex::new(Slots::default()),
            strands: Mutex::new(Slots::default()),
            sockets: Mutex::new(Slots::default()),
            timers: Mutex::new(Timers::new()),
            clock: options.clock,
            signals: Mutex::new(None),
            owned: Mutex::new(OwnedJobs::new()),
            epoch: fork::epoch(),
            process: std::process::id(),
            remembered: Mutex::new(Some(fork::remember([one, two]))),
            _counted: Counted::new(Kind::Loops),
        });
        if let Clock::Manual(clock) = &made.clock {
            let sleeper: Arc<dyn Sleeper> = made.clone();
            clock.attach(Arc::downgrade(&sleeper));
        }
        made
    }

    /// Refuses in a forked child: nothing of an inherited loop may be touched, not even its locks.
    pub fn check_fork(&self) -> Result<(), Error> {
        if self.epoch == fork::epoch() { Ok(()) } else { Err(Error::Forked { parent: self.process }) }
    }

    /// Refuses in a forked child and on a closed loop.
    pub fn check_open(&self) -> Result<(), Error> {
        self.check_fork()?;
        if self.hub.life() == Life::Closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// The loop's time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The poller's name.
    pub fn poller_name(&self) -> &'static str {
        self.poller().name()
    }

    /// The poller, which stays open while this is held.
    pub(crate) fn poller(&self) -> impl core::ops::Deref<Target = Box<dyn Poller>> + '_ {
        self.poller.read()
    }

    /// Whether a watch that is armed now is armed by level, and not for one report.
    pub(crate) fn by_level(&self) -> bool {
        self.level_pays && self.hub.solo()
    }

    /// Wakes whom there is to wake. Under no lock; better detached: the thread that wakes may want the interpreter.
    pub fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Poller => self.poller().wake(),
            Wake::Seat(seat) => seat.unparked.notify_one(),
        }
    }
}
