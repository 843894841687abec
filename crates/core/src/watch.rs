//! One descriptor's registration.
//!
//! A watch is armed for one report: it waits in its strand's queue (PENDING), its handler runs, and only then the kernel is
//! armed again. Or, while one thread turns the loop, it is armed by level and stays so (LEVEL): nobody polls beside the
//! handler, and what is reported once more is dropped. Either way a handler which read a part is called again, and
//! readiness which was ignored (paused, stopped) is reported again by the next arming.
//!
//! Every change goes the same way: first the watch's word, under its strand's mutex; then the kernel, under the lock of
//! its number ([`EventLoop::sync_kernel`] reads the word there, so the last to tell the kernel tells it the latest); then,
//! if the caller may wait, the handler that is inside. `docs/design/watch.md` names the races.

use core::time::Duration;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::points::reach;
use crate::poller::{Events, Mode as PollMode, PollError};
use crate::slots::Token;
use crate::state::watch::{FINISHED, LEVEL, PAUSED, PENDING, REMOVED, UNREGISTERED};
use crate::state::{Life, Mode, RemovalReason, Schedule};
use crate::strand::{Body, Entry, Inside, Strand};
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, MutexGuard, thread_number};

/// After so many handlers of a watch the kernel is asked whether it still knows the number: a descriptor that was closed
/// behind the loop's back is reported at most so often.
const UNCHECKED: u8 = 16;

/// One descriptor's registration. Made by [`EventLoop::add`].
pub struct Watch<P: Payload> {
    fd: RawFd,
    token: Token,
    strand: Arc<Strand<P>>,
    /// The strand was made for it and ends with it; another watch may sit there too.
    own_strand: bool,
    /// The flags of `state::watch`. GUARDED BY `strand.body`; atomic only so that it can be shared.
    word: AtomicU32,
    /// What to report. GUARDED BY `strand.body`.
    interest: AtomicU32,
    /// What was reported and not yet delivered. GUARDED BY `strand.body`.
    pending: AtomicU32,
    /// A `RemovalReason`, with REMOVED. GUARDED BY `strand.body`.
    reason: AtomicU8,
    /// Handlers that ended without a word to the kernel. GUARDED BY `strand.body`.
    unchecked: AtomicU8,
    /// The thread that is ending it or holds its `Finished`, 0 for none: whoever waits for the end of the watch waits for
    /// the paying too. GUARDED BY `strand.body`.
    payer: AtomicU64,
    _counted: Counted,
}

/// A watch that has ended: its payload, and whatever is owed to it, go back to the seam, exactly once. Whoever waits for
/// the watch to end waits until this is dropped.
#[must_use]
pub struct Finished<P: Payload> {
    /// The watch.
    pub watch: Arc<Watch<P>>,
    /// What the loop carried for it; to be taken.
    pub payload: Option<P>,
    /// Why it ended.
    pub reason: RemovalReason,
}

impl<P: Payload> Drop for Finished<P> {
    fn drop(&mut self) {
        let strand = &self.watch.strand;
        let body = strand.body.lock();
        self.watch.payer.store(0, Ordering::Relaxed);
        if body.waiters > 0 {
            strand.vacated.notify_all();
        }
    }
}

/// A watch just registered, and the one it displaced.
pub type Added<P> = (Arc<Watch<P>>, Option<Finished<P>>);

/// Who is inside a watch's handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occupant {
    /// Nobody: nothing of it runs, and nothing starts.
    Nobody,
    /// The calling thread.
    Me,
    /// Another thread.
    Other,
}

/// What the loop keeps for a registered watch.
pub(crate) struct Record<P: Payload> {
    pub(crate) watch: Arc<Watch<P>>,
    pub(crate) payload: P,
}

impl<P: Payload> Watch<P> {
    /// The descriptor's number.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Its token, unique in its loop.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The strand that its handler runs on.
    pub fn strand(&self) -> &Arc<Strand<P>> {
        &self.strand
    }

    /// What it reports.
    pub fn interest(&self) -> Events {
        Events(self.interest.load(Ordering::Relaxed))
    }

    /// Whether its events are held back.
    pub fn paused(&self) -> bool {
        self.word.load(Ordering::Relaxed) & PAUSED != 0
    }

