//! A watch comes: in the table, on its strand, in the kernel.

use std::os::fd::RawFd;

use super::{Added, Record, Watch};
use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::points::reach;
use crate::poller::{Events, PollError};
use crate::slots::Token;
use crate::state::{Life, Mode, RemovalReason};
use crate::strand::Strand;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

impl<P: Payload> EventLoop<P> {
    /// Registers a descriptor. `make` builds the payload from the watch (attached, under no lock).
    ///
    /// Without a strand the watch gets one of its own. Returns the watch and the one it displaced, if the number had
    /// been closed and used again behind the loop's back.
    pub fn add<E: From<Error>>(
        &self,
        fd: RawFd,
        events: Events,
        strand: Option<Arc<Strand<P>>>,
        make: impl FnOnce(&Arc<Watch<P>>) -> Result<P, E>,
    ) -> Result<Added<P>, E> {
        self.check_open()?;
        if fd < 0 {
            return Err(Error::Poll(PollError::BadDescriptor).into());
        }
        let own = strand.is_none();
        let strand = strand.unwrap_or_else(|| self.new_strand(None, true, None));
        let watch = self.insert_watch(fd, events, (strand, own), make)?;
        let refused = match self.register(&watch, events) {
            Ok(displaced) => {
                reach("add.registered");
                // The loop may have been closed meanwhile, before it could see the watch.
                if self.hub.life() != Life::Closed {
                    return Ok((watch, displaced.and_then(|old| self.end_watch(&old, RemovalReason::FdGone))));
                }
                Error::Closed
            }
            // The poller may be closed already, and refuse everything.
            Err(_) if self.hub.life() == Life::Closed => Error::Closed,
            Err(error) => error,
        };
        match self.end_watch(&watch, RemovalReason::Removed) {
            Some(finished) => {
                drop(finished);
                Err(refused.into())
            }
            // Its strand or its loop was closed after it had been taken, and pays what is owed to it.
            None => Ok((watch, None)),
        }
    }

    /// The table entry comes before the kernel's: an event that is reported at once must find it.
    pub(super) fn insert_watch<E: From<Error>>(
        &self,
        fd: RawFd,
        events: Events,
        (strand, own_strand): (Arc<Strand<P>>, bool),
        make: impl FnOnce(&Arc<Watch<P>>) -> Result<P, E>,
    ) -> Result<Arc<Watch<P>>, E> {
        // A token is needed before the payload can be made, and the payload must not be made under a lock.
        let token = self.watches.lock().insert(|_| None);
        let watch = Arc::new(Watch {
            fd,
            token,
            strand,
            own_strand,
            word: AtomicU32::new(0),
            interest: AtomicU32::new(events.0),
            pending: AtomicU32::new(0),
            reason: AtomicU8::new(0),
            unchecked: AtomicU8::new(0),
            payer: AtomicU64::new(0),
            _counted: Counted::new(Kind::Watches),
        });
        let refused = match make(&watch) {
            Err(error) => error,
            Ok(payload) => {
                let mut body = watch.strand.body.lock();
                if body.word.mode == Mode::Open {
                    body.attach(token);
                    // Under the strand's lock: a strand that closes now finds the watch in the table.
                    if let Some(record) = self.watches.lock().get_mut(token) {
                        *record = Some(Record { watch: watch.clone(), payload });
                    }
                    drop(body);
                    return Ok(watch);
                }
                drop(body);
                // A strand of its own was closed with the loop.
                if self.hub.life() == Life::Closed { Error::Closed.into() } else { Error::StrandClosed.into() }
            }
        };
        self.watches.lock().remove(token);
        self.settle_strand(&watch.strand, watch.strand.body.lock());
        Err(refused)
    }

    pub(super) fn register(&self, watch: &Arc<Watch<P>>, events: Events) -> Result<Option<Arc<Watch<P>>>, Error> {
        let mut number = self.numbers.lock(watch.fd);
        if let Some(reason) = watch.removed() {
            // It ended before it could be registered: `end_watch` sets the word first, then comes for the number.
            return Err(Error::WatchRemoved { reason });
        }
        let body = watch.strand.body.lock();
        let mode = self.arming(watch, true);
        drop(body);
        self.poller().add(watch.fd, watch.token.0, events, mode)?;
        // ADD succeeded although the table names another: that one's descriptor is gone, and it must never touch this
        // number again.
        let old = number.replace(watch.token);
        drop(number);
        self.displaced(old);
        Ok(self.watch(old))
    }

    /// The watch behind a token.
    pub(crate) fn watch(&self, token: Token) -> Option<Arc<Watch<P>>> {
        self.watches.lock().get(token)?.as_ref().map(|record| record.watch.clone())
    }

    /// The payload of the watch that owns a number.
    pub fn get(&self, fd: RawFd) -> Option<P> {
        if fd < 0 {
            return None;
        }
        let token = self.numbers.lock(fd).owner();
        self.watches.lock().get(token)?.as_ref().map(|record| record.payload.duplicate())
    }
}
