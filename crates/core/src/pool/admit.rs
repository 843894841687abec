//! The way in: what is taken, what is refused, and in which order it will run.

use core::time::Duration;
use std::cmp::Reverse;
use std::time::Instant;

use super::job::Status;
use super::{Call, Expiry, Job, Lane, Meeting, Place, Pool, PoolLife, Record, State};
use crate::Payload;
use crate::clock::monotonic;
use crate::slots::Token;
use crate::sync::Arc;

/// Why a job was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// As many jobs wait as may.
    Full,
    /// The pool takes no more.
    Finished,
}

/// Where a job is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entrance {
    /// To its place in the queue, which it gets by [`Pool::enqueue`].
    Queue,
    /// To a free slot of the pool, if nobody waits who comes before it; the caller runs it.
    InPlace,
    /// To the caller, who runs it at once, without a slot.
    Here,
}

impl<P: Payload> Pool<P> {
    /// Attached. Takes a job into the table; it can be stopped from here on. It begins only after [`Self::enqueue`]: in
    /// between its owner gets to know of it.
    pub fn admit(&self, job: &Arc<Job>, payload: P, entrance: Entrance) -> Result<(), (Refusal, P)> {
        let now = monotonic();
        let mut state = self.lock();
        if state.life != PoolLife::Open {
            drop(state);
            return Err((Refusal::Finished, payload));
        }
        let room = match entrance {
            Entrance::Queue => self.has_room(&state, job.traits.slow),
            Entrance::InPlace => {
                let slow = job.traits.slow;
                let share = !slow || state.slow_busy < self.options.max_slow;
                let slot = state.busy < self.options.threads && share;
                // The slot that it takes may be the one that let others wait in a queue without depth.
                slot && !self.comes_first(&state, job) && self.has_room(&state, slow)
            }
            Entrance::Here => true,
        };
        if !room {
            drop(state);
            return Err((Refusal::Full, payload));
        }
        let key = (Reverse(job.traits.priority), state.number());
        let place = match entrance {
            Entrance::Queue => Place::Queue(key),
            Entrance::InPlace => Place::Slot(key),
            Entrance::Here => Place::Here,
        };
        state.reserved += usize::from(entrance != Entrance::Queue);
        let slot = entrance == Entrance::InPlace;
        if slot {
            self.fill_slot(&mut state, job);
        }
        let record = Record {
            payload,
            job: job.clone(),
            place,
            slot,
            meeting: Meeting::default(),
            on_stop: false,
            accepted: now,
            started: 0,
            told: 0,
            reported: false,
            done: 0,
        };
        let token = state.jobs.insert(|_| record);
        job.set_token(token);
        state.counts.submitted += 1;
        state.counts.queued += 1;
        Ok(())
    }

    /// Whether one more job may wait. Jobs that a thread takes at once do not count: free threads, and those that may
    /// still be started.
    fn has_room(&self, state: &State<P>, slow: bool) -> bool {
        let Some(depth) = self.options.max_queue_depth else { return true };
        let free = self.options.threads.saturating_sub(state.busy);
        // Slow jobs beyond their share wait, however many threads are free.
        let share = self.options.max_slow.saturating_sub(state.slow_busy);
        let slow_jobs = state.slow_queue.len() + usize::from(slow);
        let queued = state.counts.queued - state.reserved;
        let others = queued.saturating_sub(state.slow_queue.len()) + usize::from(!slow);
        let taken = (others + slow_jobs.min(share)).saturating_sub(free);
        taken + slow_jobs.saturating_sub(share) <= depth
    }

    /// The second half of [`Self::admit`]: puts the job in its place in the queue, if it was not stopped meanwhile.
    /// `quiet`: the caller will call [`Self::take_in_place`], so that no thread has to be called for it.
    pub fn enqueue(&self, job: &Job, quiet: bool) -> Call {
        let token = job.token();
        let mut state = self.lock();
        let key = match state.jobs.get(token) {
            Some(Record { place: Place::Queue(key), .. }) if job.status() == Status::Queued => *key,
            _ => return Call::Nobody,
        };
        state.line_up(job, key);
        let sooner = self.note_deadline(&mut state, job);
        let call = if quiet { Call::Nobody } else { self.call(&mut state, Lane::Jobs) };
        drop(state);
        if sooner {
            self.host.expires_sooner();
        }
        call
    }