    /// Why it was removed, if it was.
    pub fn removed(&self) -> Option<RemovalReason> {
        // ORDER: Acquire; pairs with the Release in `EventLoop::end_watch`, which stores the reason first.
        (self.word.load(Ordering::Acquire) & REMOVED != 0).then(|| self.reason())
    }

    fn reason(&self) -> RemovalReason {
        match self.reason.load(Ordering::Relaxed) {
            1 => RemovalReason::Removed,
            2 => RemovalReason::FdGone,
            3 => RemovalReason::HandlerError,
            4 => RemovalReason::StrandClosed,
            _ => RemovalReason::LoopClosed,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.word.load(Ordering::Relaxed) & flag != 0
    }

    fn set(&self, flag: u32) {
        self.write_word(self.word.load(Ordering::Relaxed) | flag);
    }

    fn unset(&self, flag: u32) {
        self.write_word(self.word.load(Ordering::Relaxed) & !flag);
    }

    /// Under the strand's mutex, so that nobody else writes between the load and the store.
    fn write_word(&self, word: u32) {
        // ORDER: Release; publishes `reason` to `removed`. Everything else is ordered by the strand's mutex.
        self.word.store(word, Ordering::Release);
    }

    /// Whether it may be reported: armed, of whichever kind.
    fn wanted(&self, body: &Body<P>) -> bool {
        !self.has(PAUSED | PENDING | REMOVED) && body.inside != Inside::Watch(self.token)
    }

    /// How the kernel has it armed, or is just being told to.
    pub(crate) fn armed(&self) -> (Events, PollMode) {
        let body = self.strand.body.lock();
        if self.has(LEVEL) {
            (self.interest(), PollMode::Level)
        } else if self.wanted(&body) {
            (self.interest(), PollMode::OneShot)
        } else {
            (Events::NONE, PollMode::OneShot)
        }
    }

    /// Who is inside, as far as `remove` and `pause` have to know. The strand of its own ends with the watch, so after a
    /// removal its timers count too.
    fn occupant(&self, body: &Body<P>) -> Occupant {
        let inside = match body.inside {
            Inside::Watch(token) => token == self.token,
            Inside::Timer => self.own_strand && self.has(REMOVED),
            Inside::Nobody | Inside::Message => false,
        };
        let thread = if inside { body.thread } else { self.payer.load(Ordering::Relaxed) };
        match thread {
            0 => Occupant::Nobody,
            thread if thread == thread_number() => Occupant::Me,
            _ => Occupant::Other,
        }
    }
}

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
    fn insert_watch<E: From<Error>>(
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

    fn register(&self, watch: &Arc<Watch<P>>, events: Events) -> Result<Option<Arc<Watch<P>>>, Error> {
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

    /// How a watch is to be armed, and the flag that says so. Under its number's lock and its strand's.
    fn arming(&self, watch: &Watch<P>, wanted: bool) -> PollMode {
        if wanted && self.by_level() {
            watch.set(LEVEL);
            PollMode::Level
        } else {
            watch.unset(LEVEL);
            PollMode::OneShot
        }
    }

    /// Tells the kernel what the watch's word says now. Err if the descriptor is gone.
    fn sync_kernel(&self, watch: &Watch<P>) -> Result<(), Error> {
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
        if body.waiters > 0 {
            watch.strand.vacated.notify_all();
        }
        drop(body);
        (Ok(()), self.sync_or_end(watch))
    }

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
        if body.inside == Inside::Watch(watch.token) {
            watch.payer.store(0, Ordering::Relaxed);
        }
        self.try_finish(watch, body)
    }

    /// Hands the ended watch out, once, as soon as it is out of the kernel and nobody is in its handler.
    fn try_finish(&self, watch: &Arc<Watch<P>>, mut body: MutexGuard<'_, Body<P>>) -> Option<Finished<P>> {
        if !watch.has(UNREGISTERED) || watch.has(FINISHED) || body.inside == Inside::Watch(watch.token) {
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
            body.waiters += 1;
            body = strand.vacated.wait(body, left);
            body.waiters -= 1;
        }
    }

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
        if body.waiters > 0 {
            watch.strand.vacated.notify_all();
        }
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
