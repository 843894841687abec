//! What was reported of a watch, on its way to the handler and after it.

use super::{Finished, Watch};
use crate::Payload;
use crate::event_loop::EventLoop;
use crate::points::reach;
use crate::poller::Events;
use crate::slots::Token;
use crate::state::Schedule;
use crate::state::watch::{LEVEL, PAUSED, PENDING, REMOVED, UNREGISTERED};
use crate::strand::{Body, Entry, Inside, Strand};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, thread_number};

/// After so many handlers of a watch the kernel is asked whether it still knows the number: a descriptor that was closed
/// behind the loop's back is reported at most so often.
const UNCHECKED: u8 = 16;

/// What the leader does about a report.
pub(crate) enum Noted<P: Payload> {
    /// Put the strand into the run queue.
    Ready(Arc<Strand<P>>),
    /// Nothing: it is in a queue, or it is reported again when it is wanted.
    Known,
    /// Make the kernel silent: it would repeat itself, and the handler does not run soon.
    Mute(Arc<Watch<P>>),
    /// The watch is out of the kernel, and this should have been the last report.
    Stale(Token),
}

/// What the thread inside a strand does with a watch that it took off the queue.
pub(crate) enum Dispatch<P: Payload> {
    /// Its handler is inside now.
    Run(P, Events),
    /// Nothing: it was paused or removed meanwhile.
    Skip,
    /// Nothing that is still asked for: arm it again.
    Rearm,
    /// The descriptor is gone.
    Gone,
}

impl<P: Payload> EventLoop<P> {
    /// The leader, detached: an event was reported.
    pub(crate) fn note_event(&self, watch: Arc<Watch<P>>, events: Events) -> Noted<P> {
        let strand = watch.strand.clone();
        let mut body = strand.body.lock();
        if watch.has(UNREGISTERED) {
            return Noted::Stale(watch.token);
        }
        if watch.has(REMOVED | PAUSED) || body.inside == Inside::Watch(watch.token) {
            return Noted::Mute(watch);
        }
        watch.pending.store(watch.pending.load(Ordering::Relaxed) | events.0, Ordering::Relaxed);
        let runnable = body.word.runnable();
        if watch.has(PENDING) {
            return if runnable && self.by_level() { Noted::Known } else { Noted::Mute(watch) };
        }
        watch.set(PENDING);
        if !runnable && watch.has(LEVEL) {
            body.queue.push_back(Entry::Watch(watch.clone()));
            return Noted::Mute(watch);
        }
        body.queue.push_back(Entry::Watch(watch));
        let schedule = body.word.schedule();
        drop(body);
        if schedule == Schedule::Push { Noted::Ready(strand) } else { Noted::Known }
    }

    /// The thread inside the strand: may the handler run? If so it is inside when this returns.
    pub(crate) fn dispatch(&self, watch: &Watch<P>, body: &mut Body<P>) -> Dispatch<P> {
        watch.unset(PENDING);
        let pending = Events(watch.pending.load(Ordering::Relaxed));
        watch.pending.store(0, Ordering::Relaxed);
        if watch.has(REMOVED | PAUSED) {
            return Dispatch::Skip;
        }
        if pending.contains(Events::GONE) {
            return Dispatch::Gone;
        }
        let always = Events::HANGUP.union(Events::ERROR);
        let events = Events(pending.0 & watch.interest().union(always).0);
        if events.is_empty() {
            return Dispatch::Rearm;
        }
        body.inside = Inside::Watch(watch.token);
        body.thread = thread_number();
        // It is inside, so its record stays until it is out.
        match self.watches.lock().get(watch.token) {
            Some(Some(record)) => Dispatch::Run(record.payload.duplicate(), events),
            _ => Dispatch::Skip,
        }
    }

    /// The thread that leaves the handler: the last one to be inside ends what was removed meanwhile, or arms again.
    /// If there is nothing to do for it and nothing more on the strand, it leaves that too, and takes it out of `turn`.
    pub(crate) fn handler_ended(
        &self,
        watch: &Arc<Watch<P>>,
        turn: &mut Option<Arc<Strand<P>>>,
    ) -> Option<Finished<P>> {
        let mut body = watch.strand.body.lock();
        body.inside = Inside::Nobody;
        body.thread = 0;
        watch.strand.vacated.notify_all();
        if watch.has(REMOVED) {
            return self.try_finish(watch, body);
        }
        let unchecked = watch.unchecked.load(Ordering::Relaxed).saturating_add(1);
        // Whoever pauses it meanwhile tells the kernel himself.
        let armed = watch.has(LEVEL) && self.by_level() && unchecked < UNCHECKED;
        watch.unchecked.store(unchecked, Ordering::Relaxed);
        if armed && !body.has_items() {
            *turn = None;
            self.end_strands_turn(&watch.strand, body);
        } else {
            drop(body);
        }
        reach("watch.rearm");
        if armed { None } else { self.sync_or_end(watch) }
    }
}
