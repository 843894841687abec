//! How a joined thread goes round: take something to run, run it, wait.
//!
//! The seam drives: [`EventLoop::next`] (attached, never blocks) says what to do, the seam runs it, and when there is
//! nothing [`EventLoop::wait`] (detached) leads or parks. So the core never calls out, and what is between two polls is
//! in the run queue, where every other joined thread can see it.

use core::time::Duration;

use crate::Payload;
use crate::clock::{Clock, monotonic};
use crate::error::Error;
use crate::event_loop::{EventLoop, SIGNAL};
use crate::hub::{BUCKETS, Lead, Ready, STANDBY_SLACK, SeatShared, State, Wake};
use crate::points::reach;
use crate::poller::{Events, PollEvent};
use crate::slots::Token;
use crate::state::{Begin, Life, RemovalReason, Schedule};
use crate::strand::{Entry, Inside, Strand};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard, thread_number};
use crate::timer::Due;
use crate::watch::{Dispatch, Finished, Watch};

/// The most items of one strand in a row, and of all strands between two polls. libuv bounds a pass by the length of
/// its queues, tokio polls every 61 tasks; 64 small handlers are about half a millisecond.
const STRAND_BUDGET: usize = 16;
const POLL_BUDGET: u32 = 64;
/// Nanoseconds between two polls, at the most, when there is always something to run.
const POLL_EVERY: u64 = 100_000;

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

/// What a joined thread does now.
#[must_use]
pub enum Next<P: Payload> {
    /// Run this, then call `next` again.
    Run(Item<P>),
    /// A watch has ended: pay what is owed to it, then call `next` again.
    Finished(Finished<P>),
    /// Call `wait`, detached, then `next` again.
    Wait,
    /// Call `leave`.
    Leave,
}

/// Something to run.
pub enum Item<P: Payload> {
    /// A message.
    Message(P),
    /// The terminal message of a strand or of the loop.
    Terminal(P),
    /// A final callback.
    Completion(P),
    /// A timer's callback; [`Seat::timer_next`] takes its wish.
    Timer(P),
    /// A watch's handler.
    Watch(Arc<Watch<P>>, P, Events),
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

enum Current<P: Payload> {
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
    options: JoinOptions,
    deadline: Option<u64>,
    handled: usize,
    /// How many entries of the run queue are left of this tick; None before the tick's poll.
    tick_left: Option<usize>,
    /// Watches that have ended on this thread; the seam is told of each by `next`.
    finished: Vec<Finished<P>>,
    turn: Option<Arc<Strand<P>>>,
    budget: usize,
    current: Current<P>,
    timer_next: TimerNext,
    /// Counted in the hub's `inside`.
    inside: bool,
    since_poll: u32,
    last_poll: u64,
    poll_due: bool,
    /// The last reading of the monotonic clock.
    now: u64,
    /// It has just waited: `now` is old, because taking the interpreter back may have taken long.
    waited: bool,
    idle: bool,
    /// With `until_idle`: a look found nothing, but somebody was inside.
    probed: bool,
    seen_polls: u64,
    events: Vec<PollEvent>,
    due: Vec<Due<P>>,
    reported: Vec<(Arc<Watch<P>>, Events)>,
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

    fn id(&self) -> u64 {
        self.shared.id
    }
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
        drop(hub);
        reach("join.entered");
        Ok(Some(Seat {
            shared,
            options,
            deadline: options.timeout.map(|timeout| now.saturating_add(timeout.as_nanos() as u64)),
            handled: 0,
            tick_left: None,
            finished: Vec::new(),
            turn: None,
            budget: 0,
            current: Current::Nothing,
            timer_next: TimerNext::Tick,
            inside: false,
            since_poll: 0,
            last_poll: now,
            poll_due: false,
            now,
            waited: false,
            idle: false,
            probed: false,
            seen_polls: 0,
            events: Vec::new(),
            due: Vec::new(),
            reported: Vec::new(),
        }))
    }

