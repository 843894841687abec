//! A channel: items from any number of senders to any number of receivers, through a buffer of a given size.
//!
//! At any moment either receivers wait, and then the buffer is empty and no sender waits, or senders wait, and then the
//! buffer is full. What comes decides at once: an item goes to the first receiver whose wait can still be decided, into
//! the buffer, or into line with its sender. Whoever was cancelled first is passed by: a receiver then gets nothing, and a
//! sender keeps its item, which was not sent. Whatever was decided stays in the place of the one who waited, who takes it
//! with him.
//!
//! Each end is held by handles. A handle that is closed ends the waits of those who wait through it; the last handle of an
//! end ends those of the other side.
//!
//! What is carried is never made or dropped under the mutex: what is left over is given back.

use std::collections::VecDeque;

use crate::Payload;
use crate::line::Line;
use crate::permits::{Decided, Waiter};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// One holder of an end of a channel.
pub struct Handle {
    number: u64,
    // GUARDED BY: the channel's mutex; an atomic, since it lies outside.
    closed: AtomicBool,
}

impl Handle {
    fn open(number: u64) -> Self {
        Self { number, closed: AtomicBool::new(false) }
    }

    /// Whether it was closed.
    pub fn closed(&self) -> bool {
        // ORDER: Relaxed here and below; who must not be late looks under the mutex.
        self.closed.load(Ordering::Relaxed)
    }

    fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::Relaxed)
    }
}

/// How a wait in line has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It has not, or it was cancelled.
    Waits,
    /// The item was sent, or is there.
    Done,
    /// The handle was closed meanwhile.
    Closed,
    /// Nobody is left on the other side.
    Alone,
}

/// A place in line: what is sent, or what was received.
pub struct Caller<P: Payload, T> {
    waiter: Option<Waiter<P>>,
    handle: u64,
    item: Option<T>,
    fate: Fate,
}

impl<P: Payload, T> Caller<P, T> {
    /// How the wait has ended, and what the place holds.
    pub fn end(self) -> (Fate, Option<T>) {
        (self.fate, self.item)
    }
}

type Callers<P, T> = Line<Caller<P, T>>;

struct Inside<P: Payload, T> {
    buffer: VecDeque<T>,
    senders: Callers<P, T>,
    receivers: Callers<P, T>,
    open_senders: usize,
    open_receivers: usize,
    handles: u64,
}

/// What is to be dropped and whom to let go on, once the mutex is released.
pub struct After<P: Payload, T> {
    /// Those who go on.
    pub decided: Vec<Decided<P>>,
    passed_by: Vec<Waiter<P>>,
    items: VecDeque<T>,
}

impl<P: Payload, T> Default for After<P, T> {
    fn default() -> Self {
        Self { decided: Vec::new(), passed_by: Vec::new(), items: VecDeque::new() }
    }
}

impl<P: Payload, T> After<P, T> {
    /// Decides the wait of one who was called. False if he was cancelled first.
    fn decide(&mut self, waiter: Option<Waiter<P>>) -> bool {
        match waiter.map(Waiter::decide) {
            Some(Ok(decided)) => {
                self.decided.push(decided);
                true
            }
            Some(Err(waiter)) => {
                self.passed_by.push(waiter);
                false
            }
            None => false,
        }
    }
}

/// What became of an item.
pub enum Offered<T> {
    /// It was taken.
    Sent,
    /// There is no room for it.
    Full(T),
    /// Nobody will ever receive it.
    Alone(T),
    /// The handle was closed.
    Closed(T),
}

/// What became of asking for an item.
pub enum Found<T> {
    /// Here it is.
    Item(T),
    /// There is none.
    Empty,
    /// There will never be one.
    Alone,
    /// The handle was closed.
    Closed,
}

/// What became of an end that may wait.
pub enum Went<R> {
    /// It was done, or refused, at once.
    Through(R),
    /// The caller is in line, at this place.
    Waits(u32),
}

