//! Sync: a job meets its owner. The job waits, the owner's callback runs on the owner's strand, somebody answers, and the
//! job goes on after the callback has returned: the two never run at the same time. `docs/design/job.md` names the races.

use core::time::Duration;
use std::cmp::Reverse;
use std::time::Instant;

use super::job::Status;
use super::{Call, Calls, Expiry, Job, Lane, Place, Pool, State, StopReason};
use crate::Payload;
use crate::clock::monotonic;
use crate::points::reach;
use crate::slots::Token;

/// How a sync ended, for a job that held its thread meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    /// It was answered, or its owner is gone and it goes on without.
    Answered,
    /// The job was told to stop.
    Stopping,
}

/// Why a sync could not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeetError {
    /// The job was told to stop.
    Stopping,
    /// It is not running.
    NotRunning,
    /// Nobody can answer any more.
    NoOwner,
}

/// Why an answer was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerError {
    /// Nobody waits for one.
    NotSyncing(Status),
    /// There is one already.
    Answered,
}

impl<P: Payload> Pool<P> {
    /// On the job's thread: a sync begins. Returns its number. A stepwise job lets go of its thread here, and of its
    /// slot; `timeout` counts from now.
    pub fn begin_meeting(&self, job: &Job, timeout: Option<Duration>) -> Result<(u64, Call), MeetError> {
        let mut state = self.lock();
        if job.orphaned() {
            return Err(MeetError::NoOwner);
        }
        let number = state.number();
        let Some(syncing) = job.status().sync() else {
            let stopping = job.status() == Status::Stopping;
            return Err(if stopping { MeetError::Stopping } else { MeetError::NotRunning });
        };
        state.shift(job, syncing);
        if let Some(record) = state.jobs.get_mut(job.token()) {
            record.meeting = super::Meeting { number, visiting: false, answered: false };
        }
        let mut call = Call::Nobody;
        let mut sooner = false;
        if job.steps() {
            self.leave_thread(&mut state, job, Place::Parked);
            if let Some(timeout) = timeout {
                let when = monotonic().saturating_add(timeout.as_nanos() as u64);
                sooner = self.note_expiry(&mut state, when, job.token(), Expiry::Sync(number));
            }
            call = self.call(&mut state, Lane::Jobs);
        }
        drop(state);
        reach("sync.begun");
        if sooner {
            self.host.expires_sooner();
        }
        Ok((number, call))
    }

    /// A stepwise job gives its thread and its slot back.
    fn leave_thread(&self, state: &mut State<P>, job: &Job, place: Place) {
        if let Some(record) = state.jobs.get_mut(job.token()) {
            record.place = place;
        }
        self.give_slot(state, job);
        self.made_room();
    }

    /// On the job's thread: whether another job waits for a thread, and would get it before this one.
    pub fn others_wait(&self, job: &Job) -> bool {
        self.comes_first(&self.lock(), job)
    }

    /// On the job's thread, while it runs: what is left of it are steps, between which it has no thread.
    pub fn go_on_by_steps(&self, job: &Job) {
        // Under the mutex, as a sync is counted by whether its job has steps. No sync of it waits: it runs.
        let _state = self.lock();
        job.set_steps();
    }

    /// Between two steps: the job lets go of its thread, and goes on when those of its priority that wait have begun; at
    /// once if it was told to stop.
    pub fn let_go(&self, job: &Job) -> Call {
        let mut state = self.lock();
        if !matches!(job.status(), Status::Running | Status::Stopping) {
            return Call::Nobody;
        }
        let token = job.token();
        if job.status() == Status::Stopping {
            self.leave_thread(&mut state, job, Place::Resumed);
            state.resumed.push_back(token);
        } else {
            let key = (Reverse(job.traits.priority), state.number());
            self.leave_thread(&mut state, job, Place::Queue(key));
            state.line_up(job, key);
        }
        self.call(&mut state, Lane::Jobs)
    }

