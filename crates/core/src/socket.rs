//! A descriptor that the core reads and writes itself, for tasks: registered once, by edge, with its readiness cached.
//!
//! A message costs no `epoll_ctl`: who finds nothing to read clears the cached readiness (`readiness` says how no edge
//! slips past) and leaves its ticket; the leader, told of an edge, completes the ticket, and the task tries again. One
//! task waits for each direction.
//!
//! Who makes a system call on the number holds a [`Lease`]; `close` only marks the socket while there is one, and the last
//! to give its lease back closes the number. So no call ever meets the number's next owner.
//!
//! A number that was closed behind the socket's back, or is about to be, is not closed by the socket: it is *lost*. The
//! socket hears of it by `notify_closing`, from whoever registers the number's next owner, and, last of all, from the
//! kernel, which does not know the registration that it is asked to remove.
//!
//! `poll` and `select` have no edges: there the registration is for one report, made anew whenever somebody waits.
//!
//! In a forked child no lock is taken and no registration changed: there a close is a close of the child's number.
//!
//! `docs/design/stream.md` names the races; `tests/loom/sockets.rs` explores them.

mod registering;

pub use registering::{Notified, Opened};

use std::os::fd::{BorrowedFd, RawFd};

use crate::Payload;
use crate::counters::Counted;
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::fork;
use crate::points::reach;
use crate::poller::Events;
use crate::readiness::{Readiness, Seen};
use crate::slots::Token;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Arc, Mutex, Weak};
use crate::task::Task;

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Direction {
    /// Until there is something to read, or nothing ever will be.
    Read = 0,
    /// Until something can be written, or never will be.
    Write = 1,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::Read, Self::Write];

    /// What ends the wait.
    pub fn wakes(self) -> Events {
        let over = Events::HANGUP.union(Events::ERROR);
        match self {
            Self::Read => Events::READ.union(Events::PRIORITY).union(Events::END).union(over),
            Self::Write => Events::WRITE.union(over),
        }
    }

    /// What an empty system call disproves.
    fn bit(self) -> Events {
        match self {
            Self::Read => Events::READ,
            Self::Write => Events::WRITE,
        }
    }
}

/// Everything that a socket is registered for.
pub(crate) const INTEREST: Events = Events(Events::READ.0 | Events::WRITE.0 | Events::PRIORITY.0 | Events::END.0);

/// Set in `leases` when the number is to be closed by the last to give a lease back.
const CLOSED: u32 = 1 << 31;

/// A task that waits, and the ticket of its wait.
type Waiting<P> = Option<(Arc<Task<P>>, u32)>;

/// A descriptor that the core reads and writes itself. It owns the number.
pub struct Socket<P: Payload> {
    fd: RawFd,
    token: Token,
    /// A short read says that there is no more, if nothing else was reported: true of TCP alone.
    short_is_empty: bool,
    /// Whether the poller has edges: else whoever waits arms it.
    edges: bool,
    readiness: Readiness,
    leases: AtomicU32,
    /// The number is another's to close: it was closed behind the loop's back, or somebody said that he is about to.
    lost: AtomicBool,
    waiting: Mutex<[Waiting<P>; 2]>,
    home: Weak<EventLoop<P>>,
    /// The process that made it.
    epoch: u32,
    _counted: Counted,
}

/// The right to use a socket's number; it is not closed meanwhile.
pub struct Lease<'a, P: Payload>(&'a Socket<P>);

impl<P: Payload> Lease<'_, P> {
    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is closed by the last lease to be given back, and not negative.
        unsafe { BorrowedFd::borrow_raw(self.0.fd) }
    }
}

impl<P: Payload> Drop for Lease<'_, P> {
    fn drop(&mut self) {
        // ORDER: AcqRel; whoever closes the number comes after everybody who used it.
        if self.0.leases.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1 {
            self.0.close_number();
        }
    }
}

