//! The loop's side of a socket: its registration, its number, and the edges that are told to it.

use std::os::fd::RawFd;

use super::{Direction, INTEREST, Socket, Waiting};
use crate::Payload;
use crate::counters::{Counted, Kind};
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::fork;
use crate::hub::Ready;
use crate::poller::{Events, Mode as PollMode, PollError};
use crate::readiness::Readiness;
use crate::slots::Token;
use crate::state::{Life, RemovalReason, Schedule};
use crate::sync::atomic::{AtomicBool, AtomicU32};
use crate::sync::{Arc, Mutex};
use crate::watch::Finished;

/// What [`EventLoop::notify_closing`] has found.
pub enum Notified<P: Payload> {
    /// Nobody of this loop has the number.
    Nobody,
    /// A socket, which is closed now: [`Socket::vacate`] it, detached.
    Socket(Arc<Socket<P>>),
    /// A watch, which has ended; to be paid, unless its handler is inside.
    Watch(Option<Finished<P>>),
}

/// A socket just registered, and the watch that it displaced.
pub type Opened<P> = (Arc<Socket<P>>, Option<Finished<P>>);

impl<P: Payload> EventLoop<P> {
    /// Takes over a descriptor, which has to be non-blocking. If it is refused, the caller keeps it.
    ///
    /// `tried`: whether a first system call may find something, or is in vain before an edge (a connection that is
    /// being made).
    pub fn socket(self: &Arc<Self>, fd: RawFd, tcp: bool, tried: bool) -> Result<Opened<P>, Error> {
        self.check_open()?;
        if fd < 0 {
            return Err(Error::Poll(PollError::BadDescriptor));
        }
        let readiness = Readiness::new();
        if tried {
            readiness.edge(Events::READ.union(Events::WRITE));
        }
        let mut made = None;
        self.sockets.lock().insert(|token| {
            let socket = made.insert(Arc::new(Socket {
                fd,
                token: token.of_socket(),
                short_is_empty: tcp,
                edges: self.poller().has_edges(),
                readiness,
                leases: AtomicU32::new(0),
                lost: AtomicBool::new(false),
                waiting: Mutex::new([None, None]),
                home: Arc::downgrade(self),
                epoch: fork::epoch(),
                _counted: Counted::new(Kind::Sockets),
            }));
            Arc::downgrade(socket)
        });
        let Some(socket) = made else { unreachable!("insert calls its argument") };
        let refused = match self.register_socket(&socket) {
            Ok(displaced) if self.hub.life() != Life::Closed => return Ok((socket, displaced)),
            // The watch that was displaced was ended with the loop.
            Ok(_) => Error::Closed,
            // The poller may be closed already, and refuse everything.
            Err(_) if self.hub.life() == Life::Closed => Error::Closed,
            Err(error) => error,
        };
        // The number is the caller's again: nothing of this may close it.
        socket.abandon();
        Err(refused)
    }

    fn register_socket(&self, socket: &Socket<P>) -> Result<Option<Finished<P>>, Error> {
        let mut number = self.numbers.lock(socket.fd);
        let (events, mode) = if socket.edges { (INTEREST, PollMode::Edge) } else { (Events::NONE, PollMode::OneShot) };
        self.poller().add(socket.fd, socket.token.0, events, mode)?;
        let old = number.replace(socket.token);
        drop(number);
        self.displaced(old);
        Ok(self.watch(old).and_then(|watch| self.end_watch(&watch, RemovalReason::FdGone)))
    }

    /// Another has the number of this socket now, so its own descriptor is gone: whoever waits for it is told.
    pub(crate) fn displaced(&self, old: Token) {
        if let Some(socket) = self.socket_of(old) {
            socket.abandon();
        }
    }

    /// The socket behind a token.
    pub(crate) fn socket_of(&self, token: Token) -> Option<Arc<Socket<P>>> {
        self.sockets.lock().get(token.in_table()?)?.upgrade()
    }

    /// Takes it out of the kernel and out of the tables. Whether its number is still the descriptor that was registered.
    pub(super) fn forget_socket(&self, socket: &Socket<P>) -> bool {
        let mut number = self.numbers.lock(socket.fd);
        let mut ours = number.owner() == socket.token;
        if ours {
            number.clear();
            // Missing or bad: it was closed behind the loop's back. A closed loop's poller knows nothing.
            ours = self.poller().delete(socket.fd).is_ok() || self.hub.life() == Life::Closed;
        }
        drop(number);
        if let Some(token) = socket.token.in_table() {
            self.sockets.lock().remove(token);
        }
        ours
    }

    /// Without edges: tells the poller who waits. As for a watch, whoever tells it last tells it the latest. Err if the
    /// descriptor is gone.
    pub(super) fn arm_socket(&self, socket: &Socket<P>) -> Result<(), PollError> {
        let number = self.numbers.lock(socket.fd);
        let interest = Socket::<P>::interest(&socket.waiting.lock());
        if number.owner() != socket.token || interest.is_empty() {
            return Ok(());
        }
        self.poller().modify(socket.fd, socket.token.0, interest, PollMode::OneShot)
    }

    /// Somebody is about to close this number: what waits for it ends, and nothing of this loop touches it any more.
    pub fn notify_closing(&self, fd: RawFd) -> Notified<P> {
        if fd < 0 {
            return Notified::Nobody;
        }
        let owner = self.numbers.lock(fd).owner();
        if let Some(socket) = self.socket_of(owner) {
            socket.abandon();
            return Notified::Socket(socket);
        }
        match self.watch(owner) {
            Some(watch) => Notified::Watch(self.end_watch(&watch, RemovalReason::FdGone)),
            None => Notified::Nobody,
        }
    }

    /// The leader, detached: an event was reported. The tasks that go on are added to `ready`.
    pub(crate) fn note_socket(&self, socket: &Arc<Socket<P>>, events: Events, ready: &mut Vec<Ready<P>>) {
        if events.contains(Events::GONE) {
            return socket.abandon();
        }
        socket.readiness.edge(events);
        let mut waiting = socket.waiting.lock();
        let mut woken: [Waiting<P>; 2] = [None, None];
        for direction in Direction::BOTH {
            if events.0 & direction.wakes().0 != 0 {
                woken[direction as usize] = waiting[direction as usize].take();
            }
        }
        let left = waiting.iter().any(Option::is_some);
        drop(waiting);
        for (task, ticket) in woken.into_iter().flatten() {
            if let Some(Schedule::Push) = task.complete(ticket) {
                ready.extend(self.ready_task(task));
            }
        }
        if left && !socket.edges && self.arm_socket(socket).is_err() {
            socket.abandon();
        }
    }

    /// The loop is closed: whoever waits is told.
    pub(crate) fn end_sockets(&self) {
        let sockets: Vec<_> = self.sockets.lock().iter().filter_map(|(_, socket)| socket.upgrade()).collect();
        for socket in sockets {
            socket.readiness.edge(Events::ERROR);
            socket.interrupt();
        }
    }
}
