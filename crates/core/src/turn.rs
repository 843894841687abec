//! How a joined thread goes round: take something to run, run it, wait.
//!
//! The seam drives: [`EventLoop::next`] (attached, never blocks) says what to do, the seam runs it, and when there is
//! nothing [`EventLoop::wait`] (detached) leads or parks. So the core never calls out, and what is between two polls is
//! in the run queue, where every other joined thread can see it.

mod strands;

use crate::Payload;
use crate::clock::monotonic;
use crate::event_loop::EventLoop;
use crate::hub::{BUCKETS, Lead, Ready, SeatShared, State, Wake};
use crate::points::reach;
use crate::poller::Events;
use crate::seat::{Current, Seat, TimerNext};
use crate::slots::Token;
use crate::state::Life;
use crate::strand::Inside;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::task::Task;
use crate::watch::{Finished, Watch};

/// The most items of one strand in a row, and of all strands between two polls. libuv bounds a pass by the length of
/// its queues, tokio polls every 61 tasks; 64 small handlers are about half a millisecond.
const STRAND_BUDGET: usize = 16;
const POLL_BUDGET: u32 = 64;
/// Nanoseconds between two polls, at the most, when there is always something to run.
const POLL_EVERY: u64 = 100_000;
/// The same where watches are armed by level: each one that waits in the run queue would be reported again, so what the
/// last poll found is run first.
const POLL_BATCH_EVERY: u64 = 2_000_000;

/// What a joined thread does now.
#[must_use]
pub enum Next<P: Payload> {
    /// Run this, then call `next` again.
    Run(Item<P>),
    /// A watch has ended: pay what is owed to it, then call `next` again.
    Finished(Finished<P>),
    /// A thread was sent for, and the caller has a place: run what this stands for, and give the place back.
    Come(P),
    /// A thread was sent for, and none of this loop will come: tell who sent.
    Unserved(P),
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
    /// A task's next step; it ends with [`EventLoop::suspend_task`] or [`Task::finish`].
    Task(Arc<Task<P>>),
}

impl<P: Payload> EventLoop<P> {
    /// Attached. Ends what the thread has run and says what it does now.
    pub fn next(&self, seat: &mut Seat<P>) -> Next<P> {
        self.end_item(seat);
        if let Some(finished) = seat.finished.pop() {
            return Next::Finished(finished);
        }
        if let Some(strand) = seat.turn.clone() {
            if seat.budget > 0
                && self.may_go_on(seat)
                && let Some(item) = self.take(&strand, strand.body.lock(), seat)
            {
                return Next::Run(item);
            }
            self.end_turn(seat);
        }
        let next = self.next_entry(seat);
        match next {
            // What ended without having run anything is paid before the thread waits or leaves.
            Next::Wait | Next::Leave => seat.finished.pop().map_or(next, Next::Finished),
            next => next,
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
            if hub.unserved()
                && let Some(sent) = hub.sent.pop_front()
            {
                return Next::Unserved(sent);
            }
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
            let due = self.poll_due(seat);
            let signal = seat.shared.main && hub.signal;
            if first || signal || (due && hub.life == Life::Open && self.may_lead(&hub, seat)) {
                seat.poll_due = true;
                return Next::Wait;
            }
            let runs = self.may_run(&hub, seat);
            // After one of each kind the other: handlers and jobs that make each other must not keep out the rest.
            if self.may_come(&hub, seat)
                && !(runs && seat.came)
                && let Some(sent) = hub.sent.pop_front()
            {
                hub.places += 1;
                seat.came = true;
                self.step_inside(&mut hub, seat);
                return Next::Come(sent);
            }
            if !runs {
                return Next::Wait;
            }
            seat.came = false;
            let entry = match hub.urgent.pop_front() {
                Some(urgent) => Err(urgent),
                None => match hub.ready.pop_front() {
                    Some(ready) => {
                        seat.batch = seat.batch.saturating_sub(1);
                        Ok(ready)
                    }
                    None => return Next::Wait,
                },
            };
            if let Some(left) = &mut seat.tick_left {
                *left -= 1;
            }
            self.step_inside(&mut hub, seat);
            let wake = match (self.hub.parallel && hub.has_ready(), hub.lead) {
                // This thread would have come, and runs this first, perhaps for long.
                _ if hub.sent_for() => self.hub.wake_for_place(&mut hub),
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
                (Ok(Ready::Task(task)), _) => task.begin().then(|| (Current::Message, Item::Task(task))),
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

    /// Whether it is time to look for more, although there is something to run.
    fn poll_due(&self, seat: &Seat<P>) -> bool {
        let since = seat.now.saturating_sub(seat.last_poll);
        let due = seat.since_poll >= POLL_BUDGET || since >= POLL_EVERY;
        due && (seat.batch == 0 || since >= POLL_BATCH_EVERY || !self.by_level())
    }

    /// Whether it is this thread's turn to run what is ready.
    pub(crate) fn may_run(&self, hub: &State<P>, seat: &Seat<P>) -> bool {
        if !hub.has_ready() {
            return false;
        }
        if seat.options.one_tick {
            return true;
        }
        match hub.lead {
            Lead::Held { seat: holder, since, .. } if holder != seat.id() => {
                // Without parallelism the thread that leads runs what it found, until it is overdue.
                self.hub.parallel || hub.inside == 0 || self.hub.overdue(since, monotonic())
            }
            _ => true,
        }
    }

    pub(crate) fn may_lead(&self, hub: &State<P>, seat: &Seat<P>) -> bool {
        match hub.lead {
            Lead::Free => true,
            Lead::Polling { .. } => false,
            Lead::Held { seat: holder, since, .. } => holder == seat.id() || self.hub.overdue(since, monotonic()),
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
    pub(crate) fn settle(&self, hub: &mut State<P>, seat: &mut Seat<P>) {
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
    pub(crate) fn end_item(&self, seat: &mut Seat<P>) {
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
                seat.finished.extend(self.handler_ended(watch, &mut seat.turn));
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
            strand.vacated.notify_all();
            drop(body);
            if matches!(current, Current::Terminal) {
                seat.finished.extend(self.end_strand(strand));
            }
            if matches!(current, Current::Timer(_)) {
                seat.finished.extend(self.timer_left(strand));
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
}

/// Counts a handler and its time.
fn record(seat: &SeatShared, nanoseconds: u64) {
    let microseconds = nanoseconds / 1_000;
    let bucket = (u64::BITS - microseconds.leading_zeros()) as usize;
    // Only this thread writes them, so a load and a store will do.
    let count = |counter: &AtomicU64| counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    count(&seat.histogram[bucket.min(BUCKETS - 1)]);
    count(&seat.handled);
}
