//! A thread of the pool: it takes what is next, parks when there is nothing, and ends what it ran.

use core::time::Duration;
use std::time::Instant;

use super::job::Status;
use super::order::Front;
use super::{Call, Errand, Job, Lane, Place, Pool, PoolLife, State, bucket};
use crate::Payload;
use crate::clock::monotonic;
use crate::points::reach;
use crate::slots::Token;
use crate::sync::{Arc, Condvar};

/// A thread's place in a pool.
pub struct PoolSeat {
    pub(crate) lane: Lane,
    pub(crate) unparked: Condvar,
}

/// What a thread does now.
#[must_use]
pub enum Taken<P> {
    /// Run this job; then [`Pool::end`] or [`Pool::park`].
    Job(Arc<Job>, P),
    /// Run this errand of a job.
    Errand(Errand, P),
    /// Call [`Pool::wait`], detached, then look again.
    Wait,
    /// Leave: the thread is counted out already.
    Leave,
}

/// How a job's function ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With a value or an exception.
    Finished,
    /// It gave up, because it was told to.
    GaveUp,
}

/// A job that has ended: payloads to drop, under no lock, and a thread to call.
#[must_use]
pub struct Ended<P> {
    /// Its own, if it is not kept to be reaped.
    pub payload: Option<P>,
    /// Of the job that had to make room on the done queue.
    pub evicted: Option<P>,
    /// Whom to call.
    pub call: Call,
}

impl<P: Payload> Pool<P> {
    /// A thread that was asked for is here.
    pub fn arrive(&self, lane: Lane) -> Arc<PoolSeat> {
        let mut state = self.lock();
        let lane_state = &mut state.lanes[lane as usize];
        lane_state.starting = false;
        lane_state.started += 1;
        Arc::new(PoolSeat { lane, unparked: Condvar::new() })
    }

    /// A thread ends and was not told to leave: another may come for what is queued.
    pub fn lost(&self, seat: &PoolSeat) -> Call {
        let mut state = self.lock();
        state.lanes[seat.lane as usize].started -= 1;
        self.left.notify_all();
        self.call(&mut state, seat.lane)
    }

    /// Attached. What is next for this thread.
    pub fn take(&self, seat: &PoolSeat) -> (Taken<P>, Call) {
        let mut state = self.lock();
        let taken = match seat.lane {
            Lane::Jobs => self.take_job(&mut state),
            Lane::Errands => Self::take_errand(&mut state),
        };
        if let Some(taken) = taken {
            let call = self.call(&mut state, seat.lane);
            drop(state);
            reach("job.taken");
            return (taken, call);
        }
        if self.leaving(&state, seat.lane) {
            state.lanes[seat.lane as usize].started -= 1;
            self.left.notify_all();
            return (Taken::Leave, Call::Nobody);
        }
        (Taken::Wait, Call::Nobody)
    }

    fn take_job(&self, state: &mut State<P>) -> Option<Taken<P>> {
        if !self.has_work(state, Lane::Jobs) {
            return None;
        }
        let (queue, token) = self.first(state)?;
        state.resumed_last = matches!(queue, Front::Resumed);
        match queue {
            Front::Resumed => _ = state.resumed.pop_front(),
            Front::Queue => _ = state.queue.pop_first(),
            Front::Slow => _ = state.slow_queue.pop_first(),
        }
        Some(self.begin(state, token))
    }

    /// Puts a job on the calling thread.
    fn begin(&self, state: &mut State<P>, token: Token) -> Taken<P> {
        let now = monotonic();
        let Some(record) = state.jobs.get_mut(token) else { return Taken::Wait };
        let job = record.job.clone();
        let payload = record.payload.duplicate();
        let here = record.place == Place::Here;
        let counted = core::mem::replace(&mut record.slot, !here);
        let reserved = matches!(record.place, Place::Slot(_) | Place::Here);
        record.place = Place::Thread;
        let first = record.started == 0;
        if first {
            record.started = now;
            let waited = now.saturating_sub(record.accepted);
            state.wait_times[bucket(waited)] += 1;
        }
        if let Some(running) = job.status().start() {
            state.shift(&job, running);
        }
        state.reserved -= usize::from(reserved);
        if !here && !counted {
            self.fill_slot(state, &job);
        }
        self.made_room();
        Taken::Job(job, payload)
    }

    /// Attached. Begins a job that was not taken from the queue; None if it was stopped before.
    pub fn begin_in_place(&self, job: &Job) -> Option<P> {
        let mut state = self.lock();
        if job.status() != Status::Queued {
            return None;
        }
        match self.begin(&mut state, job.token()) {
            Taken::Job(_, payload) => Some(payload),
            _ => None,
        }
    }