    /// The second half of [`Self::admit`] for a job that the caller runs.
    pub fn keep_slot(&self, job: &Job) {
        let mut state = self.lock();
        let sooner = self.note_deadline(&mut state, job);
        drop(state);
        if sooner {
            self.host.expires_sooner();
        }
    }

    fn note_deadline(&self, state: &mut State<P>, job: &Job) -> bool {
        match job.traits.deadline {
            Some(deadline) => self.note_expiry(state, deadline, job.token(), Expiry::Deadline),
            None => false,
        }
    }

    /// Attached. Takes a job out again that nobody knows of yet and that has not begun, as if it had never been taken.
    pub fn withdraw(&self, job: &Job) -> Option<P> {
        let mut state = self.lock();
        if job.status() != Status::Queued {
            return None;
        }
        self.give_slot(&mut state, job);
        let record = state.jobs.remove(job.token())?;
        match record.place {
            Place::Queue(key) => {
                state.queue.remove(&key);
                state.slow_queue.remove(&key);
            }
            Place::Slot(_) | Place::Here => state.reserved -= 1,
            _ => {}
        }
        state.counts.queued -= 1;
        state.counts.submitted -= 1;
        self.one_fewer(&state);
        self.made_room();
        drop(state);
        Some(record.payload)
    }

    /// The thread that was to run it in place leaves: the job goes to the queue, to where it would be by now, unless it was
    /// stopped meanwhile.
    pub fn send_to_queue(&self, job: &Job) -> Call {
        let mut state = self.lock();
        let key = match state.jobs.get_mut(job.token()) {
            Some(record) if job.status() == Status::Queued => match record.place {
                Place::Slot(key) => {
                    record.place = Place::Queue(key);
                    key
                }
                _ => return Call::Nobody,
            },
            _ => return Call::Nobody,
        };
        state.reserved -= 1;
        self.give_slot(&mut state, job);
        state.line_up(job, key);
        self.call(&mut state, Lane::Jobs)
    }

    /// Detached. Waits until a job could be taken, or none will be any more; false after `timeout`.
    pub fn wait_room(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        loop {
            if state.life != PoolLife::Open || self.has_room(&state, false) {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            state = self.room.wait(state, left);
        }
    }

    /// A job has left the queue, or a thread has become free.
    pub(crate) fn made_room(&self) {
        self.room.notify_all();
    }

    /// A thread could not be started. Whoever waits for the pool's end need not wait for it.
    pub fn start_failed(&self, lane: Lane) {
        self.lock().lanes[lane as usize].starting = false;
        self.left.notify_all();
    }

    /// Whoever was to take a job does not come: calls a thread of the pool.
    pub fn call_for_job(&self) -> Call {
        let mut state = self.lock();
        self.call(&mut state, Lane::Jobs)
    }

    /// A job was refused for good, because the queue was full.
    pub fn count_refused(&self) {
        self.lock().counts.refused += 1;
    }

    /// Whether a thread for jobs is there, or about to be; or one of its home's, which looks for the next job when its own
    /// has ended.
    pub fn has_threads(&self) -> bool {
        let state = self.lock();
        let lane = &state.lanes[Lane::Jobs as usize];
        lane.started > 0 || lane.starting || state.sent || (self.home() != 0 && state.busy > 0)
    }

    pub(crate) fn note_expiry(&self, state: &mut State<P>, when: u64, token: Token, what: Expiry) -> bool {
        // Entries of jobs and syncs that have ended stay until they are due, or until there are twice as many as before.
        if state.expiries.len() >= state.many_expiries {
            let jobs = &state.jobs;
            state.expiries.retain(|Reverse((_, token, what))| {
                jobs.get(*token).is_some_and(|record| match what {
                    Expiry::Sync(number) => record.meeting.number == *number,
                    Expiry::Deadline | Expiry::Warning => !record.job.status().ended(),
                })
            });
            state.many_expiries = (2 * state.expiries.len()).max(64);
        }
        let sooner = state.expiries.peek().is_none_or(|Reverse((first, ..))| when < *first);
        state.expiries.push(Reverse((when, token, what)));
        sooner
    }
}
