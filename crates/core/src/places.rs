//! Places: joined threads that run jobs of a pool instead of handlers, one fewer than have joined, so that one serves the
//! loop.
//!
//! A thread takes a place for a job that it has enqueued itself. And a pool whose home a loop is sends for a thread of it when
//! a job waits: whoever comes round next takes a place and runs it. Those that were sent for and have no place yet count as if
//! they had one, so that nobody takes it from them. As everywhere in the hub, what is put in and who is woken for it is one
//! step under the mutex, and so is a look and the decision to wait.

use crate::Payload;
use crate::event_loop::EventLoop;
use crate::hub::{State, Wake};
use crate::owned::JobRef;
use crate::pool::{Job, Owned};
use crate::seat::Seat;
use crate::state::Life;
use crate::sync::Arc;

impl<P: Payload> State<P> {
    /// A place is free, and the job that had it is off the list.
    fn vacate(&mut self, job: Option<&Job>) -> Option<JobRef> {
        self.places -= 1;
        let at = job.and_then(|job| self.in_place.iter().position(|other| other.id == job.id));
        at.map(|at| self.in_place.swap_remove(at))
    }

    /// Whether a place is free for whoever was sent for.
    pub(crate) fn sent_for(&self) -> bool {
        !self.sent.is_empty() && self.places + 1 < self.seats.len()
    }

    /// Whether no thread of this loop comes when one is sent for. The main thread never runs a job, but it would be woken for
    /// one.
    pub(crate) fn sends_nobody(&self) -> bool {
        self.life != Life::Open || self.seats.len() < 2 || self.seats.iter().any(|seat| seat.main)
    }

    /// Whether somebody has sent for a thread, and is to hear that none comes.
    pub(crate) fn unserved(&self) -> bool {
        !self.sent.is_empty() && self.sends_nobody()
    }
}

impl<P: Payload> EventLoop<P> {
    /// Takes a place for a job that the calling thread enqueues.
    pub fn take_place(&self) -> bool {
        let mut hub = self.hub.lock();
        let free = hub.life == Life::Open && hub.places + hub.sent.len() + 1 < hub.seats.len();
        hub.places += usize::from(free);
        free
    }

    /// Which job has the place: it is told when the loop stops, now if it has already.
    pub fn name_place(&self, job: &Job, pool: Arc<dyn Owned>) {
        let job = JobRef { id: job.id, token: job.token(), pool };
        let mut hub = self.hub.lock();
        hub.in_place.push(job.clone());
        let stopped = matches!(hub.life, Life::Stopped { .. });
        drop(hub);
        if stopped {
            job.pool.loop_stopping(job.token);
        }
    }

    /// Attached. Gives a place back, with or without a job, on a thread that is about to come round; `next` is sent for.
    pub fn give_place(&self, job: Option<&Job>, next: Option<P>) {
        let mut hub = self.hub.lock();
        let gone = hub.vacate(job);
        hub.sent.extend(next);
        drop(hub);
        drop(gone);
    }

    /// Gives a place back in a handler, which may go on for long.
    pub fn give_place_early(&self, job: Option<&Job>) {
        let mut hub = self.hub.lock();
        let gone = hub.vacate(job);
        let wake = self.call_for_place(&mut hub);
        drop(hub);
        self.wake(wake);
        drop(gone);
    }

    fn call_for_place(&self, hub: &mut State<P>) -> Wake {
        if hub.sent_for() { self.hub.wake_for_place(hub) } else { Wake::Nobody }
    }

    /// Attached. A thread is to come for the jobs that this stands for; given back if none would. They are those of `pool`,
    /// which has so many `slots`.
    pub fn send_for(&self, sent: P, pool: *const dyn Owned, slots: usize) -> Result<(), P> {
        if self.check_fork().is_err() {
            return Err(sent);
        }
        let mut hub = self.hub.lock();
        let full = hub.places + hub.sent.len() + 1 >= hub.seats.len();
        // One of the pool's slots is free. If its jobs have all the places, and there are as many as slots, one of them has ended and
        // its place will be free too, when that job's callbacks have run. Otherwise a job may have it for long, and so may
        // the one that another pool has sent for.
        let others = || hub.in_place.iter().any(|job| !core::ptr::addr_eq(Arc::as_ptr(&job.pool), pool));
        if hub.sends_nobody() || full && (slots >= hub.seats.len() || !hub.sent.is_empty() || others()) {
            return Err(sent);
        }
        hub.sent.push_back(sent);
        let wake = self.call_for_place(&mut hub);
        drop(hub);
        self.wake(wake);
        Ok(())
    }

    /// Whether the thread would take a place for somebody who sent for one.
    pub(crate) fn may_come(&self, hub: &State<P>, seat: &Seat<P>) -> bool {
        hub.sent_for() && !seat.shared.main && !seat.options.one_tick
    }

    /// The loop stops at once: tells the jobs in place. Under no lock.
    pub(crate) fn stop_in_place(&self) {
        let jobs = self.hub.lock().in_place.clone();
        for job in jobs {
            job.pool.loop_stopping(job.token);
        }
    }
}
