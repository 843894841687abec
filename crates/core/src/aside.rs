//! A joined thread steps aside for a job, and comes back: who leads meanwhile.
//!
//! Where threads run user code in parallel the lead is given away at once: another thread polls beside the job. Where one
//! thread at a time runs user code that costs more than a short job: each of the two threads lets go of the
//! interpreter's lock at its system calls, the other one takes it, and both are woken again and again. So there the lead is
//! kept, as it is kept in a handler, and the standby takes it over from a job that lasts. Where more than a few of them do, the
//! lead is given away at the beginning of each.

use crate::Payload;
use crate::clock::monotonic;
use crate::event_loop::EventLoop;
use crate::hub::{Lead, State, Wake};
use crate::seat::Seat;
use crate::watch::Finished;

/// Nanoseconds that a job may last while its thread keeps the lead. Less than that a view takes often enough on a machine
/// that has other work; with 700 us there a Flask request costs a tenth more.
const SHORT_JOB: u64 = 1_000_000;

/// A job that lasted longer counts so much; a short one takes one off.
const LASTED: u32 = 8;
/// From so much on the lead is given away at the beginning of each job: when more than one in nine lasts. One that was held up by
/// the machine is no reason: two threads at a time make more jobs last, and would never again be one.
const IMPATIENT: u32 = 2 * LASTED;
const MOST_IMPATIENT: u32 = 2 * IMPATIENT;

impl<P: Payload> State<P> {
    /// A job on a joined thread has lasted.
    pub(crate) fn count_lasting(&mut self) {
        self.impatience = (self.impatience + LASTED).min(MOST_IMPATIENT);
    }
}

impl<P: Payload> EventLoop<P> {
    /// The thread is about to be in user code that is no handler, perhaps for long: what it has run is ended, its strand is
    /// given back, and so is the lead; where one thread at a time runs user code, not before the job has lasted. It still
    /// counts as inside.
    pub fn step_aside(&self, seat: &mut Seat<P>) {
        self.end_item(seat);
        self.end_turn(seat);
        let mut hub = self.hub.lock();
        let leads = matches!(hub.lead, Lead::Held { seat: holder, .. } if holder == seat.id());
        seat.keeps = leads && !self.hub.parallel && hub.impatience < IMPATIENT;
        let wake = if seat.keeps {
            // Not overdue before so much later.
            let since = seat.now + SHORT_JOB.saturating_sub(self.hub.handover);
            hub.lead = Lead::Held { seat: seat.id(), since, aside: true };
            self.hub.call_standby(&mut hub)
        } else {
            if leads {
                hub.lead = Lead::Free;
            }
            match hub.lead {
                Lead::Free => self.hub.unpark(&mut hub),
                // What is left on its strand.
                _ if hub.has_ready() => self.hub.wake_for_work(&mut hub),
                _ if hub.sent_for() => self.hub.wake_for_place(&mut hub),
                _ => Wake::Nobody,
            }
        };
        drop(hub);
        self.wake(wake);
    }

    /// The watches that ended with what the thread has run: to be paid before it steps into something long.
    pub fn take_finished(&self, seat: &mut Seat<P>) -> Vec<Finished<P>> {
        core::mem::take(&mut seat.finished)
    }

    /// The thread is back from what it stepped aside for.
    pub fn step_back(&self, seat: &mut Seat<P>) {
        let now = monotonic();
        let lasted = now.saturating_sub(seat.now) > SHORT_JOB;
        seat.now = now;
        let mut hub = self.hub.lock();
        let leads = matches!(hub.lead, Lead::Held { seat: holder, .. } if holder == seat.id());
        match (lasted, seat.keeps && !leads) {
            (false, _) => hub.impatience = hub.impatience.saturating_sub(1),
            // Whoever took the lead over has counted it.
            (true, true) => {}
            (true, false) => hub.count_lasting(),
        }
        if let Lead::Held { since, aside, .. } = &mut hub.lead
            && leads
        {
            *since = (*since).min(now);
            *aside = false;
        }
    }
}
