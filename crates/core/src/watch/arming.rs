//! What the kernel is told of a watch.

use super::{Finished, Watch};
use crate::Payload;
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::points::reach;
use crate::poller::{Events, Mode as PollMode};
use crate::state::RemovalReason;
use crate::state::watch::{LEVEL, PAUSED, REMOVED};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

impl<P: Payload> EventLoop<P> {
    /// How a watch is to be armed, and the flag that says so. Under its number's lock and its strand's.
    pub(super) fn arming(&self, watch: &Watch<P>, wanted: bool) -> PollMode {
        if wanted && self.by_level() {
            watch.set(LEVEL);
            PollMode::Level
        } else {
            watch.unset(LEVEL);
            PollMode::OneShot
        }
    }

    /// Tells the kernel what the watch's word says now. Err if the descriptor is gone.
    pub(super) fn sync_kernel(&self, watch: &Watch<P>) -> Result<(), Error> {
        let number = self.numbers.lock(watch.fd);
        if number.owner() != watch.token {
            // Removed (then there is nothing to tell), or displaced by a watch on the number's next descriptor.
            return Ok(());
        }
        let body = watch.strand.body.lock();
        let interest = watch.interest();
        let wanted = watch.wanted(&body);
        let mode = self.arming(watch, wanted);
        watch.unchecked.store(0, Ordering::Relaxed);
        drop(body);
        if wanted {
            self.poller().modify(watch.fd, watch.token.0, interest, mode)?;
        } else {
            // Perhaps it is disarmed already, by its last report: to know, one would have to order reports and armings.
            self.poller().disarm(watch.fd, watch.token.0)?;
        }
        Ok(())
    }

    /// As [`Self::sync_kernel`]; a watch whose descriptor is gone ends here.
    pub(crate) fn sync_or_end(&self, watch: &Arc<Watch<P>>) -> Option<Finished<P>> {
        match self.sync_kernel(watch) {
            Ok(()) => None,
            Err(_) => self.end_watch(watch, RemovalReason::FdGone),
        }
    }

    /// Changes what is reported; while the handler runs or the watch is paused it takes effect afterwards.
    pub fn modify(&self, watch: &Arc<Watch<P>>, events: Events) -> (Result<(), Error>, Option<Finished<P>>) {
        if let Err(error) = self.check_open() {
            return (Err(error), None);
        }
        let body = watch.strand.body.lock();
        if watch.has(REMOVED) {
            drop(body);
            return (Err(Error::WatchRemoved { reason: watch.reason() }), None);
        }
        watch.interest.store(events.0, Ordering::Relaxed);
        drop(body);
        let finished = self.sync_or_end(watch);
        let result = match watch.removed() {
            Some(reason) if finished.is_some() => Err(Error::WatchRemoved { reason }),
            _ => Ok(()),
        };
        (result, finished)
    }

    /// No handler of it starts until `resume`. A flag.
    pub fn pause(&self, watch: &Arc<Watch<P>>) -> Option<Finished<P>> {
        let body = watch.strand.body.lock();
        if watch.has(REMOVED) {
            return None;
        }
        watch.set(PAUSED);
        drop(body);
        reach("pause.word");
        self.sync_or_end(watch)
    }

    /// Undoes `pause`; what is ready is reported again by the arming.
    pub fn resume(&self, watch: &Arc<Watch<P>>) -> (Result<(), Error>, Option<Finished<P>>) {
        if let Err(error) = self.check_open() {
            return (Err(error), None);
        }
        let body = watch.strand.body.lock();
        if watch.has(REMOVED) {
            drop(body);
            return (Err(Error::WatchRemoved { reason: watch.reason() }), None);
        }
        watch.unset(PAUSED);
        watch.strand.vacated.notify_all();
        drop(body);
        (Ok(()), self.sync_or_end(watch))
    }

    /// A second thread has joined, and nothing is armed by level from now on: arms what is for one report. Else that
    /// thread's first poll would report again whatever the first one has found and not yet handled.
    pub(crate) fn arm_for_one_report(&self) -> Vec<Finished<P>> {
        let watches: Vec<_> = {
            let watches = self.watches.lock();
            watches.iter().filter_map(|(_, record)| Some(record.as_ref()?.watch.clone())).collect()
        };
        watches.iter().filter(|watch| watch.has(LEVEL)).filter_map(|watch| self.sync_or_end(watch)).collect()
    }

    /// The leader, detached: makes the kernel silent, or tells it the latest. False if it does not know the number: then
    /// the handler's end, or the watch's next use, ends the watch.
    pub(crate) fn mute(&self, watch: &Watch<P>) -> bool {
        let number = self.numbers.lock(watch.fd);
        let level = watch.has(LEVEL);
        drop(number);
        // Without LEVEL the kernel is silent by now: whoever was about to tell it so held the lock. To tell it again would
        // make it repeat a hang-up, which a disarmed registration reports once.
        !level || self.sync_kernel(watch).is_ok()
    }
}
