//! The races of the core, explored by loom: every order in which the threads' steps can fall, up to a bound.
//!
//! What runs here is the crate itself, on loom's locks (`sync.rs`) and on a poller made of them (`fake_poller.rs`). Each
//! file is one family of races; each test is named for one race and spawns its threads. A thread that waits for ever
//! is loom's "deadlock": a lost wake-up fails a test by itself.
//!
//! Times are the one thing that loom does not have: a timed wait never times out by itself (`EventLoop::time_is_up` ends
//! the standby's), and the clock stands until a test moves it (`clock::set_monotonic`).
//!
//! Three things to know before writing another one. loom reorders only what it sees to conflict, so what a test asserts an
//! order of goes through loom's mutexes too (`turning::Count`). `yield_now` is no scheduling point here: it tells loom
//! to run everybody else first, and orders are lost by it. And of an atomic loom remembers the last access only: a thread
//! that loads before it changes hides the conflict with another's load, so the writer has to come first.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 LOOM_MAX_BRANCHES=10000 cargo test -p manyhands-core --test loom --release
//! ```
//!
//! `scripts/mutants.py` plants the mistakes that these tests must find.

#![cfg(loom)]

mod conditions;
mod fake_poller;
mod handing_over;
mod jobs;
mod level;
mod lines;
mod parking;
mod places;
mod readiness;
mod rearming;
mod ring;
mod running;
mod sockets;
mod stopping;
mod tasks;
mod terminal;
mod turning;
