//! A thread in a strand: in, from item to item, and out.

use super::{Item, STRAND_BUDGET};
use crate::Payload;
use crate::event_loop::EventLoop;
use crate::hub::Ready;
use crate::points::reach;
use crate::seat::{Current, Seat};
use crate::state::{Begin, RemovalReason, Schedule};
use crate::strand::{Body, Entry, Inside, Strand};
use crate::sync::{Arc, MutexGuard, thread_number};
use crate::watch::Dispatch;

impl<P: Payload> EventLoop<P> {
    /// Goes into a strand that was taken off the run queue.
    pub(super) fn begin(&self, strand: Arc<Strand<P>>, seat: &mut Seat<P>) -> Option<Item<P>> {
        reach("strand.begin");
        let mut body = strand.body.lock();
        match body.word.begin() {
            Begin::Rest => {
                // A strand closed while it was queued is finished here, by the thread that took it off.
                self.settle_strand(&strand, body);
                return None;
            }
            // One tick is what is ready at its start, all of it.
            Begin::Run if seat.options.one_tick => seat.budget = body.items(),
            Begin::Run => seat.budget = body.items().min(STRAND_BUDGET),
        }
        let item = self.take(&strand, body, seat);
        seat.turn = Some(strand);
        if item.is_none() {
            self.end_turn(seat);
        }
        item
    }

    /// Goes out of the strand.
    pub(crate) fn end_turn(&self, seat: &mut Seat<P>) {
        if let Some(strand) = seat.turn.take() {
            self.end_strands_turn(&strand, strand.body.lock());
        }
    }

    /// As [`Self::end_turn`], with the strand's lock in hand.
    pub(crate) fn end_strands_turn(&self, strand: &Arc<Strand<P>>, mut body: MutexGuard<'_, Body<P>>) {
        let more = body.has_items();
        match body.word.end(more) {
            Schedule::Push => {
                drop(body);
                let mut hub = self.hub.lock();
                hub.ready.push_back(Ready::Strand(strand.clone()));
            }
            Schedule::Leave => self.settle_strand(strand, body),
        }
    }

    /// The next item of the strand that the thread is in; the item is inside when this returns it. `body` is the strand's.
    pub(super) fn take<'a>(
        &self,
        strand: &'a Arc<Strand<P>>,
        mut body: MutexGuard<'a, Body<P>>,
        seat: &mut Seat<P>,
    ) -> Option<Item<P>> {
        loop {
            if !body.word.runnable() || seat.budget == 0 {
                return None;
            }
            seat.budget -= 1;
            let urgent = body.mail.as_mut().and_then(|mail| mail.urgent.pop_front());
            let (current, item) = if let Some(urgent) = urgent {
                (Current::Message, Some(Item::Message(urgent)))
            } else {
                match body.queue.pop_front() {
                    None => return None,
                    Some(Entry::Message) => (Current::Message, body.mail().ordinary.pop_front().map(Item::Message)),
                    Some(Entry::Completion) => {
                        (Current::Message, body.mail().completions.pop_front().map(Item::Completion))
                    }
                    Some(Entry::Terminal) => {
                        let terminal = body.mail().terminal.take().map(Item::Terminal);
                        if terminal.is_none() {
                            drop(body);
                            seat.finished.extend(self.end_strand(strand));
                            return None;
                        }
                        (Current::Terminal, terminal)
                    }
                    Some(Entry::Timer(token)) => {
                        (Current::Timer(token), self.timers.lock().begin(token).map(Item::Timer))
                    }
                    Some(Entry::Task(task)) => (Current::Message, task.begin().then(|| Item::Task(task))),
                    Some(Entry::Watch(watch)) => match self.dispatch(&watch, &mut body) {
                        Dispatch::Run(payload, events) => {
                            drop(body);
                            self.started(seat, Current::Watch(watch.clone()));
                            return Some(Item::Watch(watch, payload, events));
                        }
                        Dispatch::Skip => continue,
                        Dispatch::Rearm => {
                            drop(body);
                            seat.finished.extend(self.sync_or_end(&watch));
                            body = strand.body.lock();
                            continue;
                        }
                        Dispatch::Gone => {
                            drop(body);
                            seat.finished.extend(self.end_watch(&watch, RemovalReason::FdGone));
                            body = strand.body.lock();
                            continue;
                        }
                    },
                }
            };
            let Some(item) = item else { continue };
            body.inside = if matches!(current, Current::Timer(_)) { Inside::Timer } else { Inside::Message };
            body.thread = thread_number();
            drop(body);
            self.started(seat, current);
            return Some(item);
        }
    }
}
