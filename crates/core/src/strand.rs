//! A queue served by one thread at a time, in order.
//!
//! One mutex guards the word, the queue and who is inside; the words' arrows are in `state`. The queue holds small
//! entries that any thread may move (the leader is detached from the interpreter when it queues an event); the payloads
//! of messages lie beside it in the mail, which changes only in attached calls.
//!
//! Several watches may sit on one strand. Their words are guarded by the strand's mutex, so that "is its handler inside,
//! may it start" is one question with one answer.

use core::time::Duration;
use std::collections::VecDeque;

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::hub::Wake;
use crate::slots::Token;
use crate::state::{Life, Mode, Phase, RemovalReason, Schedule, StrandState, StrandWord};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, thread_number};
use crate::task::Task;
use crate::watch::{Finished, Occupant, Watch};

/// One thing to do, in its place in the order.
pub(crate) enum Entry<P: Payload> {
    /// The front of the ordinary mail.
    Message,
    /// The front of the library's own mail: final callbacks. Not counted against `max_pending`, never refused.
    Completion,
    /// The terminal message.
    Terminal,
    /// A watch's readiness; what it is stands in the watch's word.
    Watch(Arc<Watch<P>>),
    /// A timer that came due.
    Timer(Token),
    /// A task that shares the strand.
    Task(Arc<Task<P>>),
}

/// What the thread inside is running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inside {
    Nobody,
    Watch(Token),
    Timer,
    Message,
}

/// Payloads on their way. Allocated with the first of them: an idle watch's strand has none.
pub(crate) struct Mail<P> {
    pub(crate) ordinary: VecDeque<P>,
    pub(crate) urgent: VecDeque<P>,
    pub(crate) completions: VecDeque<P>,
    pub(crate) terminal: Option<P>,
    /// Whether the terminal message is in the queue (it may have no callback).
    pub(crate) terminal_in: bool,
    pub(crate) on_closed: Vec<P>,
    pub(crate) max_pending: Option<usize>,
    /// The watches on it after the first.
    pub(crate) more_watches: Vec<Token>,
}

/// What the strand's mutex guards.
pub(crate) struct Body<P: Payload> {
    pub(crate) word: StrandWord,
    pub(crate) inside: Inside,
    /// The thread inside, by [`crate::sync::thread_number`]; 0 with nobody.
    pub(crate) thread: u64,
    /// The user holds no handle to it any more: it leaves the loop's table when it has nothing left to do.
    pub(crate) abandoned: bool,
    /// Its end was told: the on_closed callbacks were handed out, its place in the loop's table given up.
    pub(crate) finished: bool,
    pub(crate) queue: VecDeque<Entry<P>>,
    pub(crate) mail: Option<Box<Mail<P>>>,
    pub(crate) first_watch: Token,
}

/// A queue served by one thread at a time, in order. Made by [`crate::EventLoop::strand`].
pub struct Strand<P: Payload> {
    pub(crate) token: Token,
    /// Belongs to one watch and ends with it.
    pub(crate) own: bool,
    /// What the user calls it; boxed because most strands are a watch's own and have none.
    #[allow(clippy::box_collection, reason = "8 bytes of an idle watch instead of 24")]
    pub(crate) name: Option<Box<String>>,
    /// The first of its timers. GUARDED BY the loop's timers.
    pub(crate) timers: AtomicU64,
    pub(crate) body: Mutex<Body<P>>,
    /// Somebody went out, or the strand was resumed. Waited for under `body`.
    pub(crate) vacated: Condvar,
    _counted: Counted,
}

impl<P: Payload> Strand<P> {
    pub(crate) fn new(token: Token, name: Option<String>, own: bool, max_pending: Option<usize>) -> Self {
        let mail = max_pending.map(|limit| Box::new(Mail { max_pending: Some(limit), ..Mail::default() }));
        Self {
            token,
            own,
            name: name.map(Box::new),
            timers: AtomicU64::new(Token::NONE.0),
            body: Mutex::new(Body {
                word: StrandWord::NEW,
                inside: Inside::Nobody,
                thread: 0,
                abandoned: own,
                finished: false,
                queue: VecDeque::new(),
                mail,
                first_watch: Token::NONE,
            }),
            vacated: Condvar::new(),
            _counted: Counted::new(Kind::Strands),
        }
    }

    /// What the user calls it, or a name made of its token.
    pub fn name(&self) -> String {
        self.name.as_deref().cloned().unwrap_or_else(|| format!("strand-{}", self.token.index()))
    }

