//! The pollers' contract: one suite, run over epoll, poll and select.
//!
//! A test is a function of a `PollerKind`; `for_every_poller!` makes three of it. What a poller does differently by
//! nature (DESIGN D18; the lists at the head of `poll.rs` and `select.rs`) is written out in the test as a `match`
//! on the kind, so that an exception is asserted and not skipped.
//!
//! All tests share one process and its descriptor numbers. A test that closes or reuses a number takes one of
//! its own from `support::private_number`, where no other test's `open` can fall into the gap.

/// Three tests of each function: `epoll::name`, `poll::name`, `select::name`.
macro_rules! for_every_poller {
    ($($name:ident),* $(,)?) => {
        mod epoll { $(#[test] fn $name() { super::$name(manyhands_core::poller::PollerKind::Epoll) })* }
        mod poll { $(#[test] fn $name() { super::$name(manyhands_core::poller::PollerKind::Poll) })* }
        mod select { $(#[test] fn $name() { super::$name(manyhands_core::poller::PollerKind::Select) })* }
    };
}

mod numbers;
mod process;
mod renewal;
mod reports;
mod support;
mod waiting;
