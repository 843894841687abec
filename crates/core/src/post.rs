//! Putting messages in: on a strand, or on one of their own; and the final callbacks that are never refused.
//!
//! "Taken" and "refused" are decided under the same mutex as the loop's life: a message whose post returned runs, even if
//! the loop drains at the same moment. `docs/design/strand.md` has the steps.

use crate::Payload;
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::hub::{Ready, State, Wake};
use crate::points::reach;
use crate::state::{Life, Mode, Phase, Schedule};
use crate::strand::{Body, Entry, Strand};
use crate::sync::{Arc, MutexGuard};

/// Who posts: a handler of this loop, or anybody else. A drain takes only what its own handlers post.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A thread that is inside a handler of this loop.
    Inside,
    /// Any other.
    Outside,
}

/// Where in a strand's (or the loop's) order a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Last.
    Ordinary,
    /// Before the ordinary ones, after the urgent ones.
    Urgent,
}

/// A message that was not taken comes back to its sender.
pub struct Refused<P> {
    /// Why.
    pub error: Error,
    /// The message.
    pub payload: Option<P>,
}

impl<P: Payload> EventLoop<P> {
    /// Puts a message on a strand.
    pub fn post(&self, strand: &Arc<Strand<P>>, payload: P, place: Place, from: Origin) -> Result<Wake, Refused<P>> {
        let refuse = |error, payload| Err(Refused { error, payload: Some(payload) });
        if let Err(error) = self.check_taking(from) {
            return refuse(error, payload);
        }
        let mut body = strand.body.lock();
        if body.word.mode != Mode::Open {
            drop(body);
            return refuse(Error::StrandClosed, payload);
        }
        let mail = body.mail();
        match place {
            Place::Urgent => mail.urgent.push_back(payload),
            Place::Ordinary => {
                if let Some(limit) = mail.max_pending
                    && mail.ordinary.len() >= limit
                {
                    drop(body);
                    return refuse(Error::QueueFull { limit }, payload);
                }
                mail.ordinary.push_back(payload);
                body.queue.push_back(Entry::Message);
            }
        }
        let back = |body: &mut Body<P>| match place {
            Place::Urgent => body.mail().urgent.pop_back(),
            Place::Ordinary => {
                body.queue.pop_back();
                body.mail().ordinary.pop_back()
            }
        };
        self.schedule(strand, body, from, back)
    }

    /// Puts the last message on a strand: earlier ones run, later ones are refused.
    pub fn post_terminal(&self, strand: &Arc<Strand<P>>, payload: Option<P>, from: Origin) -> Result<Wake, Refused<P>> {
        if let Err(error) = self.check_taking(from) {
            return Err(Refused { error, payload });
        }
        let mut body = strand.body.lock();
        if body.word.mode != Mode::Open {
            drop(body);
            return Err(Refused { error: Error::StrandClosed, payload });
        }
        let mail = body.mail();
        mail.terminal = payload;
        mail.terminal_in = true;
        body.queue.push_back(Entry::Terminal);
        body.word.closing();
        let back = |body: &mut Body<P>| {
            body.queue.pop_back();
            body.word.mode = Mode::Open;
            let mail = body.mail();
            mail.terminal_in = false;
            mail.terminal.take()
        };
        self.schedule(strand, body, from, back)
    }

    /// Puts a strand that has got an item into the run queue, if it has to. The strand's lock is held until the hub has
    /// said yes: between "taken" and "refused" nothing can come in.
    fn schedule(
        &self,
        strand: &Arc<Strand<P>>,
        mut body: MutexGuard<'_, Body<P>>,
        from: Origin,
        back: impl FnOnce(&mut Body<P>) -> Option<P>,
    ) -> Result<Wake, Refused<P>> {
        let mut wake = Wake::Nobody;
        if body.word.schedule() == Schedule::Push {
            let hub = self.hub.lock();
            if let Err(error) = taking(hub.life, from) {
                drop(hub);
                body.word.phase = Phase::Idle;
                let payload = back(&mut body);
                drop(body);
                return Err(Refused { error, payload });
            }
            wake = self.enqueue(hub, strand);
        }
        drop(body);
        reach("post.queued");
        Ok(wake)
    }

    /// Puts a strand whose word said `Push` at the tail of the run queue, says whom to wake, and lets go of the hub: a
    /// caller may have decided under the same lock that there is still somebody to run it.
    pub(crate) fn enqueue(&self, mut hub: MutexGuard<'_, State<P>>, strand: &Arc<Strand<P>>) -> Wake {
        hub.ready.push_back(Ready::Strand(strand.clone()));
        self.hub.wake_for_work(&mut hub)
    }

    fn check_taking(&self, from: Origin) -> Result<(), Error> {
        self.check_fork()?;
        taking(self.hub.life(), from)
    }

    /// Puts a message on a strand of its own.
    pub fn post_alone(&self, payload: P, place: Place, from: Origin) -> Result<Wake, Refused<P>> {
        if let Err(error) = self.check_fork() {
            return Err(Refused { error, payload: Some(payload) });
        }
        let mut hub = self.hub.lock();
        if let Err(error) = taking(hub.life, from) {
            drop(hub);
            return Err(Refused { error, payload: Some(payload) });
        }
        match place {
            Place::Urgent => hub.urgent.push_back(payload),
            Place::Ordinary => {
                hub.messages.push_back(payload);
                hub.ready.push_back(Ready::Message);
            }
        }
        let wake = self.hub.wake_for_work(&mut hub);
        drop(hub);
        reach("post.queued");
        Ok(wake)
    }

    /// Queues a final callback: on the strand if it still runs things, else on a strand of its own. Never refused.
    pub fn complete(&self, strand: Option<&Arc<Strand<P>>>, payload: P) {
        self.queue_completion(strand, payload, |_| true).unwrap_or_else(drop);
    }

    /// As [`Self::complete`], for whoever may come after the loop's end: what nobody would run any more comes back.
    pub fn complete_unless_closed(&self, strand: &Arc<Strand<P>>, payload: P) -> Result<(), P> {
        self.queue_completion(Some(strand), payload, |life| life != Life::Closed)
    }

    fn queue_completion(
        &self,
        strand: Option<&Arc<Strand<P>>>,
        payload: P,
        takes: impl FnOnce(Life) -> bool,
    ) -> Result<(), P> {
        if let Some(strand) = strand {
            let mut body = strand.body.lock();
            // A loop that is being closed ends its strands after its life, and takes what they still hold.
            if body.word.mode != Mode::Closed {
                body.mail().completions.push_back(payload);
                body.queue.push_back(Entry::Completion);
                let wake = match body.word.schedule() {
                    Schedule::Push => self.enqueue(self.hub.lock(), strand),
                    Schedule::Leave => Wake::Nobody,
                };
                drop(body);
                self.wake(wake);
                return Ok(());
            }
        }
        let mut hub = self.hub.lock();
        if !takes(hub.life) {
            drop(hub);
            return Err(payload);
        }
        hub.completions.push_back(payload);
        hub.ready.push_back(Ready::Completion);
        let wake = self.hub.wake_for_work(&mut hub);
        drop(hub);
        self.wake(wake);
        Ok(())
    }
}

/// Whether a loop in this life takes a message from there.
fn taking(life: Life, from: Origin) -> Result<(), Error> {
    match life {
        Life::Closed => Err(Error::Closed),
        Life::Draining | Life::Stopped { drained: true } if from == Origin::Outside => Err(Error::Stopped),
        _ => Ok(()),
    }
}
