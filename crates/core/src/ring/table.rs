//! The life of an operation: WAITING in user space, IN the ring, gone. All of it under one mutex, the ring's.
//!
//! Nothing here makes a system call. What goes to the kernel goes through a [`Sink`], in the order in which it was put in,
//! and the kernel takes it in that order: so a cancel always comes behind the operation that it is for, and "asked to stop
//! before it began" is no case of its own.
//!
//! An operation leaves the table by one of three ways, each of which takes its entry out: its completion, a cancel while it
//! waits, the close while it waits. Whoever takes the entry out has the payload; nobody else can have it too.

use std::collections::VecDeque;

use crate::slots::{Slots, Token};

/// What the kernel is to do. The memory at `address` is the payload's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which operation.
    pub code: Code,
    /// The descriptor; open until the operation has ended.
    pub fd: i32,
    /// Where the bytes go to or come from; 0 without any.
    pub address: usize,
    /// Bytes; at most [`MAX_BYTES`].
    pub bytes: u32,
    /// Bytes from the beginning of the file.
    pub offset: u64,
}

/// The operations of files. Those of sockets would be more of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// At most so many bytes, from an offset.
    Read,
    /// At most so many bytes, to an offset.
    Write,
    /// What was written is on the medium.
    Sync,
}

/// The most that one operation moves: the kernel says how much it was in an `i32`.
pub const MAX_BYTES: usize = i32::MAX as usize;

/// What is put into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Do this; the completion carries the token.
    Start(Token, Request),
    /// End the operation with this token, if it is still there.
    Cancel(Token),
}

/// The way to the kernel.
pub trait Sink {
    /// Puts an entry behind the others; false if there is no room now.
    fn put(&mut self, entry: Entry) -> bool;
}

/// An operation that has ended.
#[derive(Debug)]
pub struct Done<P> {
    /// What was submitted with it.
    pub payload: P,
    /// How many bytes, or the number of the error.
    pub result: Result<u32, i32>,
}

/// What became of a cancel.
#[derive(Debug)]
pub enum Cancelled<P> {
    /// It had ended.
    Gone,
    /// The kernel was asked; the completion says who was first.
    Asked,
    /// It never began, and is back.
    Back(Done<P>),
}

const ECANCELED: i32 = 125;
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;

/// So often an operation that the kernel turned away without having done any of it is put in again.
const MAX_TRIES: u8 = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    In,
}

struct Operation<P> {
    request: Request,
    payload: P,
    place: Place,
    /// Its end was asked for: an ECANCELED is the answer to that.
    cancelled: bool,
    tries: u8,
}

/// Every operation that has not ended.
pub struct Table<P> {
    operations: Slots<Operation<P>>,
    /// In their order; tokens of operations that were cancelled meanwhile are skipped.
    waiting: VecDeque<Token>,
    /// Cancels that are to go in.
    cancels: VecDeque<Token>,
    /// How many are in the ring.
    inside: usize,
    depth: usize,
    closed: bool,
}

impl<P> Table<P> {
    /// An empty table, of which at most `depth` operations are in the ring.
    pub fn new(depth: usize) -> Self {
        Self {
            operations: Slots::default(),
            waiting: VecDeque::new(),
            cancels: VecDeque::new(),
            inside: 0,
            depth,
            closed: false,
        }
    }

    /// Takes an operation; a closed table gives the payload back.
    pub fn submit(&mut self, request: Request, payload: P, sink: &mut impl Sink) -> Result<Token, P> {
        if self.closed {
            return Err(payload);
        }
        let place = Place::Waiting;
        let token = self.operations.insert(|_| Operation { request, payload, place, cancelled: false, tries: 0 });
        self.waiting.push_back(token);
        self.pump(sink);
        Ok(token)
    }

    /// Puts into the ring what there is room for.
    pub fn pump(&mut self, sink: &mut impl Sink) {
        while let Some(&token) = self.cancels.front() {
            if self.operations.get(token).is_some_and(|operation| operation.place == Place::In)
                && !sink.put(Entry::Cancel(token))
            {
                return;
            }
            self.cancels.pop_front();
        }
        while self.inside < self.depth
            && let Some(&token) = self.waiting.front()
        {
            if let Some(operation) = self.operations.get_mut(token) {
                if !sink.put(Entry::Start(token, operation.request)) {
                    return;
                }
                operation.place = Place::In;
                self.inside += 1;
            }
            self.waiting.pop_front();
        }
    }