    /// Attached. The next job, for a thread joined to this loop that has a place: if it may run there. Else a thread is called
    /// for it.
    pub fn take_in_place(&self, event_loop: usize) -> (Option<(Arc<Job>, P)>, Call) {
        let mut state = self.lock();
        match self.take_willing(&mut state, event_loop) {
            Some(taken) => (Some(taken), Call::Nobody),
            None => (None, self.call(&mut state, Lane::Jobs)),
        }
    }

    /// Attached. As [`Self::take_in_place`], for a thread that was sent for; like every thread that arrives it calls the next.
    pub fn come(&self, event_loop: usize) -> (Option<(Arc<Job>, P)>, Call) {
        let mut state = self.lock();
        state.sent = false;
        let taken = self.take_willing(&mut state, event_loop);
        (taken, self.call(&mut state, Lane::Jobs))
    }

    fn take_willing(&self, state: &mut State<P>, event_loop: usize) -> Option<(Arc<Job>, P)> {
        if !self.first_is_for(state, event_loop) {
            return None;
        }
        match self.take_job(state) {
            Some(Taken::Job(job, payload)) => Some((job, payload)),
            _ => None,
        }
    }

    /// Whether the job that is next was enqueued for the threads of this loop.
    fn first_is_for(&self, state: &State<P>, event_loop: usize) -> bool {
        let first = self.first(state).and_then(|(_, token)| state.jobs.get(token));
        first.is_some_and(|record| record.job.traits.in_place == event_loop)
    }

    /// Whether a thread of the pool's home is to come for the next job.
    pub(crate) fn goes_home(&self, state: &State<P>) -> bool {
        self.home() != 0 && self.has_work(state, Lane::Jobs) && self.first_is_for(state, self.home())
    }

    fn take_errand(state: &mut State<P>) -> Option<Taken<P>> {
        while let Some(errand) = state.errands.pop_front() {
            if let Errand::Conclude(token) | Errand::OnStop(token) = errand
                && let Some(record) = state.jobs.get(token)
            {
                return Some(Taken::Errand(errand, record.payload.duplicate()));
            }
        }
        state.owed.pop_front().map(|payload| Taken::Errand(Errand::OnDone, payload))
    }

    /// Whether a thread of the lane has nothing to wait for any more.
    fn leaving(&self, state: &State<P>, lane: Lane) -> bool {
        let over = state.life == PoolLife::Ending && state.live() == 0;
        over && (lane == Lane::Jobs || !state.has_errands())
    }

    /// Detached. Parks until there is something to do, or until it is time to look up.
    pub fn wait(&self, seat: &Arc<PoolSeat>) {
        let mut state = self.lock();
        if self.has_work(&state, seat.lane) || self.leaving(&state, seat.lane) {
            return;
        }
        state.lanes[seat.lane as usize].parked.push(seat.clone());
        let limit = self.options.idle_look.map(Duration::from_nanos);
        state = seat.unparked.wait(state, limit);
        let lane = &mut state.lanes[seat.lane as usize];
        let parked = lane.parked.len();
        lane.parked.retain(|other| !Arc::ptr_eq(other, seat));
        if lane.parked.len() == parked {
            // It was taken off by whoever woke it.
            lane.waking = false;
        }
    }

    /// A job's function has ended, and its status has not moved yet. Under no lock.
    pub fn ending(&self) {
        reach("job.ending");
    }

    /// Attached. A job on this thread has ended: its outcome is stored where the payload keeps it.
    pub fn end(&self, job: &Job, outcome: Outcome) -> Ended<P> {
        let now = monotonic();
        let mut state = self.lock();
        let status = job.status();
        let end = match outcome {
            Outcome::GaveUp => status.give_up(),
            Outcome::Finished => None,
        };
        let Some(end) = end.or_else(|| status.finish()) else {
            return Ended { payload: None, evicted: None, call: Call::Nobody };
        };
        self.give_slot(&mut state, job);
        if let Some(record) = state.jobs.get(job.token()) {
            let ran = now.saturating_sub(record.started);
            state.run_times[bucket(ran)] += 1;
        }
        state.shift(job, end);
        let (payload, evicted) = self.retire(&mut state, job);
        self.made_room();
        let call = self.call(&mut state, Lane::Jobs);
        Ended { payload, evicted, call }
    }

    /// A job takes a slot, and one of the share of its kind.
    pub(crate) fn fill_slot(&self, state: &mut State<P>, job: &Job) {
        state.busy += 1;
        state.slow_busy += usize::from(job.traits.slow);
    }