/// A snapshot.
pub struct Counts {
    /// Items in the buffer.
    pub buffered: usize,
    /// Handles of the sending end.
    pub senders: usize,
    /// Handles of the receiving end.
    pub receivers: usize,
    /// Sends in line.
    pub sends: usize,
    /// Receives in line.
    pub receives: usize,
}

/// Items from senders to receivers.
pub struct Channel<P: Payload, T> {
    inside: Mutex<Inside<P, T>>,
    room: usize,
}

impl<P: Payload, T> Inside<P, T> {
    fn handle(&mut self) -> Handle {
        self.handles += 1;
        Handle::open(self.handles)
    }

    fn offer(&mut self, room: usize, item: T, after: &mut After<P, T>) -> Offered<T> {
        if self.open_receivers == 0 {
            return Offered::Alone(item);
        }
        while let Some(receiver) = self.receivers.call() {
            if after.decide(receiver.waiter.take()) {
                receiver.item = Some(item);
                receiver.fate = Fate::Done;
                return Offered::Sent;
            }
        }
        if self.buffer.len() < room {
            self.buffer.push_back(item);
            return Offered::Sent;
        }
        Offered::Full(item)
    }

    /// The item of the first sender in line that was not cancelled.
    fn next_sent(&mut self, after: &mut After<P, T>) -> Option<T> {
        while let Some(sender) = self.senders.call() {
            if after.decide(sender.waiter.take()) {
                sender.fate = Fate::Done;
                return sender.item.take();
            }
        }
        None
    }

    fn find(&mut self, after: &mut After<P, T>) -> Found<T> {
        if let Some(item) = self.buffer.pop_front() {
            if let Some(next) = self.next_sent(after) {
                self.buffer.push_back(next);
            }
            return Found::Item(item);
        }
        match self.next_sent(after) {
            Some(item) => Found::Item(item),
            None if self.open_senders == 0 => Found::Alone,
            None => Found::Empty,
        }
    }
}

/// Ends the waits of those who wait through this handle, or of all.
fn dismiss<P: Payload, T>(line: &mut Callers<P, T>, handle: Option<u64>, fate: Fate, after: &mut After<P, T>) {
    line.call_if(|caller| {
        let chosen = handle.is_none_or(|handle| caller.handle == handle);
        if chosen && after.decide(caller.waiter.take()) {
            caller.fate = fate;
        }
        chosen
    });
}

impl<P: Payload, T> Channel<P, T> {
    /// One with room for so many items that nobody has taken.
    pub fn new(room: usize) -> Self {
        let inside = Inside {
            buffer: VecDeque::new(),
            senders: Line::default(),
            receivers: Line::default(),
            open_senders: 0,
            open_receivers: 0,
            handles: 0,
        };
        Self { inside: Mutex::new(inside), room }
    }

    /// How many items there is room for.
    pub fn room(&self) -> usize {
        self.room
    }

    /// A handle of the sending end more.
    pub fn add_sender(&self) -> Handle {
        let mut inside = self.inside.lock();
        inside.open_senders += 1;
        inside.handle()
    }

    /// A handle of the receiving end more.
    pub fn add_receiver(&self) -> Handle {
        let mut inside = self.inside.lock();
        inside.open_receivers += 1;
        inside.handle()
    }

    /// Sends without waiting.
    pub fn offer(&self, handle: &Handle, item: T, after: &mut After<P, T>) -> Offered<T> {
        let mut inside = self.inside.lock();
        if handle.closed() { Offered::Closed(item) } else { inside.offer(self.room, item, after) }
    }

    /// Receives without waiting.
    pub fn find(&self, handle: &Handle, after: &mut After<P, T>) -> Found<T> {
        let mut inside = self.inside.lock();
        if handle.closed() { Found::Closed } else { inside.find(after) }
    }

    /// Sends, or gets in line: `open` opens the wait of the task that sends.
    pub fn send(
        &self,
        handle: &Handle,
        item: T,
        after: &mut After<P, T>,
        open: impl FnOnce() -> Waiter<P>,
    ) -> Went<Offered<T>> {
        let mut inside = self.inside.lock();
        if handle.closed() {
            return Went::Through(Offered::Closed(item));
        }
        match inside.offer(self.room, item, after) {
            Offered::Full(item) => {
                let caller =
                    Caller { waiter: Some(open()), handle: handle.number, item: Some(item), fate: Fate::Waits };
                Went::Waits(inside.senders.join(caller))
            }
            other => Went::Through(other),
        }
    }

