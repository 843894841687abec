//! The loop that many threads turn.
//!
//! This crate knows nothing of Python: what a loop carries for its user is a [`Payload`], which the core stores,
//! moves and hands out, and never looks into. It holds what is on the path of every event, and no policy.
//!
//! | file | noun |
//! |---|---|
//! | `state`   | the words: every state of a strand, of a watch and of a loop, and every arrow between them |
//! | `strand`  | a queue served by one thread at a time, in order |
//! | `post`    | messages in: on a strand or on one of their own |
//! | `watch`   | one descriptor's registration: add, modify, pause, resume, remove, re-arm |
//! | `numbers` | which watch owns a descriptor number |
//! | `dead`    | registrations that outlive their watch |
//! | `slots`   | tokens: a slot and its generation in 64 bits |
//! | `timer`   | deadlines |
//! | `hub`     | the run queue, the lead, parking and the loop's life, under one mutex |
//! | `seat`    | a joined thread's place, from enter to leave |
//! | `turn`    | how it goes round: next, run |
//! | `wait`    | what it does with nothing to run: lead or park |
//! | `life`    | stop, drain, restart, close |
//! | `signal`, `sight` | signals through the poller; counts, dumps, the collector's view |
//! | `event_loop` | what all of this is done to |
//! | `poller`  | epoll, poll and select behind one trait |
//! | `pool`    | blocking calls on threads of their own, under control |
//! | `socket`  | a descriptor that the core reads and writes itself, for tasks |
//! | `task`    | something that is resumed until it has finished, by one thread at a time |
//! | `ring`    | operations that the kernel does by itself (io_uring): reads, writes, syncs of files |
//! | `line`    | a waiting line that anybody can leave |
//! | `permits`, `channel` | what tasks wait for in line: a permit; an item, or room for one |
//! | `owned`   | the jobs that end with a watch or a strand |
//! | `places`, `aside` | jobs that run on joined threads, and who leads meanwhile |
//! | `readiness` | a cached readiness word that an edge cannot slip past |
//! | `clock`   | monotonic time, or time moved by hand |
//! | `fork`, `counters`, `points` | a forked child, live objects, places where a test can hold a thread |
//!
//! Order of locks, outermost first: a number or, in their order, all of them (`numbers`), a strand (`strand`), then one of hub, timers, slots.
//! No lock is held while a payload runs or is dropped.

mod aside;
pub mod channel;
pub mod clock;
pub mod counters;
mod dead;
pub mod error;
pub mod event_loop;
pub mod fork;
pub mod hub;
pub mod life;
pub mod line;
mod numbers;
pub mod owned;
pub mod permits;
mod places;
pub mod points;
pub mod poller;
pub mod pool;
pub mod post;
pub mod readiness;
pub mod ring;
pub mod seat;
pub mod sight;
pub mod signal;
pub mod slots;
pub mod socket;
pub mod state;
pub mod strand;
pub mod sync;
pub mod task;
pub mod timer;
pub mod turn;
mod wait;
pub mod watch;

pub use channel::Channel;
pub use clock::{Clock, ManualClock};
pub use error::Error;
pub use event_loop::{EventLoop, Options};
pub use permits::{Permits, Waiter};
pub use poller::{Events, PollerKind};
pub use post::{Origin, Place, Refused};
pub use seat::{JoinOptions, Seat, TimerNext};
pub use sight::Stats;
pub use slots::Token;
pub use socket::Socket;
pub use state::{Life, RemovalReason, Schedule, StrandState};
pub use strand::Strand;
pub use task::Task;
pub use turn::{Item, Next};
pub use watch::Watch;

/// What a loop carries for its user: a callable with its arguments, or the object that stands for a watch.
///
/// The core drops a payload only in calls that say so ("attached" calls), never in [`EventLoop::wait`].
pub trait Payload: Send + 'static {
    /// Another handle to the same thing. Called only from attached calls.
    fn duplicate(&self) -> Self;
}

/// A compile-time test: what threads share is `Send + Sync` whenever the payload is `Send`.
fn _ensure_send_and_sync<P: Payload>() {
    fn is<T: Send + Sync>() {}
    is::<EventLoop<P>>();
    is::<Strand<P>>();
    is::<Watch<P>>();
}