    /// Detached, on the job's thread: waits for the end of the sync. After `timeout` the job is told to stop.
    pub fn wait_met(&self, job: &Job, timeout: Option<Duration>) -> Option<Met> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        loop {
            let visiting = state.jobs.get(job.token()).is_some_and(|record| record.meeting.visiting);
            match job.status() {
                Status::Syncing => {}
                _ if visiting => {}
                Status::Stopping => return Some(Met::Stopping),
                _ => return Some(Met::Answered),
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) && job.status() == Status::Syncing {
                return None;
            }
            // A callback that is inside is waited for, however long it takes.
            state = job.changed.wait(state, left.filter(|left| !left.is_zero()));
        }
    }

    /// On the owner's strand: the callback of this sync may run, and is inside from now on. False if the sync is over.
    pub fn enter_meeting(&self, job: &Job, number: u64) -> bool {
        let mut state = self.lock();
        let Some(record) = state.jobs.get_mut(job.token()) else { return false };
        if job.status() != Status::Syncing || record.meeting.number != number || record.meeting.answered {
            return false;
        }
        record.meeting.visiting = true;
        true
    }

    /// On the owner's strand: the callback has returned, or failed, which stops the job.
    pub fn leave_meeting(&self, job: &Job, number: u64, failed: bool) {
        let token = job.token();
        let mut state = self.lock();
        let Some(record) = state.jobs.get_mut(token) else { return };
        if record.meeting.number != number {
            return;
        }
        record.meeting.visiting = false;
        let (answered, parked) = (record.meeting.answered, record.place == Place::Parked);
        let mut calls = Calls::default();
        match job.status() {
            Status::Syncing if failed => calls = self.tell(&mut state, token, StopReason::SyncFailed).1,
            Status::Syncing if answered || job.orphaned() => calls.jobs = self.release(&mut state, job),
            // Told to stop while the callback was inside: it was waited for.
            Status::Stopping if parked => {
                self.resume(&mut state, token);
                calls.jobs = self.call(&mut state, Lane::Jobs);
            }
            _ => job.changed.notify_all(),
        }
        drop(state);
        self.perform_all(calls);
    }

    /// Any thread: the owner's answer. What was answered is stored by the caller, before it lets go of its own lock.
    pub fn answer(&self, job: &Job) -> Result<Call, AnswerError> {
        let mut state = self.lock();
        let status = job.status();
        let Some(record) = state.jobs.get_mut(job.token()) else { return Err(AnswerError::NotSyncing(status)) };
        // A callback that is inside cannot know that the job was told to stop meanwhile: its answer comes to nothing.
        if status != Status::Syncing && !(status == Status::Stopping && record.meeting.visiting) {
            return Err(AnswerError::NotSyncing(status));
        }
        if core::mem::replace(&mut record.meeting.answered, true) {
            return Err(AnswerError::Answered);
        }
        if record.meeting.visiting { Ok(Call::Nobody) } else { Ok(self.release(&mut state, job)) }
    }

    /// The owner of a job that outlives it has ended: nobody can answer any more.
    pub(crate) fn release_unanswered(&self, state: &mut State<P>, token: Token) -> Call {
        let Some(record) = state.jobs.get_mut(token) else { return Call::Nobody };
        let job = record.job.clone();
        // While the callback is inside it may still answer; its end releases the job.
        if job.status() != Status::Syncing || record.meeting.visiting {
            return Call::Nobody;
        }
        self.release(state, &job)
    }

    /// Answered, and the callback is out: the job goes on.
    fn release(&self, state: &mut State<P>, job: &Job) -> Call {
        let Some(running) = job.status().answer() else { return Call::Nobody };
        state.shift(job, running);
        if !job.steps() {
            return Call::Nobody;
        }
        self.resume(state, job.token());
        self.call(state, Lane::Jobs)
    }
}
