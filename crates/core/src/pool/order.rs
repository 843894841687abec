//! Who comes before whom.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Job, Key, Pool, State};
use crate::Payload;
use crate::slots::Token;

/// Whose front a job is.
#[derive(Clone, Copy)]
pub(crate) enum Front {
    Resumed,
    Queue,
    Slow,
}

impl<P: Payload> Pool<P> {
    /// The job that is next, and where it is: one that goes on before one that begins, and then the other way round, so that
    /// neither kind keeps the other waiting for good; a slow one only while they have not got their share.
    pub(crate) fn first(&self, state: &State<P>) -> Option<(Front, Token)> {
        let resumed = state.resumed.front().map(|token| (Front::Resumed, *token));
        let begins = self.first_to_begin(state);
        if state.resumed_last { begins.or(resumed) } else { resumed.or(begins) }
    }

    fn first_to_begin(&self, state: &State<P>) -> Option<(Front, Token)> {
        let fast = state.queue.first_key_value();
        let share = state.slow_busy < self.options.max_slow;
        let slow = if share { state.slow_queue.first_key_value() } else { None };
        match (fast, slow) {
            (Some((fast, _)), Some((slow, token))) if slow < fast => Some((Front::Slow, *token)),
            (Some((_, token)), _) => Some((Front::Queue, *token)),
            (None, slow) => slow.map(|(_, token)| (Front::Slow, *token)),
        }
    }

    /// Whether a job that waits goes before one of this kind that joins its queue now. Not if it has a lower priority; and
    /// not if it is slow, and its share is taken by others than this one.
    pub(crate) fn comes_first(&self, state: &State<P>, job: &Job) -> bool {
        let before = |queue: &BTreeMap<Key, Token>| {
            queue.first_key_value().is_some_and(|((Reverse(first), _), _)| *first >= job.traits.priority)
        };
        let share = job.traits.slow || state.slow_busy < self.options.max_slow;
        !state.resumed.is_empty() || before(&state.queue) || (share && before(&state.slow_queue))
    }
}
