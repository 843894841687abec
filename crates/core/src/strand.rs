//! A queue served by one thread at a time, in order.
//!
//! One mutex guards the word, the queue and who is inside; the words' arrows are in `state`. The queue holds small
//! entries that any thread may move (the leader is detached from the interpreter when it queues an event); the payloads
//! of messages lie beside it in the mail, which changes only in attached calls.
//!
//! Several watches may sit on one strand. Their words are guarded by the strand's mutex, so that "is its handler inside,
//! may it start" is one question with one answer.

use std::collections::VecDeque;

use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::slots::Token;
use crate::state::StrandWord;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Arc, Condvar, Mutex};
use crate::watch::Watch;

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
    /// Threads that wait for somebody to go out.
    pub(crate) waiters: u32,
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
                waiters: 0,
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
        self.queue.retain(|entry| matches!(entry, Entry::Completion));
        let Some(mail) = &mut self.mail else { return Vec::new() };
        mail.terminal_in = false;
        let mut messages: Vec<P> = mail.urgent.drain(..).collect();
        messages.extend(mail.ordinary.drain(..));
        messages.extend(mail.terminal.take());
        messages
    }
}