    /// Receives, or gets in line: `open` opens the wait of the task that receives.
    pub fn receive(
        &self,
        handle: &Handle,
        after: &mut After<P, T>,
        open: impl FnOnce() -> Waiter<P>,
    ) -> Went<Found<T>> {
        let mut inside = self.inside.lock();
        if handle.closed() {
            return Went::Through(Found::Closed);
        }
        match inside.find(after) {
            Found::Empty => {
                let caller = Caller { waiter: Some(open()), handle: handle.number, item: None, fate: Fate::Waits };
                Went::Waits(inside.receivers.join(caller))
            }
            other => Went::Through(other),
        }
    }

    /// Whoever was in line to send leaves his place; what it holds.
    pub fn leave_senders(&self, place: u32) -> Option<Caller<P, T>> {
        self.inside.lock().senders.remove(place)
    }

    /// Whoever was in line to receive leaves his place; what it holds.
    pub fn leave_receivers(&self, place: u32) -> Option<Caller<P, T>> {
        self.inside.lock().receivers.remove(place)
    }

    /// An item that was received by one who is no more: the next receiver's.
    pub fn give_back(&self, item: T, after: &mut After<P, T>) {
        let mut inside = self.inside.lock();
        // However full the buffer is: it was received once.
        match inside.offer(0, item, after) {
            Offered::Sent => {}
            Offered::Full(item) => inside.buffer.push_front(item),
            Offered::Alone(item) | Offered::Closed(item) => after.items.push_back(item),
        }
    }

    /// Closes a handle of the sending end. Idempotent.
    pub fn close_sender(&self, handle: &Handle, after: &mut After<P, T>) {
        let mut inside = self.inside.lock();
        if !handle.close() {
            return;
        }
        inside.open_senders -= 1;
        dismiss(&mut inside.senders, Some(handle.number), Fate::Closed, after);
        if inside.open_senders == 0 {
            dismiss(&mut inside.receivers, None, Fate::Alone, after);
        }
    }

    /// Closes a handle of the receiving end. Idempotent.
    pub fn close_receiver(&self, handle: &Handle, after: &mut After<P, T>) {
        let mut inside = self.inside.lock();
        if !handle.close() {
            return;
        }
        inside.open_receivers -= 1;
        dismiss(&mut inside.receivers, Some(handle.number), Fate::Closed, after);
        if inside.open_receivers == 0 {
            dismiss(&mut inside.senders, None, Fate::Alone, after);
            after.items.append(&mut inside.buffer);
        }
    }

    /// How it stands.
    pub fn counts(&self) -> Counts {
        let inside = self.inside.lock();
        Counts {
            buffered: inside.buffer.len(),
            senders: inside.open_senders,
            receivers: inside.open_receivers,
            sends: inside.senders.len(),
            receives: inside.receivers.len(),
        }
    }

    /// Shows every item that it holds; for the collector, which must not wait. An error ends it.
    pub fn show<E>(&self, mut each: impl FnMut(&T) -> Result<(), E>) -> Result<(), E> {
        let Some(inside) = self.inside.try_lock() else { return Ok(()) };
        let waiting = inside.senders.held().chain(inside.receivers.held()).filter_map(|caller| caller.item.as_ref());
        inside.buffer.iter().chain(waiting).try_for_each(&mut each)
    }

    /// Takes every item out: it is garbage.
    pub fn clear(&self) -> impl Sized + use<P, T> {
        let mut inside = self.inside.lock();
        let buffer = core::mem::take(&mut inside.buffer);
        let mut items = Vec::new();
        inside.senders.each(|caller| items.extend(caller.item.take()));
        inside.receivers.each(|caller| items.extend(caller.item.take()));
        (buffer, items)
    }
}
