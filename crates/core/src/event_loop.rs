//! All of it together: what a loop is made of, and what is asked of it from outside.
//!
//! Calls that take or return a payload are *attached* calls: they may drop one, so the seam makes them while it holds
//! the interpreter. [`EventLoop::wait`] and the `wait_…` calls are detached ones.

use core::time::Duration;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Instant;

use crate::Payload;
use crate::clock::{Clock, Sleeper, Waits};
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::fork::{self, Remembered};
use crate::hub::{BUCKETS, Hub, Lead, Ready, SeatShared, Wake};
use crate::numbers::Numbers;
use crate::points::reach;
use crate::poller::{self, Events, Mode as PollMode, Poller, PollerKind};
use crate::slots::{Slots, Token};
use crate::state::{Life, Mode, Phase, RemovalReason, Schedule, StrandState};
use crate::strand::{Body, Entry, Inside, Strand};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, MutexGuard, RwLock, thread_number};
use crate::timer::Timers;
use crate::watch::{Finished, Occupant, Record};

/// The poller's token for the descriptor of signals: its generation is 0, which no slot ever has.
pub(crate) const SIGNAL: u64 = 1;

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

/// Who posts: a handler of this loop, or anybody else. A drain takes only what its own handlers post.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A thread that is inside a handler of this loop.
    Inside,
    /// Any other.
    Outside,
}

/// Where in a strand's (or the loop's) order a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Last.
    Ordinary,
    /// Before the ordinary ones, after the urgent ones.
    Urgent,
}

/// A message that was not taken comes back to its sender.
pub struct Refused<P> {
    /// Why.
    pub error: Error,
    /// The message.
    pub payload: Option<P>,
}

/// A strand that was closed: what did not run, and the watches that ended with it.
pub struct ClosedStrand<P: Payload> {
    /// Messages that did not run, in order.
    pub messages: Vec<P>,
    /// Its watches.
    pub finished: Vec<Finished<P>>,
}

/// Counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Threads that have joined.
    pub joined: usize,
    /// Of these, the parked ones.
    pub parked: usize,
    /// Entries of the run queue.
    pub ready: usize,
    /// Registered watches.
    pub watches: usize,
    /// Timers that are set.
    pub timers: usize,
    /// Handlers run since the loop was made.
    pub handled: u64,
    /// Waits in the poller.
    pub polls: u64,
    /// Threads woken for work.
    pub wakes: u64,
    /// Parked threads woken to watch over the lead.
    pub standbys: u64,
    /// How many handlers took up to 2^i microseconds.
    pub histogram: [u64; BUCKETS],
}

/// One strand, for `dump`.
#[derive(Clone, Debug)]
pub struct StrandView {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: StrandState,
    /// Queued items.
    pub items: usize,
    /// Whether a thread is inside.
    pub running: bool,
    /// Whether it belongs to one watch.
    pub own: bool,
}