    /// The token of the strand, unique in its loop.
    pub fn token(&self) -> Token {
        self.token
    }
}

impl<P> Default for Mail<P> {
    fn default() -> Self {
        Self {
            ordinary: VecDeque::new(),
            urgent: VecDeque::new(),
            completions: VecDeque::new(),
            terminal: None,
            terminal_in: false,
            on_closed: Vec::new(),
            max_pending: None,
            more_watches: Vec::new(),
        }
    }
}

impl<P: Payload> Body<P> {
    pub(crate) fn mail(&mut self) -> &mut Mail<P> {
        self.mail.get_or_insert_default()
    }

    /// Whether anything is queued, runnable or not.
    pub(crate) fn has_items(&self) -> bool {
        !self.queue.is_empty() || self.mail.as_ref().is_some_and(|mail| !mail.urgent.is_empty())
    }

    /// How many items are queued.
    pub(crate) fn items(&self) -> usize {
        self.queue.len() + self.mail.as_ref().map_or(0, |mail| mail.urgent.len())
    }

    pub(crate) fn attach(&mut self, watch: Token) {
        if self.first_watch == Token::NONE {
            self.first_watch = watch;
        } else {
            self.mail().more_watches.push(watch);
        }
    }

    pub(crate) fn detach(&mut self, watch: Token) {
        if self.first_watch == watch {
            self.first_watch = self.mail.as_mut().and_then(|mail| mail.more_watches.pop()).unwrap_or(Token::NONE);
        } else if let Some(mail) = &mut self.mail {
            mail.more_watches.retain(|other| *other != watch);
        }
    }

    pub(crate) fn watches(&self) -> Vec<Token> {
        let more = self.mail.iter().flat_map(|mail| mail.more_watches.iter().copied());
        [self.first_watch].into_iter().filter(|token| *token != Token::NONE).chain(more).collect()
    }

    pub(crate) fn has_watches(&self) -> bool {
        self.first_watch != Token::NONE
    }

    /// Every payload, for the collector.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = &P> {
        self.mail.iter().flat_map(|mail| {
            let queued = mail.ordinary.iter().chain(&mail.urgent).chain(&mail.completions);
            queued.chain(&mail.terminal).chain(&mail.on_closed)
        })
    }

    /// Takes every message out, in the order in which they would have run; completions stay.
    pub(crate) fn take_messages(&mut self) -> Vec<P> {
        self.queue.retain(|entry| matches!(entry, Entry::Completion | Entry::Task(_)));
        let Some(mail) = &mut self.mail else { return Vec::new() };
        mail.terminal_in = false;
        let mut messages: Vec<P> = mail.urgent.drain(..).collect();
        messages.extend(mail.ordinary.drain(..));
        messages.extend(mail.terminal.take());
        messages
    }
}

/// One strand, for `dump`.
#[derive(Clone, Debug)]
pub struct StrandView {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: StrandState,
    /// Queued items.
    pub items: usize,
    /// Whether a thread is inside.
    pub running: bool,
    /// Whether it belongs to one watch.
    pub own: bool,
}

/// A strand that was closed: what did not run, and the watches that ended with it.
pub struct ClosedStrand<P: Payload> {
    /// Messages that did not run, in order.
    pub messages: Vec<P>,
    /// Its watches.
    pub finished: Vec<Finished<P>>,
}

impl<P: Payload> EventLoop<P> {
    /// A strand that belongs to the caller, or to one watch.
    pub fn strand(&self, name: Option<String>, max_pending: Option<usize>) -> Result<Arc<Strand<P>>, Error> {
        self.check_open()?;
        Ok(self.new_strand(name, false, max_pending))
    }

    pub(crate) fn new_strand(&self, name: Option<String>, own: bool, max_pending: Option<usize>) -> Arc<Strand<P>> {
        let mut strands = self.strands.lock();
        let mut made = None;
        strands.insert(|token| made.insert(Arc::new(Strand::new(token, name, own, max_pending))).clone());
        match made {
            Some(strand) => strand,
            None => unreachable!("insert calls its argument"),
        }
    }

    /// Nothing on the strand starts until it is resumed.
    pub fn pause_strand(&self, strand: &Strand<P>) {
        strand.body.lock().word.pause();
    }

    /// Undoes `pause_strand`.
    pub fn resume_strand(&self, strand: &Arc<Strand<P>>) {
        let mut body = strand.body.lock();
        let more = body.has_items();
        let wake = match body.word.resume(more) {
            Schedule::Push => self.enqueue(self.hub.lock(), strand),
            Schedule::Leave => Wake::Nobody,
        };
        strand.vacated.notify_all();
        drop(body);
        self.wake(wake);
    }

