//! Permits: so many may go on at a time, in the order in which they came. And who waits for one.
//!
//! A permit is handed over: a release gives it to the first in line whose wait it can still decide, and nobody else can
//! take it meanwhile. Whoever was cancelled first is passed by, and takes his place out of the line himself before he goes
//! on; whoever was given a permit has it, though he be told to stop a moment later. So a permit is with exactly one task,
//! or free. Each call to the front is paid for by the one who joined there: a release does no more work than came in.
//!
//! The mutex is held for a few steps in which nothing is made or dropped that is not the core's.

use crate::Payload;
use crate::event_loop::EventLoop;
use crate::hub::Wake;
use crate::line::Line;
use crate::state::Schedule;
use crate::sync::{Arc, Mutex};
use crate::task::Task;

/// A task that waits, and the ticket of its wait.
pub struct Waiter<P: Payload> {
    owner: Arc<EventLoop<P>>,
    task: Arc<Task<P>>,
    ticket: u32,
}

impl<P: Payload> Waiter<P> {
    /// The thread inside the task opens its wait, which a cancellation may end.
    pub fn open(owner: &Arc<EventLoop<P>>, task: &Arc<Task<P>>) -> Self {
        Self { owner: owner.clone(), task: task.clone(), ticket: task.open(true) }
    }

    /// Decides its wait. Given back if it was cancelled, or has ended: to be dropped under no lock.
    pub(crate) fn decide(self) -> Result<Decided<P>, Self> {
        match self.task.complete(self.ticket) {
            Some(schedule) => Ok(Decided { waiter: self, schedule }),
            None => Err(self),
        }
    }
}

/// A task whose wait was decided: [`Decided::queue`] lets it go on, under no lock.
#[must_use]
pub struct Decided<P: Payload> {
    waiter: Waiter<P>,
    schedule: Schedule,
}

impl<P: Payload> Decided<P> {
    /// Puts it into the run queue of its loop. Whom to wake for it, and where.
    pub fn queue(self) -> (Arc<EventLoop<P>>, Wake) {
        let Waiter { owner, task, .. } = self.waiter;
        let wake = owner.queue_task(&task, self.schedule);
        (owner, wake)
    }
}

struct Applicant<P: Payload> {
    /// Taken by whoever calls it.
    waiter: Option<Waiter<P>>,
    given: bool,
}

struct Inside<P: Payload> {
    /// Below zero after there were made fewer than were out.
    free: i64,
    line: Line<Applicant<P>>,
}

/// So many may go on at a time.
pub struct Permits<P: Payload> {
    inside: Mutex<Inside<P>>,
    limit: i64,
}

/// What became of asking for a permit.
pub enum Asked {
    /// It is the caller's.
    Given,
    /// The caller is in line, at this place.
    Waits(u32),
}

impl<P: Payload> Permits<P> {
    /// So many, and never more than `limit`.
    pub fn new(free: i64, limit: i64) -> Self {
        Self { inside: Mutex::new(Inside { free, line: Line::default() }), limit }
    }

    /// How many are free.
    pub fn free(&self) -> i64 {
        self.inside.lock().free
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.inside.lock().line.len()
    }

    /// Takes one if one is free.
    pub fn take(&self) -> bool {
        let mut inside = self.inside.lock();
        let free = inside.free > 0;
        inside.free -= i64::from(free);
        free
    }

    /// Takes one, or gets in line: `open` opens the wait of the task that asks.
    pub fn ask(&self, open: impl FnOnce() -> Waiter<P>) -> Asked {
        let mut inside = self.inside.lock();
        if inside.free > 0 {
            inside.free -= 1;
            return Asked::Given;
        }
        Asked::Waits(inside.line.join(Applicant { waiter: Some(open()), given: false }))
    }

    /// Whoever was in line leaves his place. Whether he was given a permit there.
    pub fn leave(&self, place: u32) -> bool {
        let gone = self.inside.lock().line.remove(place);
        gone.is_some_and(|gone| gone.given)
    }

    /// Makes `change` more of them, or fewer; those who get one go into `decided`. False, and nothing is changed, if that
    /// were more than there may be.
    pub fn add(&self, change: i64, decided: &mut Vec<Decided<P>>) -> bool {
        // Dropped after the mutex was released.
        let mut passed_by = Vec::new();
        let mut inside = self.inside.lock();
        match inside.free.checked_add(change) {
            Some(free) if free <= self.limit => inside.free = free,
            _ => return false,
        }
        while inside.free > 0
            && let Some(applicant) = inside.line.call()
        {
            match applicant.waiter.take().map(Waiter::decide) {
                Some(Ok(ready)) => {
                    applicant.given = true;
                    inside.free -= 1;
                    decided.push(ready);
                }
                other => passed_by.push(other),
            }
        }
        true
    }
}