/// The loop that many threads turn.
pub struct EventLoop<P: Payload> {
    pub(crate) hub: Hub<P>,
    /// Written once, by `close`, which leaves a poller without descriptors behind.
    poller: RwLock<Box<dyn Poller>>,
    pub(crate) numbers: Numbers,
    pub(crate) watches: Mutex<Slots<Option<Record<P>>>>,
    strands: Mutex<Slots<Arc<Strand<P>>>>,
    pub(crate) timers: Mutex<Timers<P>>,
    pub(crate) clock: Clock,
    /// While the main thread is joined: the readable end that signals are written to, and the descriptor that they were
    /// written to before (-1 for none), which gets a copy.
    signals: Mutex<Option<(RawFd, RawFd)>>,
    epoch: u32,
    process: u32,
    /// Until `close` gives the descriptors back.
    remembered: Mutex<Option<Remembered>>,
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
        let made = Arc::new(Self {
            hub: Hub::new(options.parallel, options.handover.as_nanos() as u64),
            poller: RwLock::new(poller),
            numbers: Numbers::new(),
            watches: Mutex::new(Slots::default()),
            strands: Mutex::new(Slots::default()),
            timers: Mutex::new(Timers::new()),
            clock: options.clock,
            signals: Mutex::new(None),
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

    /// Its life, a moment ago.
    pub fn life(&self) -> Life {
        self.hub.life()
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

    /// Wakes whom there is to wake. Under no lock.
    pub(crate) fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Poller => self.poller().wake(),
            Wake::Seat(seat) => seat.unparked.notify_one(),
        }
    }

    // Strands.

    /// A strand that belongs to the caller, or to one watch.
    pub fn strand(&self, name: Option<String>, max_pending: Option<usize>) -> Result<Arc<Strand<P>>, Error> {
        self.check_open()?;
        Ok(self.new_strand(name, false, max_pending))
    }

    pub(crate) fn new_strand(&self, name: Option<String>, own: bool, max_pending: Option<usize>) -> Arc<Strand<P>> {
        let mut strands = self.strands.lock();
        let mut made = None;
        strands.insert(|token| made.insert(Arc::new(Strand::new(token, name, own, max_pending))).clone());
        match made {
            Some(strand) => strand,
            None => unreachable!("insert calls its argument"),
        }
    }

    /// Puts a message on a strand.
    pub fn post(&self, strand: &Arc<Strand<P>>, payload: P, place: Place, from: Origin) -> Result<(), Refused<P>> {
        let refuse = |error, payload| Err(Refused { error, payload: Some(payload) });
        if let Err(error) = self.check_taking(from) {
            return refuse(error, payload);
        }
        let mut body = strand.body.lock();
        if body.word.mode != Mode::Open {
            drop(body);
            return refuse(Error::StrandClosed, payload);
        }
        let mail = body.mail();
        match place {
            Place::Urgent => mail.urgent.push_back(payload),
            Place::Ordinary => {
                if let Some(limit) = mail.max_pending
                    && mail.ordinary.len() >= limit
                {
                    drop(body);
                    return refuse(Error::QueueFull { limit }, payload);
                }
                mail.ordinary.push_back(payload);
                body.queue.push_back(Entry::Message);
            }
        }
        let back = |body: &mut Body<P>| match place {
            Place::Urgent => body.mail().urgent.pop_back(),
            Place::Ordinary => {
                body.queue.pop_back();
                body.mail().ordinary.pop_back()
            }
        };
        self.schedule(strand, body, from, back)
    }

    /// Puts the last message on a strand: earlier ones run, later ones are refused.
    pub fn post_terminal(
        &self,
        strand: &Arc<Strand<P>>,
        payload: Option<P>,
        from: Origin,
    ) -> Result<(), Refused<P>> {
        if let Err(error) = self.check_taking(from) {
            return Err(Refused { error, payload });
        }
        let mut body = strand.body.lock();
        if body.word.mode != Mode::Open {
            drop(body);
            return Err(Refused { error: Error::StrandClosed, payload });
        }
        let mail = body.mail();
        mail.terminal = payload;
        mail.terminal_in = true;
        body.queue.push_back(Entry::Terminal);
        body.word.closing();
        let back = |body: &mut Body<P>| {
            body.queue.pop_back();
            body.word.mode = Mode::Open;
            let mail = body.mail();
            mail.terminal_in = false;
            mail.terminal.take()
        };
        self.schedule(strand, body, from, back)
    }

    /// Puts a strand that has got an item into the run queue, if it has to. The strand's lock is held until the hub has
    /// said yes: between "taken" and "refused" nothing can come in.
    fn schedule(
        &self,
        strand: &Arc<Strand<P>>,
        mut body: MutexGuard<'_, Body<P>>,
        from: Origin,
        back: impl FnOnce(&mut Body<P>) -> Option<P>,
    ) -> Result<(), Refused<P>> {
        let mut wake = Wake::Nobody;
        if body.word.schedule() == Schedule::Push {
            let mut hub = self.hub.lock();
            if let Err(error) = taking(hub.life, from) {
                drop(hub);
                body.word.phase = Phase::Idle;
                let payload = back(&mut body);
                drop(body);
                return Err(Refused { error, payload });
            }
            hub.ready.push_back(Ready::Strand(strand.clone()));
            wake = self.hub.wake_for_work(&mut hub);
        }
        drop(body);
        reach("post.queued");
        self.wake(wake);
        Ok(())
    }

    fn check_taking(&self, from: Origin) -> Result<(), Error> {
        self.check_fork()?;
        taking(self.hub.life(), from)
    }

    /// Nothing on the strand starts until it is resumed.
    pub fn pause_strand(&self, strand: &Strand<P>) {
        strand.body.lock().word.pause();
    }

    /// Undoes `pause_strand`.
    pub fn resume_strand(&self, strand: &Arc<Strand<P>>) {
        let mut body = strand.body.lock();
        let more = body.has_items();
        let mut wake = Wake::Nobody;
        if body.word.resume(more) == Schedule::Push {
            let mut hub = self.hub.lock();
            hub.ready.push_back(Ready::Strand(strand.clone()));
            wake = self.hub.wake_for_work(&mut hub);
        }
        if body.waiters > 0 {
            strand.vacated.notify_all();
        }
        drop(body);
        self.wake(wake);
    }

    /// Detached. Waits until nobody else is inside the strand, or it was resumed; false after `timeout`.
    pub fn wait_strand(&self, strand: &Strand<P>, timeout: Option<Duration>) -> bool {
        Self::wait_body(strand, timeout, |body| occupant(body) != Occupant::Other || body.word.runnable())
    }

    /// Who is inside a strand now.
    pub fn strand_occupant(&self, strand: &Strand<P>) -> Occupant {
        occupant(&strand.body.lock())
    }

    /// What the user sees of a strand: its state and how many messages it holds.
    pub fn strand_view(&self, strand: &Strand<P>) -> StrandView {
        let body = strand.body.lock();
        StrandView {
            name: strand.name(),
            state: body.word.state(),
            items: body.items(),
            running: body.word.phase == Phase::Running,
            own: strand.own,
        }
    }

    /// Ends a strand at once. `on_closed` runs when nobody is inside any more.
    pub fn close_strand(&self, strand: &Arc<Strand<P>>, on_closed: Option<P>) -> ClosedStrand<P> {
        let mut body = strand.body.lock();
        if body.finished {
            drop(body);
            if let Some(on_closed) = on_closed {
                self.complete(None, on_closed);
            }
            return ClosedStrand { messages: Vec::new(), finished: Vec::new() };
        }
        if let Some(on_closed) = on_closed {
            body.mail().on_closed.push(on_closed);
        }
        let messages = body.take_messages();
        drop(body);
        ClosedStrand { messages, finished: self.end_strand(strand) }
    }

    /// Nothing further starts on the strand; its timers and watches end with it.
    pub(crate) fn end_strand(&self, strand: &Arc<Strand<P>>) -> Vec<Finished<P>> {
        let mut body = strand.body.lock();
        body.word.close();
        if let Some(mail) = &mut body.mail {
            mail.terminal_in = false;
        }
        let watches = body.watches();
        drop(body);
        let cancelled = self.timers.lock().cancel_all(strand);
        drop(cancelled);
        let watches: Vec<_> = watches.into_iter().filter_map(|token| self.watch(token)).collect();
        let finished = watches.iter().filter_map(|watch| self.end_watch(watch, RemovalReason::StrandClosed)).collect();
        self.settle_strand(strand, strand.body.lock());
        finished
    }

    /// The user's handle to a strand is gone: it lives on only while it has something to do.
    pub fn abandon_strand(&self, strand: &Arc<Strand<P>>) {
        let mut body = strand.body.lock();
        body.abandoned = true;
        self.settle_strand(strand, body);
    }

    /// The user has a handle again (a watch's own strand was asked for).
    pub fn adopt_strand(&self, strand: &Strand<P>) {
        strand.body.lock().abandoned = false;
    }

    /// Finishes a strand that has ended and that nobody is inside of, once.
    pub(crate) fn settle_strand(&self, strand: &Arc<Strand<P>>, mut body: MutexGuard<'_, Body<P>>) {
        let terminal_in = body.mail.as_ref().is_some_and(|mail| mail.terminal_in);
        let spent = !body.has_items() && !terminal_in && !body.has_watches();
        let over = match body.word.mode {
            Mode::Closed => true,
            Mode::Closing => spent,
            Mode::Open => {
                body.abandoned
                    && spent
                    && body.word.phase == Phase::Idle
                    && strand.timers.load(Ordering::Relaxed) == Token::NONE.0
            }
        };
        if !over || body.finished || body.inside != Inside::Nobody || body.word.phase == Phase::Running {
            return;
        }
        body.finished = true;
        body.word.close();
        body.queue.clear();
        let mail = body.mail.take();
        drop(body);
        self.strands.lock().remove(strand.token);
        if let Some(mail) = mail {
            for callback in mail.completions.into_iter().chain(mail.on_closed) {
                self.complete(None, callback);
            }
        }
    }

    // The loop's own messages, each on a strand of its own.

    /// Puts a message on a strand of its own.
    pub fn post_alone(&self, payload: P, place: Place, from: Origin) -> Result<(), Refused<P>> {
        if let Err(error) = self.check_fork() {
            return Err(Refused { error, payload: Some(payload) });
        }
        let mut hub = self.hub.lock();
        if let Err(error) = taking(hub.life, from) {
            drop(hub);
            return Err(Refused { error, payload: Some(payload) });
        }
        match place {
            Place::Urgent => hub.urgent.push_back(payload),
            Place::Ordinary => {
                hub.messages.push_back(payload);
                hub.ready.push_back(Ready::Message);
            }
        }
        let wake = self.hub.wake_for_work(&mut hub);
        drop(hub);
        reach("post.queued");
        self.wake(wake);
        Ok(())
    }

    /// Queues a final callback: on the strand if it still runs things, else on a strand of its own. Never refused.
    pub fn complete(&self, strand: Option<&Arc<Strand<P>>>, payload: P) {
        if let Some(strand) = strand {
            let mut body = strand.body.lock();
            if body.word.mode != Mode::Closed {
                body.mail().completions.push_back(payload);
                body.queue.push_back(Entry::Completion);
                let push = body.word.schedule() == Schedule::Push;
                let mut wake = Wake::Nobody;
                if push {
                    let mut hub = self.hub.lock();
                    hub.ready.push_back(Ready::Strand(strand.clone()));
                    wake = self.hub.wake_for_work(&mut hub);
                }
                drop(body);
                self.wake(wake);
                return;
            }
        }
        let mut hub = self.hub.lock();
        hub.completions.push_back(payload);
        hub.ready.push_back(Ready::Completion);
        let wake = self.hub.wake_for_work(&mut hub);
        drop(hub);
        self.wake(wake);
    }

    // Timers.

    /// Sets a timer for a time of the loop's clock, on a strand or on one of its own.
    pub fn set_timer(
        &self,
        when: u64,
        interval: Option<u64>,
        strand: Option<&Arc<Strand<P>>>,
        payload: P,
    ) -> Result<Token, Refused<P>> {
        if let Err(error) = self.check_open() {
            return Err(Refused { error, payload: Some(payload) });
        }
        let (token, first) = match strand {
            None => self.timers.lock().set(when, interval, None, payload),
            Some(strand) => {
                let body = strand.body.lock();
                if body.word.mode != Mode::Open {
                    drop(body);
                    return Err(Refused { error: Error::StrandClosed, payload: Some(payload) });
                }
                // Under the strand's lock: a strand that closes now finds the timer in its chain.
                self.timers.lock().set(when, interval, Some(strand.clone()), payload)
            }
        };
        if first {
            self.wake_poller();
        }
        Ok(token)
    }

    /// Ends a timer; its payload is freed before this returns. False if it had run or was cancelled.
    pub fn cancel_timer(&self, token: Token, strand: Option<&Arc<Strand<P>>>) -> bool {
        let payload = self.timers.lock().cancel(token);
        let cancelled = payload.is_some();
        drop(payload);
        if let Some(strand) = strand {
            self.settle_strand(strand, strand.body.lock());
        }
        cancelled
    }

    /// A timer's next deadline; None if it is not set.
    pub fn timer_when(&self, token: Token) -> Option<u64> {
        self.timers.lock().when(token)
    }

    pub(crate) fn wake_poller(&self) {
        let mut hub = self.hub.lock();
        let wake = match hub.lead {
            Lead::Polling { blocking: true, .. } if !hub.poller_woken => {
                hub.poller_woken = true;
                Wake::Poller
            }
            _ => Wake::Nobody,
        };
        drop(hub);
        self.wake(wake);
    }

    // Life.

    /// Asks every joined thread to leave: after the handler it is in, or when everything queued has run.
    pub fn request_stop(&self, drain: bool) -> Result<(), Error> {
        self.check_fork()?;
        let mut hub = self.hub.lock();
        match (hub.life, drain) {
            (Life::Open, true) => self.hub.set_life(&mut hub, Life::Draining),
            (Life::Open, false) => self.hub.set_life(&mut hub, Life::Stopped { drained: false }),
            (Life::Draining, false) => self.hub.set_life(&mut hub, Life::Stopped { drained: true }),
            (Life::Draining, true) | (Life::Stopped { .. }, _) => {}
            (Life::Closed, _) => return Err(Error::Closed),
        }
        drop(hub);
        reach("stop.requested");
        let mut hub = self.hub.lock();
        let wake = self.hub.wake_all(&mut hub);
        drop(hub);
        self.wake(wake);
        Ok(())
    }

    /// A drain that ends with a last message.
    pub fn drain_with_terminal(&self, payload: Option<P>, from: Origin) -> Result<(), Refused<P>> {
        if let Err(error) = self.check_fork() {
            return Err(Refused { error, payload });
        }
        let mut hub = self.hub.lock();
        let error = match hub.life {
            Life::Open => None,
            Life::Draining if from == Origin::Inside && hub.terminal.is_none() => None,
            Life::Closed => Some(Error::Closed),
            Life::Draining | Life::Stopped { .. } => Some(Error::Stopped),
        };
        if let Some(error) = error {
            drop(hub);
            return Err(Refused { error, payload });
        }
        hub.terminal = payload;
        self.hub.set_life(&mut hub, Life::Draining);
        let wake = self.hub.wake_all(&mut hub);
        drop(hub);
        self.wake(wake);
        Ok(())
    }

    /// Detached. Waits until every joined thread has left; false after `timeout`.
    pub fn wait_left(&self, timeout: Option<Duration>) -> bool {
        self.wait_changed(timeout, |seats, _| seats.is_empty())
    }

    /// Detached. Waits until the loop is open or closed; false after `timeout`.
    pub fn wait_open(&self, timeout: Option<Duration>) -> bool {
        self.wait_changed(timeout, |_, life| matches!(life, Life::Open | Life::Draining | Life::Closed))
    }

    fn wait_changed(&self, timeout: Option<Duration>, settled: impl Fn(&[Arc<SeatShared>], Life) -> bool) -> bool {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut hub = self.hub.lock();
        loop {
            if settled(&hub.seats, hub.life) {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            hub = self.hub.changed.wait(hub, left);
        }
    }

    /// Opens a stopped loop again.
    pub fn restart(&self) -> Result<(), Error> {
        self.check_fork()?;
        let mut hub = self.hub.lock();
        match hub.life {
            Life::Closed => Err(Error::Closed),
            Life::Open => Ok(()),
            Life::Draining | Life::Stopped { .. } if !hub.seats.is_empty() => {
                Err(Error::Inside { joined: hub.seats.len() })
            }
            Life::Draining | Life::Stopped { .. } => {
                self.hub.set_life(&mut hub, Life::Open);
                self.hub.changed.notify_all();
                Ok(())
            }
        }
    }

    /// Closes a loop that nobody is in: ends every watch, strand and timer. Returns what is owed, and how many messages
    /// never ran; the final callbacks are taken with [`Self::take_completions`].
    pub fn close(&self) -> Result<(Vec<Finished<P>>, usize), Error> {
        self.check_fork()?;
        let mut hub = self.hub.lock();
        if !hub.seats.is_empty() {
            return Err(Error::Inside { joined: hub.seats.len() });
        }
        self.hub.set_life(&mut hub, Life::Closed);
        let messages: Vec<P> = hub.messages.drain(..).collect();
        let urgent: Vec<P> = hub.urgent.drain(..).collect();
        let terminal = hub.terminal.take();
        // Completions stay: they are owed. Their places in the run queue go with the rest.
        let ready = core::mem::take(&mut hub.ready);
        self.hub.changed.notify_all();
        drop(hub);
        let mut lost = messages.len() + urgent.len() + usize::from(terminal.is_some());
        drop((messages, urgent, terminal, ready));
        let watches: Vec<_> =
            self.watches.lock().iter().filter_map(|(_, record)| Some(record.as_ref()?.watch.clone())).collect();
        let finished = watches.iter().filter_map(|watch| self.end_watch(watch, RemovalReason::LoopClosed)).collect();
        let strands: Vec<_> = self.strands.lock().iter().map(|(_, strand)| strand.clone()).collect();
        for strand in strands {
            let closed = self.close_strand(&strand, None);
            lost += closed.messages.len();
        }
        let mut timers = self.timers.lock();
        let cancelled: Vec<P> = timers.tokens().into_iter().filter_map(|token| timers.cancel(token)).collect();
        drop(timers);
        drop(cancelled);
        // The numbers are forgotten before they are closed: a fork in between must not close another's.
        drop(self.remembered.lock().take());
        *self.poller.write() = poller::closed();
        Ok((finished, lost))
    }

    /// Takes the final callbacks that are owed, after `close`.
    pub fn take_completions(&self) -> Vec<P> {
        let mut hub = self.hub.lock();
        let ready = core::mem::take(&mut hub.ready);
        let completions = hub.completions.drain(..).collect();
        drop(hub);
        drop(ready);
        completions
    }

    /// Whether nothing is queued, ready in the kernel or due, nobody is inside, and every joined thread waits.
    pub fn is_idle(&self) -> bool {
        match self.waits_until() {
            Waits::Busy => false,
            Waits::Nobody => {
                let due = self.timers.lock().next_due().is_some_and(|when| when <= self.clock.now());
                !due && !self.hub.lock().has_ready() && !self.poller().ready().unwrap_or(false)
            }
            Waits::Until(next) => next.is_none_or(|when| when > self.clock.now()),
        }
    }

    // Signals.

    /// While the main thread is joined: signals are written to the other end of `readable`, and were written to
    /// `previous` (-1 for none) before.
    pub fn hold_signals(&self, readable: RawFd, previous: RawFd) -> Result<(), Error> {
        let mut number = self.numbers.lock(readable);
        self.poller().add(readable, SIGNAL, Events::READ, PollMode::Level)?;
        // It owns its number like any watch: one whose descriptor had that number before must not touch it.
        number.replace(Token(SIGNAL));
        drop(number);
        *self.signals.lock() = Some((readable, previous));
        Ok(())
    }

    /// The main thread has left.
    pub fn release_signals(&self) {
        let signals = self.signals.lock().take();
        if let Some((readable, _)) = signals {
            let mut number = self.numbers.lock(readable);
            if number.owner() == Token(SIGNAL) {
                number.clear();
                _ = self.poller().delete(readable);
            }
        }
    }

    /// The leader: drains the descriptor of signals, and passes the bytes on to whoever had it before.
    pub(crate) fn forward_signals(&self) {
        let signals = self.signals.lock();
        let Some((readable, previous)) = *signals else { return };
        let mut bytes = [0u8; 64];
        // SAFETY: `release_signals` takes the numbers out under this lock before the seam closes them.
        let (readable, previous) = unsafe {
            (BorrowedFd::borrow_raw(readable), (previous >= 0).then(|| BorrowedFd::borrow_raw(previous)))
        };
        while let Ok(count @ 1..) = rustix::io::read(readable, &mut bytes) {
            if let Some(previous) = previous {
                // A full pipe is readable already, which is all that its owner needs.
                _ = rustix::io::write(previous, &bytes[..count]);
            }
        }
    }

    // Sight.

    /// Counts at this moment.
    pub fn stats(&self) -> Stats {
        let watches = self.watches.lock().len();
        let timers = self.timers.lock().len();
        let hub = self.hub.lock();
        let mut stats = Stats {
            joined: hub.seats.len(),
            parked: hub.parked.len(),
            ready: hub.ready.len() + hub.urgent.len(),
            watches,
            timers,
            handled: hub.handled,
            polls: hub.polls,
            wakes: hub.wakes,
            standbys: hub.standbys,
            histogram: hub.histogram,
        };
        for seat in &hub.seats {
            stats.handled += seat.handled.load(Ordering::Relaxed);
            for (total, own) in stats.histogram.iter_mut().zip(&seat.histogram) {
                *total += own.load(Ordering::Relaxed);
            }
        }
        stats
    }

    /// Threads that have joined.
    pub fn seats(&self) -> Vec<Arc<SeatShared>> {
        self.hub.lock().seats.clone()
    }

    /// Every strand.
    pub fn strand_views(&self) -> Vec<StrandView> {
        let strands: Vec<_> = self.strands.lock().iter().map(|(_, strand)| strand.clone()).collect();
        strands.iter().map(|strand| self.strand_view(strand)).collect()
    }

    /// The payload of every watch.
    pub fn watch_payloads(&self) -> Vec<P> {
        self.watches.lock().iter().filter_map(|(_, record)| Some(record.as_ref()?.payload.duplicate())).collect()
    }

    /// Every timer's deadline and interval in nanoseconds and its payload, in order.
    pub fn timer_views(&self) -> Vec<(u64, Option<u64>, P)> {
        self.timers.lock().views()
    }

    /// Makes the leader come out of the poller and look.
    pub fn nudge(&self) {
        self.poller().wake();
    }

    /// The payload of one watch.
    pub fn watch_payload(&self, token: Token) -> Option<P> {
        self.watches.lock().get(token)?.as_ref().map(|record| record.payload.duplicate())
    }

    /// Shows every payload to the collector. Locks only, so it may run while the interpreter's world is stopped: who
    /// holds a core lock never needs the interpreter to let it go.
    pub fn visit(&self, mut visit: impl FnMut(&P)) {
        for (_, record) in self.watches.lock().iter() {
            if let Some(record) = record {
                visit(&record.payload);
            }
        }
        self.timers.lock().payloads().for_each(&mut visit);
        for (_, strand) in self.strands.lock().iter() {
            strand.body.lock().payloads().for_each(&mut visit);
        }
        let hub = self.hub.lock();
        hub.messages.iter().chain(&hub.urgent).chain(&hub.completions).chain(&hub.terminal).for_each(visit);
    }
}

impl<P: Payload> Sleeper for EventLoop<P> {
    fn clock_moved(&self) {
        let hub = self.hub.lock();
        let polling = matches!(hub.lead, Lead::Polling { .. });
        drop(hub);
        if polling {
            self.poller().wake();
        }
    }

    fn waits_until(&self) -> Waits {
        let hub = self.hub.lock();
        if hub.seats.is_empty() {
            return Waits::Nobody;
        }
        let waiting = matches!(hub.lead, Lead::Polling { blocking: true, .. }) && hub.parked.len() + 1 == hub.seats.len();
        if !waiting || hub.poller_woken || !hub.quiet() || hub.waking.is_some() {
            return Waits::Busy;
        }
        drop(hub);
        if self.poller().ready().unwrap_or(false) {
            return Waits::Busy;
        }
        Waits::Until(self.timers.lock().next_due())
    }
}

/// Whether a loop in this life takes a message from there.
fn taking(life: Life, from: Origin) -> Result<(), Error> {
    match life {
        Life::Closed => Err(Error::Closed),
        Life::Draining | Life::Stopped { drained: true } if from == Origin::Outside => Err(Error::Stopped),
        _ => Ok(()),
    }
}

fn occupant<P: Payload>(body: &Body<P>) -> Occupant {
    match body.inside {
        Inside::Nobody => Occupant::Nobody,
        _ if body.thread == thread_number() => Occupant::Me,
        _ => Occupant::Other,
    }
}
