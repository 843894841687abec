//! What a joined thread does when it has nothing to run: it leads (waits in the poller) or parks.
//!
//! `hub` tells why no wake-up is lost; `docs/design/parking.md` has the proof in steps.

use core::time::Duration;

use crate::Payload;
use crate::clock::{Clock, monotonic};
use crate::event_loop::EventLoop;
use crate::hub::{Lead, Ready, STANDBY_SLACK, State};
use crate::points::reach;
use crate::seat::Seat;
use crate::signal::SIGNAL;
use crate::slots::Token;
use crate::state::{Life, Schedule};
use crate::strand::Entry;
use crate::sync::MutexGuard;
use crate::watch::Noted;

impl<P: Payload> EventLoop<P> {
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
            let work = self.may_run(&hub, seat) || self.may_come(&hub, seat) || hub.unserved();
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
        if took_over && matches!(hub.lead, Lead::Held { aside: true, .. }) {
            hub.count_lasting();
        }
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
        hub.lead = Lead::Held { seat: seat.id(), since: seat.now, aside: false };
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
        let mut stale: Vec<Token> = Vec::new();
        if !seat.events.is_empty() {
            let watches = self.watches.lock();
            for event in seat.events.drain(..) {
                if let Some(token) = Token(event.token).in_table() {
                    seat.sockets.push((token, event.events));
                } else if event.token == SIGNAL {
                    signal = true;
                } else if let Some(Some(record)) = watches.get(Token(event.token)) {
                    seat.reported.push((record.watch.clone(), event.events));
                } else {
                    stale.push(Token(event.token));
                }
            }
        }
        self.note_sockets(seat);
        let mut dead = false;
        for (watch, events) in seat.reported.drain(..) {
            match self.note_event(watch, events) {
                Noted::Ready(strand) => seat.ready.push(Ready::Strand(strand)),
                Noted::Known => {}
                Noted::Mute(watch) => dead |= !self.mute(&watch),
                Noted::Stale(token) => stale.push(token),
            }
        }
        if !stale.is_empty() {
            dead |= self.suspect(&stale);
        }
        if dead {
            self.renew_poller();
        }
        let now = self.clock.now();
        self.timers.lock().take_due(now, &mut seat.due);
        for due in seat.due.drain(..) {
            match due.strand {
                None => seat.ready.push(Ready::Timer(due.token)),
                Some(strand) => {
                    let mut body = strand.body.lock();
                    body.queue.push_back(Entry::Timer(due.token));
                    let push = body.word.schedule() == Schedule::Push;
                    drop(body);
                    if push {
                        seat.ready.push(Ready::Strand(strand));
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
        hub.ready.extend(seat.ready.drain(..));
        seat.batch = hub.ready.len();
        if signal {
            hub.signal = true;
            if let Some(at) = hub.parked.iter().position(|other| other.main) {
                hub.parked.swap_remove(at).unparked.notify_one();
            }
        }
        hub
    }

    /// Passes on what was reported of sockets. One that is gone meanwhile is not a dead registration: it closed its number.
    fn note_sockets(&self, seat: &mut Seat<P>) {
        if seat.sockets.is_empty() {
            return;
        }
        let sockets = self.sockets.lock();
        let found = seat.sockets.drain(..).filter_map(|(token, events)| Some((sockets.get(token)?.upgrade()?, events)));
        seat.noted.extend(found);
        drop(sockets);
        for (socket, events) in seat.noted.drain(..) {
            self.note_socket(&socket, events, &mut seat.ready);
        }
    }

    /// Parks the thread until it is woken; as standby, until it is time to look at the lead.
    fn park<'a>(&'a self, mut hub: MutexGuard<'a, State<P>>, seat: &mut Seat<P>) -> MutexGuard<'a, State<P>> {
        let slack = if self.hub.handover == 0 { 0 } else { STANDBY_SLACK };
        let mut limit = seat.deadline;
        let held_since = match hub.lead {
            Lead::Held { seat: holder, since, .. } if holder != seat.id() => Some(since),
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
}