    /// Asks for the end of an operation.
    pub fn cancel(&mut self, token: Token, sink: &mut impl Sink) -> Cancelled<P> {
        let Some(operation) = self.operations.get_mut(token) else { return Cancelled::Gone };
        if operation.place == Place::Waiting {
            return match self.operations.remove(token) {
                Some(operation) => Cancelled::Back(operation.never_ran()),
                None => Cancelled::Gone,
            };
        }
        if !operation.cancelled {
            operation.cancelled = true;
            self.cancels.push_back(token);
        }
        self.pump(sink);
        Cancelled::Asked
    }

    /// Asks for the end of every operation of a descriptor; gives back those that never began.
    pub fn cancel_descriptor(&mut self, fd: i32, sink: &mut impl Sink) -> Vec<Done<P>> {
        let mut back = Vec::new();
        for token in self.tokens(|operation| operation.request.fd == fd) {
            if let Cancelled::Back(done) = self.cancel(token, sink) {
                back.push(done);
            }
        }
        back
    }

    /// The kernel has answered. None if that was no end: it goes in again.
    pub fn finish(&mut self, token: Token, result: i32) -> Option<Done<P>> {
        let operation = self.operations.get_mut(token)?;
        self.inside -= 1;
        // The kernel cancels by itself what a thread has queued that ends, and a thread may end at any time.
        let turned_away = matches!(-result, ECANCELED | EINTR | EAGAIN) && operation.tries < MAX_TRIES;
        if turned_away && !operation.cancelled && !self.closed {
            operation.tries += 1;
            operation.place = Place::Waiting;
            self.waiting.push_front(token);
            return None;
        }
        let operation = self.operations.remove(token)?;
        Some(Done { payload: operation.payload, result: u32::try_from(result).map_err(|_| -result) })
    }

    /// Takes nothing more: gives back what never began, and asks for the end of the rest.
    pub fn close(&mut self, sink: &mut impl Sink) -> Vec<Done<P>> {
        self.closed = true;
        let mut back = Vec::new();
        for token in self.tokens(|_| true) {
            if let Cancelled::Back(done) = self.cancel(token, sink) {
                back.push(done);
            }
        }
        back
    }

    /// Every payload, which the caller keeps for good: the kernel may still use them.
    pub fn abandon(&mut self) -> Vec<P> {
        self.tokens(|_| true)
            .into_iter()
            .filter_map(|token| self.operations.remove(token))
            .map(|operation| operation.payload)
            .collect()
    }

    /// How many are in the ring.
    pub fn inside(&self) -> usize {
        self.inside
    }

    /// How many have not ended.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it takes nothing more.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Every payload that it holds.
    pub fn payloads(&self) -> impl Iterator<Item = &P> {
        self.operations.iter().map(|(_, operation)| &operation.payload)
    }

    fn tokens(&self, wanted: impl Fn(&Operation<P>) -> bool) -> Vec<Token> {
        let found = self.operations.iter().filter(|(_, operation)| wanted(operation));
        found.map(|(token, _)| token).collect()
    }
}