    /// Attached. Ends what the thread has run and says what it does now.
    pub fn next(&self, seat: &mut Seat<P>) -> Next<P> {
        self.end_item(seat);
        if let Some(finished) = seat.finished.pop() {
            return Next::Finished(finished);
        }
        if let Some(strand) = seat.turn.clone() {
            if seat.budget > 0
                && self.may_go_on(seat)
                && let Some(item) = self.take(&strand, seat)
            {
                return Next::Run(item);
            }
            self.end_turn(seat);
        }
        let next = self.next_entry(seat);
        match (next, seat.finished.pop()) {
            // What ended without having run anything is paid before the thread waits or leaves.
            (Next::Wait | Next::Leave, Some(finished)) => Next::Finished(finished),
            (Next::Run(item), Some(finished)) => {
                seat.finished.push(finished);
                Next::Run(item)
            }
            (next, _) => next,
        }
    }

    /// Whether the thread may run another item of the strand it is in.
    fn may_go_on(&self, seat: &Seat<P>) -> bool {
        matches!(self.hub.life(), Life::Open | Life::Draining)
            && seat.options.max_handlers.is_none_or(|max| seat.handled < max)
            && seat.deadline.is_none_or(|deadline| seat.now < deadline)
    }

    fn next_entry(&self, seat: &mut Seat<P>) -> Next<P> {
        loop {
            let mut hub = self.hub.lock();
            self.settle(&mut hub, seat);
            match hub.life {
                Life::Open => {}
                Life::Draining => {
                    if hub.quiet() {
                        if let Some(terminal) = hub.terminal.take() {
                            self.step_inside(&mut hub, seat);
                            drop(hub);
                            return self.start(seat, Current::Message, Item::Terminal(terminal));
                        }
                        self.hub.set_life(&mut hub, Life::Stopped { drained: true });
                        let wake = self.hub.wake_all(&mut hub);
                        drop(hub);
                        self.wake(wake);
                        return Next::Leave;
                    }
                }
                Life::Stopped { .. } | Life::Closed => return Next::Leave,
            }
            if seat.idle
                || (seat.tick_left.is_some() && (seat.tick_left == Some(0) || !hub.has_ready()))
                || seat.options.max_handlers.is_some_and(|max| seat.handled >= max)
                || seat.deadline.is_some_and(|deadline| seat.now >= deadline)
            {
                return Next::Leave;
            }
            let first = seat.options.one_tick && seat.tick_left.is_none();
            let due = seat.since_poll >= POLL_BUDGET || seat.now.saturating_sub(seat.last_poll) >= POLL_EVERY;
            let signal = seat.shared.main && hub.signal;
            if first || signal || (due && hub.life == Life::Open && self.may_lead(&hub, seat)) {
                seat.poll_due = true;
                return Next::Wait;
            }
            if !self.may_run(&hub, seat) {
                return Next::Wait;
            }
            let entry = match hub.urgent.pop_front() {
                Some(urgent) => Err(urgent),
                None => match hub.ready.pop_front() {
                    Some(ready) => Ok(ready),
                    None => return Next::Wait,
                },
            };
            if let Some(left) = &mut seat.tick_left {
                *left -= 1;
            }
            self.step_inside(&mut hub, seat);
            let wake = match (self.hub.parallel && hub.has_ready(), hub.lead) {
                (true, _) => self.hub.unpark(&mut hub),
                (false, Lead::Held { .. }) => self.hub.call_standby(&mut hub),
                _ => Wake::Nobody,
            };
            let payload = match &entry {
                Ok(Ready::Message) => hub.messages.pop_front(),
                Ok(Ready::Completion) => hub.completions.pop_front(),
                _ => None,
            };
            drop(hub);
            self.wake(wake);
            let item = match (entry, payload) {
                (Err(urgent), _) => Some((Current::Message, Item::Message(urgent))),
                (Ok(Ready::Message), Some(message)) => Some((Current::Message, Item::Message(message))),
                (Ok(Ready::Completion), Some(payload)) => Some((Current::Message, Item::Completion(payload))),
                (Ok(Ready::Message | Ready::Completion), None) => None,
                (Ok(Ready::Timer(token)), _) => {
                    let payload = self.timers.lock().begin(token);
                    payload.map(|payload| (Current::Timer(token), Item::Timer(payload)))
                }
                (Ok(Ready::Strand(strand)), _) => match self.begin(strand, seat) {
                    Some(item) => return Next::Run(item),
                    None => None,
                },
            };
            if let Some((current, item)) = item {
                return self.start(seat, current, item);
            }
        }
    }

