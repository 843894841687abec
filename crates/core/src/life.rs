//! A loop's life: stop, drain, restart, close. The states stand in `state::Life`; the hub's mutex guards the life, and
//! every thread reads it there before it may wait, so nobody can sleep through a stop.

use core::time::Duration;
use std::time::Instant;

use crate::Payload;
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::hub::SeatShared;
use crate::points::reach;
use crate::poller;
use crate::post::{Origin, Refused};
use crate::state::{Life, RemovalReason};
use crate::sync::Arc;
use crate::watch::Finished;

impl<P: Payload> EventLoop<P> {
    /// Its life, a moment ago.
    pub fn life(&self) -> Life {
        self.hub.life()
    }

    /// Asks every joined thread to leave: after the handler it is in, or when everything queued has run.
    pub fn request_stop(&self, drain: bool) -> Result<(), Error> {
        self.check_fork()?;
        let mut hub = self.hub.lock();
        match (hub.life, drain) {
            (Life::Open, true) => self.hub.set_life(&mut hub, Life::Draining),
            (Life::Open, false) => self.hub.set_life(&mut hub, Life::Stopped { drained: false }),
            (Life::Draining, false) => self.hub.set_life(&mut hub, Life::Stopped { drained: true }),
            (Life::Draining, true) | (Life::Stopped { .. }, _) => {}
            (Life::Closed, _) => return Err(Error::Closed),
        }
        drop(hub);
        reach("stop.requested");
        let mut hub = self.hub.lock();
        let wake = self.hub.wake_all(&mut hub);
        let in_place = !drain && !hub.in_place.is_empty();
        drop(hub);
        self.wake(wake);
        if in_place {
            self.stop_in_place();
        }
        Ok(())
    }

    /// A drain that ends with a last message.
    pub fn drain_with_terminal(&self, payload: Option<P>, from: Origin) -> Result<(), Refused<P>> {
        if let Err(error) = self.check_fork() {
            return Err(Refused { error, payload });
        }
        let mut hub = self.hub.lock();
        let error = match hub.life {
            Life::Open => None,
            Life::Draining if from == Origin::Inside && hub.terminal.is_none() => None,
            Life::Closed => Some(Error::Closed),
            Life::Draining | Life::Stopped { .. } => Some(Error::Stopped),
        };
        if let Some(error) = error {
            drop(hub);
            return Err(Refused { error, payload });
        }
        hub.terminal = payload;
        self.hub.set_life(&mut hub, Life::Draining);
        let wake = self.hub.wake_all(&mut hub);
        drop(hub);
        self.wake(wake);
        Ok(())
    }

    /// Detached. Waits until every joined thread has left; false after `timeout`.
    pub fn wait_left(&self, timeout: Option<Duration>) -> bool {
        self.wait_changed(timeout, |seats, _| seats.is_empty())
    }

    /// Detached. Waits until the loop is open or closed; false after `timeout`.
    pub fn wait_open(&self, timeout: Option<Duration>) -> bool {
        self.wait_changed(timeout, |_, life| matches!(life, Life::Open | Life::Draining | Life::Closed))
    }

    fn wait_changed(&self, timeout: Option<Duration>, settled: impl Fn(&[Arc<SeatShared>], Life) -> bool) -> bool {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut hub = self.hub.lock();
        loop {
            if settled(&hub.seats, hub.life) {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            hub = self.hub.changed.wait(hub, left);
        }
    }

    /// Opens a stopped loop again.
    pub fn restart(&self) -> Result<(), Error> {
        self.check_fork()?;
        let mut hub = self.hub.lock();
        match hub.life {
            Life::Closed => Err(Error::Closed),
            Life::Open => Ok(()),
            Life::Draining | Life::Stopped { .. } if !hub.seats.is_empty() => {
                Err(Error::Inside { joined: hub.seats.len() })
            }
            Life::Draining | Life::Stopped { .. } => {
                self.hub.set_life(&mut hub, Life::Open);
                self.hub.changed.notify_all();
                Ok(())
            }
        }
    }

    /// Closes a loop that nobody is in: ends every watch, strand and timer. Returns what is owed, and how many messages
    /// never ran; the final callbacks are taken with [`Self::take_completions`].
    pub fn close(&self) -> Result<(Vec<Finished<P>>, usize), Error> {
        self.check_fork()?;
        let mut hub = self.hub.lock();
        if !hub.seats.is_empty() {
            return Err(Error::Inside { joined: hub.seats.len() });
        }
        self.hub.set_life(&mut hub, Life::Closed);
        let messages: Vec<P> = hub.messages.drain(..).collect();
        let urgent: Vec<P> = hub.urgent.drain(..).collect();
        let terminal = hub.terminal.take();
        // Completions stay: they are owed. Their places in the run queue go with the rest.
        let ready = core::mem::take(&mut hub.ready);
        self.hub.changed.notify_all();
        drop(hub);
        let mut lost = messages.len() + urgent.len() + usize::from(terminal.is_some());
        drop((messages, urgent, terminal, ready));
        let watches: Vec<_> =
            self.watches.lock().iter().filter_map(|(_, record)| Some(record.as_ref()?.watch.clone())).collect();
        let end = |watch| self.end_watch(watch, RemovalReason::LoopClosed);
        let mut finished: Vec<_> = watches.iter().filter_map(end).collect();
        self.end_sockets();
        let strands: Vec<_> = self.strands.lock().iter().map(|(_, strand)| strand.clone()).collect();
        for strand in strands {
            let closed = self.close_strand(&strand, None);
            lost += closed.messages.len();
            // A watch that was being added when the watches were collected.
            finished.extend(closed.finished);
        }
        let mut timers = self.timers.lock();
        let cancelled: Vec<P> = timers.tokens().into_iter().filter_map(|token| timers.cancel(token)).collect();
        drop(timers);
        drop(cancelled);
        // The numbers are forgotten before they are closed: a fork in between must not close another's.
        drop(self.remembered.lock().take());
        *self.poller.write() = poller::closed();
        Ok((finished, lost))
    }

    /// Takes the final callbacks that are owed, after `close`.
    pub fn take_completions(&self) -> Vec<P> {
        let mut hub = self.hub.lock();
        let ready = core::mem::take(&mut hub.ready);
        let completions = hub.completions.drain(..).collect();
        drop(hub);
        drop(ready);
        completions
    }
}
