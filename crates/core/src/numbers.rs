//! Which watch owns a descriptor number.
//!
//! `epoll_ctl` looks up by number, so after a close and a reuse an old watch's re-arm would rewrite the registration of
//! the new one, and its removal would delete it. So every call that changes the kernel's registration of a number is made
//! under that number's lock, and only if the caller's watch still owns the number. The lock is also what makes "read the
//! watch's word, then tell the kernel" one step: whoever tells last tells the latest.
//!
//! Whoever has to have every registration stand still, to make the set anew (`dead`), takes all locks.
//!
//! Numbers are small and dense: a table of shards, each a vector of tokens.

use std::os::fd::RawFd;

use crate::slots::Token;
use crate::sync::{Mutex, MutexGuard};

const SHARDS: usize = if cfg!(loom) { 2 } else { 64 };

pub(crate) struct Numbers {
    shards: Box<[Mutex<Vec<Token>>]>,
}

/// One number's lock, held. (It is shared with the numbers of the same shard.)
pub(crate) struct Number<'a> {
    shard: MutexGuard<'a, Vec<Token>>,
    index: usize,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Vec::new())).collect() }
    }

    /// Waits for the lock of a number that is not negative.
    pub(crate) fn lock(&self, fd: RawFd) -> Number<'_> {
        let fd = fd as usize;
        Number { shard: self.shards[fd % SHARDS].lock(), index: fd / SHARDS }
    }

    /// Waits for every lock, in order: nobody else holds more than one.
    pub(crate) fn lock_all(&self) -> AllNumbers<'_> {
        AllNumbers { shards: self.shards.iter().map(Mutex::lock).collect() }
    }
}

/// Every number's lock, held.
pub(crate) struct AllNumbers<'a> {
    shards: Vec<MutexGuard<'a, Vec<Token>>>,
}

impl AllNumbers<'_> {
    /// The numbers that somebody owns.
    pub(crate) fn owned(&self) -> impl Iterator<Item = (RawFd, Token)> {
        self.shards.iter().enumerate().flat_map(|(first, shard)| {
            let numbered =
                shard.iter().enumerate().map(move |(index, token)| ((index * SHARDS + first) as RawFd, *token));
            numbered.filter(|(_, token)| *token != Token::NONE)
        })
    }
}

impl Number<'_> {
    /// The token of the watch that owns the number, or `Token::NONE`.
    pub(crate) fn owner(&self) -> Token {
        self.shard.get(self.index).copied().unwrap_or(Token::NONE)
    }

    /// Names the owner; returns the one before.
    pub(crate) fn replace(&mut self, token: Token) -> Token {
        if self.shard.len() <= self.index {
            self.shard.resize(self.index + 1, Token::NONE);
        }
        core::mem::replace(&mut self.shard[self.index], token)
    }

    /// Nobody owns it any more.
    pub(crate) fn clear(&mut self) {
        if let Some(entry) = self.shard.get_mut(self.index) {
            *entry = Token::NONE;
        }
    }
}
