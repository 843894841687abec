//! While the main thread is joined, signals reach it through the poller: the interpreter writes a byte for each to a
//! descriptor that the leader watches, and the leader unparks the main thread, which runs the handler.

use std::os::fd::{BorrowedFd, RawFd};

use crate::Payload;
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::poller::{Events, Mode as PollMode};
use crate::slots::Token;

/// The poller's token for the descriptor of signals: its generation is 0, which no slot ever has.
pub(crate) const SIGNAL: u64 = 1;

impl<P: Payload> EventLoop<P> {
    /// While the main thread is joined: signals are written to the other end of `readable`, and were written to
    /// `previous` (-1 for none) before.
    pub fn hold_signals(&self, readable: RawFd, previous: RawFd) -> Result<(), Error> {
        let mut number = self.numbers.lock(readable);
        self.poller().add(readable, SIGNAL, Events::READ, PollMode::Level)?;
        // It owns its number like any watch: one whose descriptor had that number before must not touch it.
        number.replace(Token(SIGNAL));
        drop(number);
        *self.signals.lock() = Some((readable, previous));
        Ok(())
    }

    /// The main thread has left.
    pub fn release_signals(&self) {
        let signals = self.signals.lock().take();
        if let Some((readable, _)) = signals {
            let mut number = self.numbers.lock(readable);
            if number.owner() == Token(SIGNAL) {
                number.clear();
                _ = self.poller().delete(readable);
            }
        }
    }

    /// The leader: drains the descriptor of signals, and passes the bytes on to whoever had it before.
    pub(crate) fn forward_signals(&self) {
        let signals = self.signals.lock();
        let Some((readable, previous)) = *signals else { return };
        let mut bytes = [0u8; 64];
        // SAFETY: `release_signals` takes the numbers out under this lock before the seam closes them.
        let (readable, previous) =
            unsafe { (BorrowedFd::borrow_raw(readable), (previous >= 0).then(|| BorrowedFd::borrow_raw(previous))) };
        while let Ok(count @ 1..) = rustix::io::read(readable, &mut bytes) {
            if let Some(previous) = previous {
                // A full pipe is readable already, which is all that its owner needs.
                _ = rustix::io::write(previous, &bytes[..count]);
            }
        }
    }
}