impl<P: Payload> Socket<P> {
    /// The descriptor's number.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// The right to use the number; None once it was closed.
    pub fn lease(&self) -> Option<Lease<'_, P>> {
        // ORDER: Acquire; pairs with the AcqRel of `Lease::drop` and `close`.
        let taken = self.leases.fetch_update(Ordering::Acquire, Ordering::Acquire, |leases| {
            if leases & CLOSED == 0 { Some(leases + 1) } else { None }
        });
        let lease = taken.is_ok().then(|| Lease(self));
        reach("socket.lease");
        lease
    }

    /// Whether it is of this loop.
    pub fn is_of(&self, home: &Arc<EventLoop<P>>) -> bool {
        core::ptr::eq(self.home.as_ptr(), Arc::as_ptr(home))
    }

    /// Refuses in a forked child.
    pub fn check_fork(&self) -> Result<(), Error> {
        if !self.inherited() {
            return Ok(());
        }
        self.home.upgrade().map_or(Err(Error::Forked { parent: 0 }), |home| home.check_fork())
    }

    /// Whether this is a forked child, in which the locks may be taken for ever.
    pub fn inherited(&self) -> bool {
        self.epoch != fork::epoch()
    }

    /// Whether it was closed.
    pub fn closed(&self) -> bool {
        // ORDER: Acquire; pairs with the AcqRel of `close`.
        self.leases.load(Ordering::Acquire) & CLOSED != 0
    }

    /// The readiness, before a system call; None if there is nothing to try.
    pub fn look(&self, direction: Direction) -> Option<Seen> {
        let seen = self.readiness.look();
        (seen.events().0 & direction.wakes().0 != 0).then_some(seen)
    }

    /// The system call would have blocked. False if it is to be tried again at once.
    pub fn exhausted(&self, direction: Direction, seen: Seen) -> bool {
        // A hang-up or an error is for good, but there was nothing to read: only an edge says that there is again.
        self.readiness.clear(seen, direction.wakes())
    }

    /// The system call gave less than it was asked for: whether that was all there is, so that the next is not tried.
    pub fn short(&self, direction: Direction, seen: Seen) {
        let odd = seen.events().0 & !(Events::READ.0 | Events::WRITE.0) != 0;
        if self.short_is_empty && !odd {
            // If an edge came meanwhile the next call is tried.
            _ = self.readiness.clear(seen, direction.bit());
        }
    }

    fn close_number(&self) {
        let ours = self.home.upgrade().is_none_or(|home| home.forget_socket(self));
        if ours && !self.lost.load(Ordering::Relaxed) {
            close_descriptor(self.fd);
        }
    }

    /// Closes it: at once, or when the calls that are under way have ended. Who waits is told. Once; false if it was.
    pub fn close(&self) -> bool {
        // ORDER: AcqRel; see `Lease::drop`.
        let before = self.leases.fetch_or(CLOSED, Ordering::AcqRel);
        if before & CLOSED != 0 {
            return false;
        }
        if self.inherited() {
            // Whoever held a lease does not exist here, nor did anybody register this process's copy of the number.
            if !self.lost.load(Ordering::Relaxed) {
                close_descriptor(self.fd);
            }
            return true;
        }
        self.interrupt();
        if before == 0 {
            self.close_number();
        }
        true
    }

    /// The number stays its owner's to close.
    pub fn leave_number(&self) {
        // ORDER: Relaxed; the AcqRel of `close` publishes it to whoever would close the number.
        self.lost.store(true, Ordering::Relaxed);
    }

    /// As [`Self::close`], but the number is another's to close.
    fn abandon(&self) {
        self.leave_number();
        self.close();
    }

    /// Detached. Waits until nobody uses the number of a socket that was closed: a system call that does not block.
    pub fn vacate(&self) {
        // ORDER: Acquire; pairs with `Lease::drop`.
        while self.leases.load(Ordering::Acquire) & !CLOSED != 0 {
            std::thread::yield_now();
        }
    }

    /// Whoever waits tries again, and finds out.
    pub fn interrupt(&self) {
        let waiting = core::mem::take(&mut *self.waiting.lock());
        let Some(home) = self.home.upgrade() else { return };
        for (task, ticket) in waiting.into_iter().flatten() {
            if let Some(schedule) = task.complete(ticket) {
                let wake = home.queue_task(&task, schedule);
                home.wake(wake);
            }
        }
    }

    /// The thread inside the task, which has opened its wait: leaves the ticket. False if there is something to try
    /// already, or the socket was closed: then nothing was left.
    pub fn wait(&self, direction: Direction, task: &Arc<Task<P>>, ticket: u32) -> bool {
        reach("socket.wait");
        let mut waiting = self.waiting.lock();
        if self.look(direction).is_some() || self.closed() {
            return false;
        }
        waiting[direction as usize] = Some((task.clone(), ticket));
        drop(waiting);
        if !self.edges
            && let Some(home) = self.home.upgrade()
            && home.arm_socket(self).is_err()
        {
            // Closed behind the loop's back. The ticket that was just left is completed by this.
            self.abandon();
        }
        true
    }

    /// The thread inside the task, whose wait has ended otherwise: takes the ticket back.
    pub fn forget(&self, direction: Direction, ticket: u32) {
        if self.inherited() {
            return;
        }
        let mut waiting = self.waiting.lock();
        let mine = waiting[direction as usize].as_ref().is_some_and(|(_, other)| *other == ticket);
        let taken = if mine { waiting[direction as usize].take() } else { None };
        drop(waiting);
        drop(taken);
    }

    fn interest(waiting: &[Waiting<P>; 2]) -> Events {
        let wanted = Direction::BOTH.into_iter().filter(|direction| waiting[*direction as usize].is_some());
        wanted.fold(Events::NONE, |events, direction| events | direction.bit())
    }
}

impl<P: Payload> Drop for Socket<P> {
    fn drop(&mut self) {
        // Nobody else has it, so no lease is out, and who waited has been forgotten.
        self.close();
    }
}

/// Closes a number that is ours to close.
#[cfg(not(loom))]
fn close_descriptor(fd: RawFd) {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: the socket owns the number, and whoever calls this has taken `leases` to CLOSED, which happens once.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// A model has no descriptors: what closes one of its files.
#[cfg(loom)]
pub static CLOSER: std::sync::Mutex<Option<Arc<dyn Fn(RawFd) + Send + Sync>>> = std::sync::Mutex::new(None);

#[cfg(loom)]
fn close_descriptor(fd: RawFd) {
    let closer = CLOSER.lock().ok().and_then(|closer| closer.clone());
    if let Some(closer) = closer {
        closer(fd);
    }
}
