//! What a forked child may touch of the loops it inherited: nothing.
//!
//! The threads that held the parent's locks do not exist in the child, and its copies of the poller share the parent's
//! open file: a lock could wait for ever and an `epoll_ctl` would change the parent's watches. So the child takes no
//! lock and drops nothing: it raises the epoch, which every call compares first, and closes the raw numbers, which are
//! kept in atomics for this one moment.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

use crate::counters;

static EPOCH: AtomicU32 = AtomicU32::new(0);
static HEAD: AtomicPtr<Descriptors> = AtomicPtr::new(core::ptr::null_mut());

/// How many forks there are between this process and the one that loaded the library.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

/// A loop's raw descriptor numbers. Never freed, used again by a later loop: the child walks the list without a lock.
pub(crate) struct Descriptors {
    taken: AtomicBool,
    numbers: [AtomicI32; 2],
    next: AtomicPtr<Descriptors>,
}

/// Remembers numbers until it is dropped.
pub(crate) struct Remembered {
    node: &'static Descriptors,
    epoch: u32,
}

pub(crate) fn remember(numbers: [i32; 2]) -> Remembered {
    // ORDER: Acquire on every pointer; pairs with the AcqRel push below.
    let mut at = HEAD.load(Ordering::Acquire);
    // SAFETY: nodes come from `Box::leak` and are never freed.
    while let Some(node) = unsafe { at.as_ref() } {
        if !node.taken.swap(true, Ordering::AcqRel) {
            node.set(numbers);
            return Remembered { node, epoch: epoch() };
        }
        at = node.next.load(Ordering::Acquire);
    }
    let node: &'static Descriptors = Box::leak(Box::new(Descriptors {
        taken: AtomicBool::new(true),
        numbers: numbers.map(AtomicI32::new),
        next: AtomicPtr::default(),
    }));
    // ORDER: Acquire, AcqRel; the push publishes the node with its numbers to `remember` and `after_fork_in_child`.
    let mut head = HEAD.load(Ordering::Acquire);
    loop {
        node.next.store(head, Ordering::Relaxed);
        let raw = core::ptr::from_ref(node).cast_mut();
        match HEAD.compare_exchange(head, raw, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Remembered { node, epoch: epoch() },
            Err(now) => head = now,
        }
    }
}

impl Descriptors {
    fn set(&self, numbers: [i32; 2]) {
        for (slot, number) in self.numbers.iter().zip(numbers) {
            // ORDER: Release; pairs with the swap in `after_fork_in_child`.
            slot.store(number, Ordering::Release);
        }
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        // In a child the node was freed by `after_fork_in_child` and may be a new loop's.
        if self.epoch == epoch() {
            self.node.set([-1; 2]);
            // ORDER: Release; pairs with the swap in `remember`: the next owner's numbers come after these.
            self.node.taken.store(false, Ordering::Release);
        }
    }
}

/// To be called once in the child, on its only thread, before anything else of the library.
pub fn after_fork_in_child() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    counters::forget_all();
    // ORDER: as in `remember`; the child has one thread, and sees what the forking thread saw.
    let mut at = HEAD.load(Ordering::Acquire);
    // SAFETY: as in `remember`.
    while let Some(node) = unsafe { at.as_ref() } {
        for number in &node.numbers {
            let fd = number.swap(-1, Ordering::AcqRel);
            if fd >= 0 {
                // SAFETY: the child's copy of a descriptor that the loop owned; the loop itself is dead here and never
                // closes it (every drop compares the epoch first).
                unsafe { rustix::io::close(fd) };
            }
        }
        // ORDER: as in `Drop` and `remember`.
        node.taken.store(false, Ordering::Release);
        at = node.next.load(Ordering::Acquire);
    }
}