    /// Whether it is this thread's turn to run what is ready.
    fn may_run(&self, hub: &State<P>, seat: &Seat<P>) -> bool {
        if !hub.has_ready() {
            return false;
        }
        if seat.options.one_tick {
            return true;
        }
        match hub.lead {
            Lead::Held { seat: holder, since } if holder != seat.id() => {
                // Without parallelism the thread that leads runs what it found, until it is overdue.
                self.hub.parallel || hub.inside == 0 || self.hub.overdue(since, monotonic())
            }
            _ => true,
        }
    }

    fn may_lead(&self, hub: &State<P>, seat: &Seat<P>) -> bool {
        match hub.lead {
            Lead::Free => true,
            Lead::Polling { .. } => false,
            Lead::Held { seat: holder, since } => holder == seat.id() || self.hub.overdue(since, monotonic()),
        }
    }

    fn step_inside(&self, hub: &mut State<P>, seat: &mut Seat<P>) {
        if seat.waited {
            seat.waited = false;
            seat.now = monotonic();
        }
        if !seat.inside {
            seat.inside = true;
            hub.inside += 1;
        }
    }

    /// The thread is not in user code: counts it out of `inside`.
    fn settle(&self, hub: &mut State<P>, seat: &mut Seat<P>) {
        if !seat.inside {
            return;
        }
        seat.inside = false;
        hub.inside -= 1;
        if hub.idle_waiters > 0 && hub.quiet() {
            self.wake(self.hub.wake_all(hub));
        }
    }

    fn start(&self, seat: &mut Seat<P>, current: Current<P>, item: Item<P>) -> Next<P> {
        self.started(seat, current);
        Next::Run(item)
    }

    /// User code begins on this thread.
    fn started(&self, seat: &mut Seat<P>, current: Current<P>) {
        if let Current::Watch(watch) = &current {
            seat.shared.watch.store(watch.token().0, Ordering::Relaxed);
            reach("watch.dispatch");
        }
        seat.current = current;
        // The end of the last item is the start of this one, but for the library's own part.
        seat.shared.since.store(seat.now.max(1), Ordering::Relaxed);
    }

    /// User code has ended on this thread.
    fn end_item(&self, seat: &mut Seat<P>) {
        let current = core::mem::replace(&mut seat.current, Current::Nothing);
        if matches!(current, Current::Nothing) {
            return;
        }
        let now = monotonic();
        record(&seat.shared, now.saturating_sub(seat.now));
        seat.now = now;
        seat.handled += 1;
        seat.since_poll += 1;
        seat.shared.since.store(0, Ordering::Relaxed);
        seat.shared.watch.store(0, Ordering::Relaxed);
        match &current {
            Current::Watch(watch) => {
                seat.finished.extend(self.handler_ended(watch));
                return;
            }
            Current::Timer(token) => {
                self.timer_ended(*token, seat.timer_next);
                seat.timer_next = TimerNext::Tick;
            }
            Current::Nothing | Current::Message | Current::Terminal => {}
        }
        if let Some(strand) = &seat.turn {
            let mut body = strand.body.lock();
            body.inside = Inside::Nobody;
            body.thread = 0;
            if body.waiters > 0 {
                strand.vacated.notify_all();
            }
            drop(body);
            if matches!(current, Current::Terminal) {
                seat.finished.extend(self.end_strand(strand));
            }
        }
    }

    fn timer_ended(&self, token: Token, next: TimerNext) {
        let now = self.clock.now();
        let mut timers = self.timers.lock();
        let (stopped, first) = match next {
            TimerNext::Tick => (None, timers.rearm(token, now, None)),
            TimerNext::After(gap) => (None, timers.rearm(token, now, Some(gap))),
            TimerNext::Stop => (timers.cancel(token), false),
        };
        drop(timers);
        drop(stopped);
        if first {
            self.wake_poller();
        }
    }

