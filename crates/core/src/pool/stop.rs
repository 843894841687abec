//! Every way to tell a job to stop, and the end of the pool.

use core::time::Duration;
use std::cmp::Reverse;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{BorrowedFd, IntoRawFd};

use super::job::Status;
use super::{Calls, Errand, Expiry, Job, Lane, Owned, Place, Pool, PoolLife, State, StopReason};
use crate::Payload;
use crate::clock::monotonic;
use crate::points::reach;
use crate::slots::Token;

/// What a stop has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// It had ended.
    Ended,
    /// It had been told before.
    Told,
    /// It will never run.
    Never,
    /// It was told now.
    Asked,
}

impl<P: Payload> Pool<P> {
    /// Tells a job to stop. Takes no lock but the pool's own, runs nothing of the user's.
    pub fn stop(&self, job: &Job, reason: StopReason) -> Stopped {
        let mut state = self.lock();
        let (stopped, calls) = self.tell(&mut state, job.token(), reason);
        drop(state);
        reach("job.told");
        self.perform_all(calls);
        stopped
    }

    /// Under the mutex: tells a job to stop.
    pub(crate) fn tell(&self, state: &mut State<P>, token: Token, reason: StopReason) -> (Stopped, Calls) {
        let Some(record) = state.jobs.get_mut(token) else { return (Stopped::Ended, Calls::default()) };
        let job = record.job.clone();
        let status = job.status();
        let Some(next) = status.stop() else {
            return (if status.ended() { Stopped::Ended } else { Stopped::Told }, Calls::default());
        };
        job.tell(reason);
        if job.descriptor() >= 0 {
            signal(job.descriptor());
        }
        let place = record.place;
        if next == Status::Stopped {
            match place {
                Place::Queue(key) => {
                    state.queue.remove(&key);
                    state.slow_queue.remove(&key);
                }
                // Its slot is free now: when the thread that was to run it looks, the job may have left the table.
                Place::Slot(_) | Place::Here => {
                    state.reserved -= 1;
                    self.give_slot(state, &job);
                }
                _ => unreachable!("a queued job has one of the two places"),
            }
            state.shift(&job, next);
            state.errands.push_back(Errand::Conclude(token));
            self.made_room();
            let calls =
                Calls { errands: self.call(state, Lane::Errands), jobs: self.call(state, Lane::Jobs), sooner: false };
            return (Stopped::Never, calls);
        }
        record.told = monotonic();
        let warn_at = record.told.saturating_add(self.options.stop_warning);
        let visiting = record.meeting.visiting;
        let on_stop = core::mem::take(&mut record.on_stop);
        state.shift(&job, next);
        if on_stop {
            state.errands.push_back(Errand::OnStop(token));
        }
        match place {
            Place::Parked if !visiting => self.resume(state, token),
            // It had let others go first.
            Place::Queue(key) => {
                state.queue.remove(&key);
                state.slow_queue.remove(&key);
                self.resume(state, token);
            }
            _ => {}
        }
        let sooner = self.note_expiry(state, warn_at, token, Expiry::Warning);
        let calls = Calls { errands: self.call(state, Lane::Errands), jobs: self.call(state, Lane::Jobs), sooner };
        (Stopped::Asked, calls)
    }

    /// A parked stepwise job can go on.
    pub(crate) fn resume(&self, state: &mut State<P>, token: Token) {
        if let Some(record) = state.jobs.get_mut(token) {
            record.place = Place::Resumed;
            state.resumed.push_back(token);
        }
    }

    /// A descriptor that becomes readable when the job is told to stop; it is the job's.
    pub fn stop_descriptor(&self, job: &Job) -> Result<i32, i32> {
        let _state = self.lock();
        if job.descriptor() < 0 {
            let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            job.set_descriptor(made.map_err(|error| error.raw_os_error())?.into_raw_fd());
            if job.status() == Status::Stopping {
                signal(job.descriptor());
            }
        }
        Ok(job.descriptor())
    }

    /// The job has a callback to be run when it is told to stop; false if it was told already.
    pub fn want_on_stop(&self, job: &Job, want: bool) -> bool {
        let mut state = self.lock();
        if want && job.status() == Status::Stopping {
            return false;
        }
        if let Some(record) = state.jobs.get_mut(job.token()) {
            record.on_stop = want;
        }
        true
    }

