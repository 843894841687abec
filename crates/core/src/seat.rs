//! A thread's place in a loop, from `enter` to `leave`.

use core::time::Duration;
use std::collections::VecDeque;

use crate::Payload;
use crate::clock::monotonic;
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::hub::{Lead, Ready, SeatShared, Wake};
use crate::points::reach;
use crate::poller::{Events, PollEvent};
use crate::slots::Token;
use crate::socket::Socket;
use crate::state::Life;
use crate::strand::Strand;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::timer::Due;
use crate::watch::{Finished, Watch};

/// How a thread joins.
#[derive(Clone, Copy, Debug, Default)]
pub struct JoinOptions {
    /// Leave after this time.
    pub timeout: Option<Duration>,
    /// Leave when the loop is idle.
    pub until_idle: bool,
    /// Leave after so many handlers.
    pub max_handlers: Option<usize>,
    /// Only what is ready at entry: one tick, without waiting.
    pub one_tick: bool,
    /// The thread on which the interpreter runs handlers of signals.
    pub main: bool,
    /// Whatever the seam needs to name the thread.
    pub thread: u64,
}

/// What a periodic timer wants after it ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerNext {
    /// The next tick of its rate.
    Tick,
    /// Once in so many nanoseconds from now.
    After(u64),
    /// No more.
    Stop,
}

/// What a thread runs.
pub(crate) enum Current<P: Payload> {
    Nothing,
    /// A message or completion on `Seat::turn`, or on no strand.
    Message,
    Terminal,
    Timer(Token),
    Watch(Arc<Watch<P>>),
}

/// A thread's place in a loop, from `enter` to `leave`.
pub struct Seat<P: Payload> {
    /// What others may see of it.
    pub shared: Arc<SeatShared>,
    pub(crate) options: JoinOptions,
    pub(crate) deadline: Option<u64>,
    pub(crate) handled: usize,
    /// How many entries of the run queue are left of this tick; None before the tick's poll.
    pub(crate) tick_left: Option<usize>,
    /// Watches that have ended on this thread; the seam is told of each by `next`.
    pub(crate) finished: Vec<Finished<P>>,
    pub(crate) turn: Option<Arc<Strand<P>>>,
    pub(crate) budget: usize,
    pub(crate) current: Current<P>,
    pub(crate) timer_next: TimerNext,
    /// Counted in the hub's `inside`.
    pub(crate) inside: bool,
    pub(crate) since_poll: u32,
    /// How many entries of the run queue are left of those that were there after the last poll.
    pub(crate) batch: usize,
    pub(crate) last_poll: u64,
    pub(crate) poll_due: bool,
    /// The last reading of the monotonic clock.
    pub(crate) now: u64,
    /// It has just waited: `now` is old, because taking the interpreter back may have taken long.
    pub(crate) waited: bool,
    pub(crate) idle: bool,
    /// It has kept the lead when it stepped aside.
    pub(crate) keeps: bool,
    /// It has served somebody who sent for a thread, and run nothing since.
    pub(crate) came: bool,
    /// With `until_idle`: a look found nothing, but somebody was inside.
    pub(crate) probed: bool,
    pub(crate) seen_polls: u64,
    pub(crate) events: Vec<PollEvent>,
    pub(crate) due: Vec<Due<P>>,
    pub(crate) reported: Vec<(Arc<Watch<P>>, Events)>,
    pub(crate) sockets: Vec<(Token, Events)>,
    pub(crate) noted: Vec<(Arc<Socket<P>>, Events)>,
    pub(crate) ready: Vec<Ready<P>>,
}

impl<P: Payload> Seat<P> {
    /// What the periodic timer that just ran wants.
    pub fn timer_next(&mut self, next: TimerNext) {
        self.timer_next = next;
    }

    /// The timer whose callback runs, or has just run.
    pub fn timer(&self) -> Option<Token> {
        match self.current {
            Current::Timer(token) => Some(token),
            _ => None,
        }
    }

    /// The strand that the thread is in.
    pub fn strand(&self) -> Option<&Arc<Strand<P>>> {
        self.turn.as_ref()
    }