    /// Goes into a strand that was taken off the run queue.
    fn begin(&self, strand: Arc<Strand<P>>, seat: &mut Seat<P>) -> Option<Item<P>> {
        reach("strand.begin");
        let mut body = strand.body.lock();
        match body.word.begin() {
            Begin::Rest => {
                // A strand closed while it was queued is finished here, by the thread that took it off.
                self.settle_strand(&strand, body);
                return None;
            }
            // One tick is what is ready at its start, all of it.
            Begin::Run if seat.options.one_tick => seat.budget = body.items(),
            Begin::Run => seat.budget = body.items().min(STRAND_BUDGET),
        }
        drop(body);
        seat.turn = Some(strand.clone());
        let item = self.take(&strand, seat);
        if item.is_none() {
            self.end_turn(seat);
        }
        item
    }

    /// Goes out of the strand.
    fn end_turn(&self, seat: &mut Seat<P>) {
        let Some(strand) = seat.turn.take() else { return };
        let mut body = strand.body.lock();
        let more = body.has_items();
        match body.word.end(more) {
            Schedule::Push => {
                drop(body);
                let mut hub = self.hub.lock();
                hub.ready.push_back(Ready::Strand(strand));
            }
            Schedule::Leave => self.settle_strand(&strand, body),
        }
    }

    /// The next item of the strand that the thread is in; the item is inside when this returns it.
    fn take(&self, strand: &Arc<Strand<P>>, seat: &mut Seat<P>) -> Option<Item<P>> {
        loop {
            let mut body = strand.body.lock();
            if !body.word.runnable() || seat.budget == 0 {
                return None;
            }
            seat.budget -= 1;
            let urgent = body.mail.as_mut().and_then(|mail| mail.urgent.pop_front());
            let (current, item) = if let Some(urgent) = urgent {
                (Current::Message, Some(Item::Message(urgent)))
            } else {
                match body.queue.pop_front() {
                    None => return None,
                    Some(Entry::Message) => (Current::Message, body.mail().ordinary.pop_front().map(Item::Message)),
                    Some(Entry::Completion) => {
                        (Current::Message, body.mail().completions.pop_front().map(Item::Completion))
                    }
                    Some(Entry::Terminal) => {
                        let terminal = body.mail().terminal.take().map(Item::Terminal);
                        if terminal.is_none() {
                            drop(body);
                            seat.finished.extend(self.end_strand(strand));
                            return None;
                        }
                        (Current::Terminal, terminal)
                    }
                    Some(Entry::Timer(token)) => {
                        (Current::Timer(token), self.timers.lock().begin(token).map(Item::Timer))
                    }
                    Some(Entry::Watch(watch)) => match self.dispatch(&watch, &mut body) {
                        Dispatch::Run(payload, events) => {
                            drop(body);
                            self.started(seat, Current::Watch(watch.clone()));
                            return Some(Item::Watch(watch, payload, events));
                        }
                        Dispatch::Skip => continue,
                        Dispatch::Rearm => {
                            drop(body);
                            seat.finished.extend(self.sync_or_end(&watch));
                            continue;
                        }
                        Dispatch::Gone => {
                            drop(body);
                            seat.finished.extend(self.end_watch(&watch, RemovalReason::FdGone));
                            continue;
                        }
                    },
                }
            };
            let Some(item) = item else { continue };
            body.inside = if matches!(current, Current::Timer(_)) { Inside::Timer } else { Inside::Message };
            body.thread = thread_number();
            drop(body);
            self.started(seat, current);
            return Some(item);
        }
    }