impl<P> Operation<P> {
    fn never_ran(self) -> Done<P> {
        Done { payload: self.payload, result: Err(ECANCELED) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Kernel {
        taken: Vec<Entry>,
        room: usize,
    }

    impl Sink for Kernel {
        fn put(&mut self, entry: Entry) -> bool {
            let room = self.room > 0;
            if room {
                self.room -= 1;
                self.taken.push(entry);
            }
            room
        }
    }

    fn kernel(room: usize) -> Kernel {
        Kernel { taken: Vec::new(), room }
    }

    fn request(fd: i32) -> Request {
        Request { code: Code::Read, fd, address: 0, bytes: 0, offset: 0 }
    }

    fn back<P>(cancelled: Cancelled<P>) -> Option<P> {
        match cancelled {
            Cancelled::Back(done) => Some(done.payload),
            Cancelled::Gone | Cancelled::Asked => None,
        }
    }

    #[test]
    fn at_most_its_depth_is_in_the_ring_and_the_rest_follows_in_order() {
        let (mut table, mut kernel) = (Table::new(2), kernel(9));
        let tokens: Vec<_> = (0..4).map(|fd| table.submit(request(fd), fd, &mut kernel).unwrap()).collect();
        assert_eq!((table.inside(), table.len()), (2, 4));
        assert_eq!(table.finish(tokens[1], 7).map(|done| (done.payload, done.result)), Some((1, Ok(7))));
        table.pump(&mut kernel);
        let started = [0, 1, 2].map(|at| Entry::Start(tokens[at], request(at as i32)));
        assert_eq!(kernel.taken, started);
    }

    #[test]
    fn what_waits_is_given_back_by_a_cancel_and_never_starts() {
        let (mut table, mut kernel) = (Table::new(1), kernel(9));
        let first = table.submit(request(3), "first", &mut kernel).unwrap();
        let second = table.submit(request(3), "second", &mut kernel).unwrap();
        assert_eq!(back(table.cancel(second, &mut kernel)), Some("second"));
        assert!(matches!(table.cancel(second, &mut kernel), Cancelled::Gone));
        assert!(table.finish(first, 0).is_some());
        table.pump(&mut kernel);
        assert_eq!(kernel.taken.len(), 1);
        assert!(table.is_empty());
    }

    #[test]
    fn a_cancel_waits_for_room_and_goes_in_before_anything_new() {
        let (mut table, mut kernel) = (Table::new(2), kernel(1));
        let first = table.submit(request(3), (), &mut kernel).unwrap();
        let second = table.submit(request(3), (), &mut kernel).unwrap();
        assert!(matches!(table.cancel(first, &mut kernel), Cancelled::Asked));
        assert!(matches!(table.cancel(first, &mut kernel), Cancelled::Asked));
        kernel.room = 2;
        table.pump(&mut kernel);
        assert_eq!(kernel.taken[1..], [Entry::Cancel(first), Entry::Start(second, request(3))]);
    }

    #[test]
    fn what_nobody_cancelled_and_the_kernel_turned_away_goes_in_again() {
        let (mut table, mut kernel) = (Table::new(1), kernel(99));
        let token = table.submit(request(3), (), &mut kernel).unwrap();
        for _ in 0..MAX_TRIES {
            assert!(table.finish(token, -ECANCELED).is_none());
            table.pump(&mut kernel);
        }
        assert_eq!(table.finish(token, -ECANCELED).unwrap().result, Err(ECANCELED));
        assert_eq!(kernel.taken.len(), 1 + usize::from(MAX_TRIES));
        assert_eq!(table.inside(), 0);
    }

    #[test]
    fn an_operation_that_was_cancelled_does_not_go_in_again() {
        let (mut table, mut kernel) = (Table::new(1), kernel(9));
        let token = table.submit(request(3), (), &mut kernel).unwrap();
        assert!(matches!(table.cancel(token, &mut kernel), Cancelled::Asked));
        assert_eq!(table.finish(token, -EINTR).unwrap().result, Err(EINTR));
    }

    #[test]
    fn the_end_of_a_descriptor_is_not_that_of_another() {
        let (mut table, mut kernel) = (Table::new(1), kernel(9));
        let first = table.submit(request(3), 3, &mut kernel).unwrap();
        for fd in [4, 3, 5] {
            table.submit(request(fd), fd, &mut kernel).unwrap();
        }
        let back = table.cancel_descriptor(3, &mut kernel);
        assert_eq!(back.into_iter().map(|done| done.payload).collect::<Vec<_>>(), [3]);
        assert_eq!(kernel.taken[1..], [Entry::Cancel(first)]);
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn a_closed_table_takes_nothing_and_gives_back_what_never_began() {
        let (mut table, mut kernel) = (Table::new(1), kernel(9));
        let first = table.submit(request(3), 1, &mut kernel).unwrap();
        table.submit(request(3), 2, &mut kernel).unwrap();
        assert_eq!(table.close(&mut kernel).len(), 1);
        assert_eq!(table.submit(request(3), 3, &mut kernel), Err(3));
        assert_eq!(kernel.taken[1..], [Entry::Cancel(first)]);
        assert_eq!(table.finish(first, 5).map(|done| done.result), Some(Ok(5)));
        assert_eq!((table.inside(), table.len()), (0, 0));
    }
}