    /// Stops or reports what is due. Returns nanoseconds of the next thing that will be, and the jobs that were told to
    /// stop and have not checked in for too long: their tokens, each once.
    pub fn expire(&self) -> (Option<u64>, Vec<Token>) {
        let now = monotonic();
        let mut silent = Vec::new();
        let mut calls = Vec::new();
        let mut state = self.lock();
        while let Some(Reverse((when, ..))) = state.expiries.peek()
            && *when <= now
            && let Some(Reverse((_, token, what))) = state.expiries.pop()
        {
            let Some(record) = state.jobs.get_mut(token) else { continue };
            let reason = match what {
                Expiry::Deadline => StopReason::Deadline,
                Expiry::Sync(number) => {
                    if record.meeting.number != number || record.job.status() != Status::Syncing {
                        continue;
                    }
                    StopReason::SyncTimeout
                }
                Expiry::Warning => {
                    let unheard = record.job.status() == Status::Stopping && !record.job.was_told();
                    if unheard && record.place == Place::Thread && !record.reported {
                        record.reported = true;
                        silent.push(token);
                    }
                    continue;
                }
            };
            calls.push(self.tell(&mut state, token, reason).1);
        }
        let next = state.expiries.peek().map(|Reverse((when, ..))| *when);
        // A thread that could not be started may be, now.
        let jobs = self.call(&mut state, Lane::Jobs);
        calls.push(Calls { jobs, errands: self.call(&mut state, Lane::Errands), sooner: false });
        drop(state);
        calls.into_iter().for_each(|calls| self.perform_all(calls));
        (next, silent)
    }

    /// Takes no more jobs; those that are queued still run.
    pub fn close_entrance(&self) {
        let mut state = self.lock();
        state.life = PoolLife::Ending;
        self.room.notify_all();
        self.left.notify_all();
        Self::wake_all(&state);
    }

    /// Tells every job to stop that is not on a thread yet; `all`: every job. Returns how many that were.
    pub fn stop_all(&self, reason: StopReason, all: bool) -> usize {
        let mut calls = Vec::new();
        let mut state = self.lock();
        let tokens: Vec<Token> = state
            .jobs
            .iter()
            .filter(|(_, record)| all || record.job.status() == Status::Queued)
            .map(|(token, _)| token)
            .collect();
        let mut told = 0;
        for token in tokens {
            let (stopped, more) = self.tell(&mut state, token, reason);
            told += usize::from(matches!(stopped, Stopped::Never | Stopped::Asked));
            calls.push(more);
        }
        drop(state);
        calls.into_iter().for_each(|calls| self.perform_all(calls));
        told
    }

    /// Detached. Waits until no job is left and, after [`Self::close_entrance`], every thread has left; false after
    /// `timeout`.
    pub fn wait_left(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        loop {
            let threads = state.lanes.iter().any(|lane| lane.started > 0 || lane.starting);
            if state.live() == 0 && !(threads && state.life == PoolLife::Ending) {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            state = self.left.wait(state, left);
        }
    }
}

impl<P: Payload> Owned for Pool<P> {
    fn owner_gone(&self, job: Token) {
        if self.check_fork().is_err() {
            return;
        }
        let mut state = self.lock();
        let Some(record) = state.jobs.get(job) else { return };
        let shared = record.job.clone();
        if shared.status().ended() {
            // It was on its way out of its owner's table; on the done queue it stays until it is reaped.
            return;
        }
        let calls = if shared.traits.outlive {
            shared.set_orphaned();
            Calls { jobs: self.release_unanswered(&mut state, job), ..Calls::default() }
        } else {
            self.tell(&mut state, job, StopReason::OwnerGone).1
        };
        drop(state);
        self.perform_all(calls);
    }

    fn loop_stopping(&self, job: Token) {
        let mut state = self.lock();
        let calls = self.tell(&mut state, job, StopReason::LoopStopping).1;
        drop(state);
        self.perform_all(calls);
    }
}

/// Makes a job's descriptor readable.
fn signal(fd: i32) {
    // SAFETY: the descriptor is the job's own and lives as long as the job, which the caller holds.
    let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
    // It can only fail by being full, and then it is readable.
    _ = rustix::io::write(descriptor, &1u64.to_ne_bytes());
}
