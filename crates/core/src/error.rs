//! What a call of the core can refuse with. The seam turns each into one Python exception.

use crate::poller::PollError;
use crate::state::RemovalReason;

/// A refusal. Nothing was changed by the call that returns one, unless its variant says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The loop was closed.
    Closed,
    /// The loop drained, or is draining, and takes no more from outside.
    Stopped,
    /// The loop was made in another process, of which this one is a fork.
    Forked {
        /// That process's id.
        parent: u32,
    },
    /// Threads are inside: `restart` and `close` refuse.
    Inside {
        /// How many.
        joined: usize,
    },
    /// The descriptor has a watch already.
    WatchExists,
    /// The watch was removed.
    WatchRemoved {
        /// Why it was.
        reason: RemovalReason,
    },
    /// The strand's terminal message is in, or it was closed.
    StrandClosed,
    /// The strand holds as many messages as it may.
    QueueFull {
        /// How many it may hold.
        limit: usize,
    },
    /// The poller refused the descriptor.
    Poll(PollError),
}

impl From<PollError> for Error {
    fn from(error: PollError) -> Self {
        match error {
            PollError::Exists => Self::WatchExists,
            other => Self::Poll(other),
        }
    }
}