    /// Detached. Leads, or parks, until there is something to run or the thread has to look up.
    pub fn wait(&self, seat: &mut Seat<P>) {
        seat.waited = true;
        let mut hub = self.hub.lock();
        loop {
            seat.now = monotonic();
            if seat.deadline.is_some_and(|deadline| seat.now >= deadline) && !seat.poll_due {
                return self.look_up(&mut hub, seat);
            }
            if seat.shared.main && hub.signal {
                hub.signal = false;
                return self.look_up(&mut hub, seat);
            }
            let work = self.may_run(&hub, seat);
            match hub.life {
                Life::Open => {}
                Life::Draining if !work && !hub.quiet() => {
                    hub = self.park(hub, seat);
                    continue;
                }
                _ => return self.look_up(&mut hub, seat),
            }
            if (seat.poll_due || !work) && self.may_lead(&hub, seat) {
                let took_over = matches!(hub.lead, Lead::Held { seat: holder, .. } if holder != seat.id());
                if hub.standby == Some(seat.id()) {
                    hub.standby = None;
                }
                hub = self.lead(hub, seat, took_over);
                if seat.idle || seat.options.one_tick || seat.shared.main {
                    // The main thread looks up after every poll: a signal may have ended it.
                    return self.look_up(&mut hub, seat);
                }
                continue;
            }
            seat.poll_due = false;
            if seat.options.one_tick {
                seat.tick_left.get_or_insert(hub.ready.len() + hub.urgent.len());
                return self.look_up(&mut hub, seat);
            }
            if work {
                return self.look_up(&mut hub, seat);
            }
            if seat.options.until_idle && hub.quiet() && !self.poller().ready().unwrap_or(false) {
                seat.idle = true;
                return self.look_up(&mut hub, seat);
            }
            hub = self.park(hub, seat);
        }
    }

    /// What every return from `wait` leaves straight.
    fn look_up(&self, hub: &mut State<P>, seat: &mut Seat<P>) {
        if hub.standby == Some(seat.id()) {
            hub.standby = None;
            // Somebody else has to watch over the lead while this thread runs.
            self.wake(self.hub.call_standby(hub));
        }
    }