    /// How many handlers this thread has run.
    pub fn handled(&self) -> usize {
        self.handled
    }

    pub(crate) fn id(&self) -> u64 {
        self.shared.id
    }
}

/// What a thread leaves behind.
#[must_use]
pub struct Left<P: Payload> {
    /// How many handlers it has run.
    pub handled: usize,
    /// Watches that have ended, to be paid.
    pub finished: Vec<Finished<P>>,
    /// As [`crate::turn::Next::Unserved`].
    pub unserved: VecDeque<P>,
}

impl<P: Payload> EventLoop<P> {
    /// Counts the calling thread in; None if the loop is stopped.
    pub fn enter(&self, options: JoinOptions) -> Result<Option<Seat<P>>, Error> {
        self.check_open()?;
        let now = monotonic();
        let mut hub = self.hub.lock();
        match hub.life {
            Life::Closed => return Err(Error::Closed),
            Life::Stopped { .. } => return Ok(None),
            Life::Open | Life::Draining => {}
        }
        let shared = Arc::new(SeatShared::new(hub.next_seat, options.main, options.thread));
        hub.next_seat += 1;
        hub.seats.push(shared.clone());
        self.hub.count_seats(&hub);
        let second = hub.seats.len() == 2;
        drop(hub);
        // From now on a thread may poll beside a handler.
        let finished = if second { self.arm_for_one_report() } else { Vec::new() };
        reach("join.entered");
        Ok(Some(Seat {
            shared,
            options,
            deadline: options.timeout.map(|timeout| now.saturating_add(timeout.as_nanos() as u64)),
            handled: 0,
            tick_left: None,
            finished,
            turn: None,
            budget: 0,
            current: Current::Nothing,
            timer_next: TimerNext::Tick,
            inside: false,
            since_poll: 0,
            batch: 0,
            last_poll: now,
            poll_due: false,
            now,
            waited: false,
            idle: false,
            keeps: false,
            came: false,
            probed: false,
            seen_polls: 0,
            events: Vec::new(),
            due: Vec::new(),
            reported: Vec::new(),
            sockets: Vec::new(),
            noted: Vec::new(),
            ready: Vec::new(),
        }))
    }

    /// Attached. Counts the thread out; what it had begun goes back to the run queue.
    pub fn leave(&self, mut seat: Seat<P>) -> Left<P> {
        self.end_item(&mut seat);
        self.end_turn(&mut seat);
        reach("join.leaving");
        let mut hub = self.hub.lock();
        self.settle(&mut hub, &mut seat);
        hub.seats.retain(|other| other.id != seat.shared.id);
        self.hub.count_seats(&hub);
        hub.handled += seat.shared.handled.load(Ordering::Relaxed);
        for (total, own) in hub.histogram.iter_mut().zip(&seat.shared.histogram) {
            *total += own.load(Ordering::Relaxed);
        }
        if matches!(hub.lead, Lead::Held { seat: holder, .. } if holder == seat.id()) {
            hub.lead = Lead::Free;
        }
        if hub.standby == Some(seat.id()) {
            hub.standby = None;
        }
        // Somebody has to lead, and to run what this thread was perhaps woken for.
        let wake = match (hub.life, hub.lead) {
            (Life::Open, Lead::Free) => self.hub.unpark(&mut hub),
            (Life::Open, _) if hub.sent_for() => self.hub.wake_for_place(&mut hub),
            (Life::Open | Life::Draining, _) if hub.has_ready() => self.hub.wake_for_work(&mut hub),
            (Life::Draining, _) => self.hub.wake_all(&mut hub),
            _ => Wake::Nobody,
        };
        // Of the places that are left none may be free for long.
        let full = hub.places + 1 >= hub.seats.len();
        let unserved = if full || hub.sends_nobody() { core::mem::take(&mut hub.sent) } else { VecDeque::new() };
        self.hub.changed.notify_all();
        drop(hub);
        self.wake(wake);
        Left { handled: seat.handled, finished: seat.finished, unserved }
    }
}
