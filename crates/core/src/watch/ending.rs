//! A watch goes: once, and when nobody is inside.

use core::time::Duration;
use std::time::Instant;

use super::{Finished, Occupant, Watch};
use crate::Payload;
use crate::event_loop::EventLoop;
use crate::points::reach;
use crate::state::watch::{FINISHED, PAUSED, REMOVED, UNREGISTERED};
use crate::state::{Mode, RemovalReason};
use crate::strand::{Body, Strand};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard, thread_number};

impl<P: Payload> EventLoop<P> {
    /// Ends a watch: no handler starts any more. None if it had ended already, or if a handler is inside: then the
    /// thread that leaves it gets the `Finished`.
    pub fn end_watch(&self, watch: &Arc<Watch<P>>, reason: RemovalReason) -> Option<Finished<P>> {
        let mut body = watch.strand.body.lock();
        if watch.has(REMOVED) {
            return None;
        }
        watch.reason.store(reason as u8, Ordering::Relaxed);
        watch.set(REMOVED);
        // Who waits for the end waits for this thread from now on, until it has paid, or leaves that to the one inside.
        watch.payer.store(thread_number(), Ordering::Relaxed);
        if watch.own_strand {
            body.word.closing();
        }
        drop(body);
        reach("remove.word");
        let mut number = self.numbers.lock(watch.fd);
        if number.owner() == watch.token {
            number.clear();
            // Missing or bad: the descriptor was closed first, and the kernel forgot it by itself.
            _ = self.poller().delete(watch.fd);
        }
        drop(number);
        self.orphan((true, watch.token));
        if watch.own_strand {
            self.orphan((false, watch.strand.token));
            let cancelled = self.timers.lock().cancel_all(&watch.strand);
            drop(cancelled);
        }
        let body = watch.strand.body.lock();
        watch.set(UNREGISTERED);
        if watch.in_use(&body) {
            watch.payer.store(body.thread, Ordering::Relaxed);
        }
        self.try_finish(watch, body)
    }

    /// Hands the ended watch out, once, as soon as it is out of the kernel and nobody is in its handler.
    pub(super) fn try_finish(&self, watch: &Arc<Watch<P>>, mut body: MutexGuard<'_, Body<P>>) -> Option<Finished<P>> {
        if !watch.has(UNREGISTERED) || watch.has(FINISHED) || watch.in_use(&body) {
            return None;
        }
        watch.set(FINISHED);
        watch.payer.store(thread_number(), Ordering::Relaxed);
        body.detach(watch.token);
        drop(body);
        let record = self.watches.lock().remove(watch.token).flatten();
        self.settle_strand(&watch.strand, watch.strand.body.lock());
        let payload = record.map(|record| record.payload);
        Some(Finished { reason: watch.reason(), watch: watch.clone(), payload })
    }

    /// The thread that has left a timer of a strand that is ending: a watch that was removed meanwhile is handed out.
    pub(crate) fn timer_left(&self, strand: &Strand<P>) -> Option<Finished<P>> {
        if !strand.own {
            return None;
        }
        let body = strand.body.lock();
        let ending = if body.word.mode == Mode::Open { Vec::new() } else { body.watches() };
        drop(body);
        let watches = ending.into_iter().filter_map(|token| self.watch(token)).filter(|watch| watch.own_strand);
        watches.map(|watch| self.try_finish(&watch, strand.body.lock())).find(Option::is_some).flatten()
    }

    /// Who is inside its handler now.
    pub fn occupant(&self, watch: &Watch<P>) -> Occupant {
        watch.occupant(&watch.strand.body.lock())
    }

    /// Detached. Waits until nobody else is inside, or the watch was resumed; false after `timeout`.
    pub fn wait_vacant(&self, watch: &Watch<P>, timeout: Option<Duration>) -> bool {
        let settled =
            |body: &Body<P>| watch.occupant(body) != Occupant::Other || (!watch.has(PAUSED) && !watch.has(REMOVED));
        Self::wait_body(&watch.strand, timeout, settled)
    }

    /// Detached. Waits on a strand until `settled`; false after `timeout`.
    pub(crate) fn wait_body(strand: &Strand<P>, timeout: Option<Duration>, settled: impl Fn(&Body<P>) -> bool) -> bool {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut body = strand.body.lock();
        loop {
            if settled(&body) {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            body = strand.vacated.wait(body, left);
        }
    }
}