    /// Waits in the poller, once, and puts what it found into the run queue.
    fn lead<'a>(
        &'a self,
        mut hub: MutexGuard<'a, State<P>>,
        seat: &mut Seat<P>,
        took_over: bool,
    ) -> MutexGuard<'a, State<P>> {
        let idling = seat.options.until_idle && !hub.has_ready();
        // Whoever wants to leave an idle loop looks first; it waits only for those who are inside, and the last of them
        // to come out wakes it (`settle`).
        let probing = idling && (!seat.probed || hub.quiet());
        let blocking = !hub.has_ready() && !seat.poll_due && !seat.options.one_tick && !probing;
        let idle_waiter = usize::from(idling && blocking);
        hub.lead = Lead::Polling { seat: seat.id(), blocking };
        hub.poller_woken = false;
        hub.polls += 1;
        hub.idle_waiters += idle_waiter;
        drop(hub);
        if took_over {
            reach("lead.taken");
        }
        reach("poll.enter");
        let patience = if blocking { self.patience(seat) } else { Some(Duration::ZERO) };
        seat.events.clear();
        // An error of the poller itself (no memory) is met by looking again: nothing of ours was consumed.
        _ = self.poller().wait(&mut seat.events, patience);
        reach("poll.returned");
        let found = !seat.events.is_empty();
        let mut hub = self.collect(seat);
        hub.idle_waiters -= idle_waiter;
        seat.idle = probing && !found && hub.quiet();
        seat.probed = probing && !seat.idle;
        if seat.options.one_tick {
            seat.tick_left.get_or_insert(hub.ready.len() + hub.urgent.len());
        }
        hub.lead = Lead::Held { seat: seat.id(), since: seat.now };
        if hub.has_ready() && self.hub.handover == 0 {
            self.wake(self.hub.unpark(&mut hub));
        }
        hub
    }

    /// How long the leader may stay in the poller. Read after the lead says Polling: a timer set later wakes it.
    fn patience(&self, seat: &Seat<P>) -> Option<Duration> {
        if let Clock::Manual(clock) = &self.clock {
            clock.jump();
        }
        let next = self.timers.lock().next_due();
        let timer = next.and_then(|when| self.clock.until(when));
        let deadline = seat.deadline.map(|deadline| Duration::from_nanos(deadline.saturating_sub(monotonic())));
        match (timer, deadline) {
            (Some(timer), Some(deadline)) => Some(timer.min(deadline)),
            (one, other) => one.or(other),
        }
    }

    /// Puts the reported watches and the timers that are due into the run queue.
    fn collect(&self, seat: &mut Seat<P>) -> MutexGuard<'_, State<P>> {
        let mut signal = false;
        let mut ready: Vec<Ready<P>> = Vec::new();
        if !seat.events.is_empty() {
            let watches = self.watches.lock();
            for event in seat.events.drain(..) {
                if event.token == SIGNAL {
                    signal = true;
                } else if let Some(Some(record)) = watches.get(Token(event.token)) {
                    seat.reported.push((record.watch.clone(), event.events));
                }
            }
        }
        for (watch, events) in seat.reported.drain(..) {
            ready.extend(self.note_event(&watch, events).map(Ready::Strand));
        }
        let now = self.clock.now();
        self.timers.lock().take_due(now, &mut seat.due);
        for due in seat.due.drain(..) {
            match due.strand {
                None => ready.push(Ready::Timer(due.token)),
                Some(strand) => {
                    let mut body = strand.body.lock();
                    body.queue.push_back(Entry::Timer(due.token));
                    let push = body.word.schedule() == Schedule::Push;
                    drop(body);
                    if push {
                        ready.push(Ready::Strand(strand));
                    }
                }
            }
        }
        if signal {
            self.forward_signals();
        }
        seat.now = monotonic();
        seat.last_poll = seat.now;
        seat.since_poll = 0;
        seat.poll_due = false;
        let mut hub = self.hub.lock();
        hub.ready.extend(ready);
        if signal {
            hub.signal = true;
            if let Some(at) = hub.parked.iter().position(|other| other.main) {
                hub.parked.swap_remove(at).unparked.notify_one();
            }
        }
        hub
    }

    /// Parks the thread until it is woken; as standby, until it is time to look at the lead.
    fn park<'a>(&'a self, mut hub: MutexGuard<'a, State<P>>, seat: &mut Seat<P>) -> MutexGuard<'a, State<P>> {
        let slack = if self.hub.handover == 0 { 0 } else { STANDBY_SLACK };
        let mut limit = seat.deadline;
        let held_since = match hub.lead {
            Lead::Held { seat: holder, since } if holder != seat.id() => Some(since),
            _ => None,
        };
        if held_since.is_some() && hub.standby.is_none() {
            hub.standby = Some(seat.id());
            seat.seen_polls = hub.polls;
        }
        if hub.standby == Some(seat.id()) {
            let look = held_since.unwrap_or(seat.now) + self.hub.handover + slack;
            limit = Some(limit.map_or(look, |limit| limit.min(look)));
        }
        let timeout = limit.map(|limit| Duration::from_nanos(limit.saturating_sub(seat.now).max(1)));
        if seat.options.until_idle {
            hub.idle_waiters += 1;
        }
        hub.parked.push(seat.shared.clone());
        if let Clock::Manual(clock) = &self.clock
            && clock.autojump()
        {
            // The leader may be waiting already and has to see that now everybody does.
            self.poller().wake();
        }
        let mut hub = seat.shared.unparked.wait(hub, timeout);
        hub.parked.retain(|other| other.id != seat.shared.id);
        if seat.options.until_idle {
            hub.idle_waiters -= 1;
        }
        if hub.waking == Some(seat.id()) {
            hub.waking = None;
        }
        if hub.standby == Some(seat.id()) && matches!(hub.lead, Lead::Polling { .. }) {
            if hub.polls == seat.seen_polls {
                hub.standby = None;
            }
            seat.seen_polls = hub.polls;
        }
        hub
    }

    /// Attached. Counts the thread out; what it had begun goes back to the run queue.
    pub fn leave(&self, mut seat: Seat<P>) -> (usize, Vec<Finished<P>>) {
        self.end_item(&mut seat);
        self.end_turn(&mut seat);
        reach("join.leaving");
        let mut hub = self.hub.lock();
        self.settle(&mut hub, &mut seat);
        hub.seats.retain(|other| other.id != seat.shared.id);
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
            (Life::Open | Life::Draining, _) if hub.has_ready() => self.hub.wake_for_work(&mut hub),
            (Life::Draining, _) => self.hub.wake_all(&mut hub),
            _ => Wake::Nobody,
        };
        self.hub.changed.notify_all();
        drop(hub);
        self.wake(wake);
        (seat.handled, seat.finished)
    }
}

/// Counts a handler and its time.
fn record(seat: &SeatShared, nanoseconds: u64) {
    let microseconds = nanoseconds / 1_000;
    let bucket = (u64::BITS - microseconds.leading_zeros()) as usize;
    seat.histogram[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    seat.handled.fetch_add(1, Ordering::Relaxed);
}
