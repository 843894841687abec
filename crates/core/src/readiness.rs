//! A cached readiness word that an edge cannot slip past.
//!
//! Streams and operations are registered once, edge-triggered, and read until the kernel has nothing more. "Nothing
//! more" must clear the cached readiness, but an edge that comes between the system call and the clear would be lost:
//! the kernel will not report it again. So every edge counts a tick, and a clear is a compare-and-swap on the word as it
//! was read *before* the system call: if a tick came in between it fails, and the reader reads again.

use crate::poller::Events;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Readiness (low half) and the tick of the last edge (high half).
#[derive(Debug, Default)]
pub struct Readiness(AtomicU64);

/// The word as it was before a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(u64);

impl Seen {
    /// What was ready.
    pub fn events(self) -> Events {
        Events((self.0 & 0xffff_ffff) as u32)
    }
}

impl Readiness {
    /// Nothing is ready yet.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The leader: an edge was reported.
    pub fn edge(&self, events: Events) {
        // ORDER: AcqRel; pairs with the Acquire in `look`: who sees the bit sees what the kernel reported before it.
        _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            Some(((word >> 32).wrapping_add(1) << 32) | (word & 0xffff_ffff) | u64::from(events.0))
        });
    }

    /// The reader: take the word before the system call.
    pub fn look(&self) -> Seen {
        // ORDER: Acquire; pairs with `edge`.
        Seen(self.0.load(Ordering::Acquire))
    }

    /// The reader: the system call found nothing more. False if an edge came since `seen`: read again.
    pub fn clear(&self, seen: Seen, events: Events) -> bool {
        let cleared = seen.0 & !u64::from(events.0);
        // ORDER: AcqRel; a failure means an edge came, and the next `look` sees it.
        self.0.compare_exchange(seen.0, cleared, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_clear_fails_when_an_edge_came_after_the_look() {
        let readiness = Readiness::new();
        readiness.edge(Events::READ);
        let seen = readiness.look();
        readiness.edge(Events::READ);
        assert!(!readiness.clear(seen, Events::READ));
        assert!(readiness.look().events().contains(Events::READ));
        assert!(readiness.clear(readiness.look(), Events::READ));
        assert!(readiness.look().events().is_empty());
    }
}