    /// A job leaves its thread: its slot is free.
    pub(crate) fn give_slot(&self, state: &mut State<P>, job: &Job) {
        if state.jobs.get_mut(job.token()).is_some_and(|record| core::mem::take(&mut record.slot)) {
            state.busy -= 1;
            state.slow_busy -= usize::from(job.traits.slow);
        }
    }

    /// Attached. The errand of a job that never ran is done.
    pub fn conclude(&self, job: &Job) -> Ended<P> {
        let mut state = self.lock();
        let (payload, evicted) = self.retire(&mut state, job);
        Ended { payload, evicted, call: Call::Nobody }
    }

    /// Attached. An ended job's on_done is owed, and its owner's loop does not run it any more: an errand of this job.
    pub fn owe(&self, payload: P) -> Call {
        let mut state = self.lock();
        state.owed.push_back(payload);
        self.call(&mut state, Lane::Errands)
    }

    /// An ended job goes to the done queue, or out of the table.
    fn retire(&self, state: &mut State<P>, job: &Job) -> (Option<P>, Option<P>) {
        let token = job.token();
        let kept = job.traits.keep && !job.orphaned() && self.options.max_done > 0;
        let number = state.number();
        let mut out = (None, None);
        if kept {
            if let Some(record) = state.jobs.get_mut(token) {
                record.place = Place::Ended;
                record.done = number;
                state.done.insert(number, token);
            }
            if state.done.len() > self.options.max_done
                && let Some((_, oldest)) = state.done.pop_first()
            {
                state.counts.dropped += 1;
                out.1 = state.jobs.remove(oldest).map(|record| record.payload);
            }
        } else {
            out.0 = state.jobs.remove(token).map(|record| record.payload);
        }
        self.one_fewer(state);
        out
    }

    /// A job is out: whoever waits for the last one is told.
    pub(crate) fn one_fewer(&self, state: &State<P>) {
        if state.live() == 0 {
            self.left.notify_all();
            if state.life == PoolLife::Ending {
                Self::wake_all(state);
            }
        }
    }

    pub(crate) fn wake_all(state: &State<P>) {
        for lane in &state.lanes {
            for seat in &lane.parked {
                seat.unparked.notify_one();
            }
        }
    }

    /// Attached. Takes an ended job off the done queue; its payload is to be dropped. False if it has no place there.
    pub fn reap(&self, job: &Job) -> (bool, Option<P>) {
        let mut state = self.lock();
        let Some(record) = state.jobs.get(job.token()) else { return (false, None) };
        let (place, done) = (record.place, record.done);
        if !job.status().ended() || !job.traits.keep || job.orphaned() {
            return (false, None);
        }
        if place != Place::Ended {
            // It never ran, and its errand is still to be done: after that it is not kept.
            job.set_orphaned();
            return (true, None);
        }
        state.done.remove(&done);
        (true, state.jobs.remove(job.token()).map(|record| record.payload))
    }

    /// Attached. It has no owner any more: nobody answers its sync, and nobody will reap it.
    pub fn disown(&self, job: &Job) -> (Option<P>, Call) {
        let mut state = self.lock();
        job.set_orphaned();
        let call = self.release_unanswered(&mut state, job.token());
        let done = state.jobs.get(job.token()).map_or(0, |record| record.done);
        let gone = state.done.remove(&done).and_then(|token| state.jobs.remove(token));
        (gone.map(|record| record.payload), call)
    }

    /// Detached. Waits until the job has ended; false after `timeout`. `mine`: the calling thread runs a job of this
    /// pool; then it is an error if every thread of the pool would wait like this.
    pub fn wait_ended(&self, job: &Job, timeout: Option<Duration>, mine: bool) -> Result<bool, NobodyLeft> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        let counted = mine && !job.status().ended() && timeout != Some(Duration::ZERO);
        if counted {
            let place = state.jobs.get(job.token()).map(|record| record.place);
            let needs_thread = matches!(place, Some(Place::Queue(_) | Place::Resumed));
            if needs_thread && state.waiting + 1 >= self.options.threads {
                return Err(NobodyLeft);
            }
            state.waiting += 1;
        }
        let ended = loop {
            if job.status().ended() {
                break true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break false;
            }
            state = job.changed.wait(state, left);
        };
        if counted {
            state.waiting -= 1;
        }
        Ok(ended)
    }

    /// Detached, on the job's thread. Sleeps until `timeout` has passed; true, and sooner, if it is told to stop.
    pub fn sleep(&self, job: &Job, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if job.status() == Status::Stopping && !job.was_told() {
                return true;
            }
            state = job.changed.wait(state, Some(left));
        }
    }
}

/// Every thread of the pool waits for a job of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NobodyLeft;