    /// Detached. Waits until nobody else is inside the strand, or it was resumed; false after `timeout`.
    pub fn wait_strand(&self, strand: &Strand<P>, timeout: Option<Duration>) -> bool {
        Self::wait_body(strand, timeout, |body| occupant(body) != Occupant::Other || body.word.runnable())
    }

    /// Who is inside a strand now.
    pub fn strand_occupant(&self, strand: &Strand<P>) -> Occupant {
        occupant(&strand.body.lock())
    }

    /// What the user sees of a strand: its state and how many messages it holds.
    pub fn strand_view(&self, strand: &Strand<P>) -> StrandView {
        let body = strand.body.lock();
        StrandView {
            name: strand.name(),
            state: body.word.state(),
            items: body.items(),
            running: body.word.phase == Phase::Running,
            own: strand.own,
        }
    }

    /// Ends a strand at once. `on_closed` runs when nobody is inside any more.
    pub fn close_strand(&self, strand: &Arc<Strand<P>>, on_closed: Option<P>) -> ClosedStrand<P> {
        let mut body = strand.body.lock();
        if body.finished {
            drop(body);
            if let Some(on_closed) = on_closed {
                self.complete(None, on_closed);
            }
            return ClosedStrand { messages: Vec::new(), finished: Vec::new() };
        }
        if let Some(on_closed) = on_closed {
            body.mail().on_closed.push(on_closed);
        }
        let messages = body.take_messages();
        // In the step that takes them out: a post in between would be taken, and never be seen again.
        body.word.close();
        drop(body);
        ClosedStrand { messages, finished: self.end_strand(strand) }
    }

    /// Nothing further starts on the strand; its timers and watches end with it.
    pub(crate) fn end_strand(&self, strand: &Arc<Strand<P>>) -> Vec<Finished<P>> {
        let mut body = strand.body.lock();
        body.word.close();
        if let Some(mail) = &mut body.mail {
            mail.terminal_in = false;
        }
        let watches = body.watches();
        drop(body);
        self.orphan((false, strand.token));
        let reason = if self.life() == Life::Closed { RemovalReason::LoopClosed } else { RemovalReason::StrandClosed };
        let cancelled = self.timers.lock().cancel_all(strand);
        drop(cancelled);
        let watches: Vec<_> = watches.into_iter().filter_map(|token| self.watch(token)).collect();
        let finished = watches.iter().filter_map(|watch| self.end_watch(watch, reason)).collect();
        self.settle_strand(strand, strand.body.lock());
        finished
    }

    /// The user's handle to a strand is gone: it lives on only while it has something to do.
    pub fn abandon_strand(&self, strand: &Arc<Strand<P>>) {
        let mut body = strand.body.lock();
        body.abandoned = true;
        self.settle_strand(strand, body);
    }

    /// The user has a handle again (a watch's own strand was asked for).
    pub fn adopt_strand(&self, strand: &Strand<P>) {
        strand.body.lock().abandoned = false;
    }

    /// Finishes a strand that has ended and that nobody is inside of, once.
    pub(crate) fn settle_strand(&self, strand: &Arc<Strand<P>>, mut body: MutexGuard<'_, Body<P>>) {
        let terminal_in = body.mail.as_ref().is_some_and(|mail| mail.terminal_in);
        let spent = !body.has_items() && !terminal_in && !body.has_watches();
        let over = match body.word.mode {
            Mode::Closed => true,
            Mode::Closing => spent,
            Mode::Open => {
                body.abandoned
                    && spent
                    && body.word.phase == Phase::Idle
                    && strand.timers.load(Ordering::Relaxed) == Token::NONE.0
            }
        };
        if !over || body.finished || body.inside != Inside::Nobody || body.word.phase == Phase::Running {
            return;
        }
        body.finished = true;
        body.word.close();
        body.queue.clear();
        let mail = body.mail.take();
        drop(body);
        self.strands.lock().remove(strand.token);
        if let Some(mail) = mail {
            for callback in mail.completions.into_iter().chain(mail.on_closed) {
                self.complete(None, callback);
            }
        }
    }
}

fn occupant<P: Payload>(body: &Body<P>) -> Occupant {
    match body.inside {
        Inside::Nobody => Occupant::Nobody,
        _ if body.thread == thread_number() => Occupant::Me,
        _ => Occupant::Other,
    }
}
