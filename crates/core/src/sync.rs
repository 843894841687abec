//! The one place that says which locks these are: std's in normal builds, loom's under loom, `parking_lot`'s
//! under ThreadSanitizer, which cannot see into std and would report false races.
//!
//! A poisoned mutex is entered all the same: no payload runs under a lock, so a panic inside one is a defect of
//! this crate, and refusing every later call would turn one defect into a hang.
//!
//! `Arc` is std's everywhere: loom's has no `Weak`, and reference counts are not what is under test.

use core::time::Duration;
pub use std::sync::{Arc, Weak};

#[cfg(not(loom))]
pub use std::sync::atomic;

#[cfg(loom)]
pub use loom::sync::atomic;

#[cfg(loom)]
use loom::sync as imp;
#[cfg(manyhands_tsan)]
use parking_lot as imp;
#[cfg(not(any(loom, manyhands_tsan)))]
use std::sync as imp;

/// Mutual exclusion without poisoning.
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

/// The lock held; released when dropped.
pub type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    /// A free mutex around `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// A free mutex around `value`. Loom's cannot be made at compile time.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Waits for the lock. Held for short stretches only, so an attached thread may call it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(manyhands_tsan)]
        return self.0.lock();
        #[cfg(not(manyhands_tsan))]
        return match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        };
    }

    /// The lock if nobody has it. For who must not wait even for a short stretch: the collector.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        #[cfg(manyhands_tsan)]
        return self.0.try_lock();
        #[cfg(not(manyhands_tsan))]
        return match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        };
    }
}

/// Many readers or one writer, without poisoning.
#[derive(Debug, Default)]
pub struct RwLock<T>(imp::RwLock<T>);

impl<T> RwLock<T> {
    /// A free lock around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::RwLock::new(value))
    }

    /// Shared.
    pub fn read(&self) -> imp::RwLockReadGuard<'_, T> {
        #[cfg(manyhands_tsan)]
        return self.0.read();
        #[cfg(not(manyhands_tsan))]
        return match self.0.read() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        };
    }

    /// Alone.
    pub fn write(&self) -> imp::RwLockWriteGuard<'_, T> {
        #[cfg(manyhands_tsan)]
        return self.0.write();
        #[cfg(not(manyhands_tsan))]
        return match self.0.write() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        };
    }
}

/// A condition to wait for under a [`Mutex`].
///
/// std's notifies with a system call each time, whether anybody waits or not, so the waiters are counted here. Whoever
/// notifies has changed the condition under the mutex.
#[derive(Debug, Default)]
pub struct Condvar {
    condition: imp::Condvar,
    waiting: atomic::AtomicU32,
}

impl Condvar {
    /// Nobody waits yet.
    pub fn new() -> Self {
        Self { condition: imp::Condvar::new(), waiting: atomic::AtomicU32::new(0) }
    }

    fn has_waiters(&self) -> bool {
        // ORDER: Relaxed here and below; the mutex orders the count. It goes up under the mutex: before the change of the
        // condition, which the caller made under it too, or after it, and then by a thread that has seen the change.
        self.waiting.load(atomic::Ordering::Relaxed) > 0
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        if self.has_waiters() {
            self.condition.notify_one();
        }
    }

    /// Wakes every waiter.
    pub fn notify_all(&self) {
        if self.has_waiters() {
            self.condition.notify_all();
        }
    }

    /// Waits until notified or until `timeout` has gone by; spurious returns are allowed, so callers loop.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>, timeout: Option<Duration>) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, atomic::Ordering::Relaxed);
        let guard = self.wait_counted(guard, timeout);
        self.waiting.fetch_sub(1, atomic::Ordering::Relaxed);
        guard
    }

    fn wait_counted<'a, T>(&self, guard: MutexGuard<'a, T>, timeout: Option<Duration>) -> MutexGuard<'a, T> {
        #[cfg(manyhands_tsan)]
        {
            let mut guard = guard;
            match timeout {
                None => self.condition.wait(&mut guard),
                Some(timeout) => {
                    let _ = self.condition.wait_for(&mut guard, timeout);
                }
            }
            return guard;
        }
        #[cfg(not(manyhands_tsan))]
        match timeout {
            None => match self.condition.wait(guard) {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            },
            Some(timeout) => match self.condition.wait_timeout(guard, timeout) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            },
        }
    }
}

/// A number for the calling thread, never 0, never given twice.
#[cfg(not(loom))]
pub fn thread_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static MINE: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A finalizer may run while the thread's locals are being torn down: it then counts as nobody's thread.
    MINE.try_with(|number| *number).unwrap_or(u64::MAX)
}

/// A number for the calling thread, never 0: loom's threads share one thread of the system.
#[cfg(loom)]
pub fn thread_number() -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    loom::thread::current().id().hash(&mut hasher);
    hasher.finish() | 1
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_mutex_that_somebody_has_is_not_waited_for() {
        let mutex = Mutex::new(1);
        let held = mutex.lock();
        assert!(mutex.try_lock().is_none());
        drop(held);
        assert_eq!(mutex.try_lock().map(|guard| *guard), Some(1));
    }

    #[test]
    fn a_mutex_whose_holder_panicked_is_entered_all_the_same() {
        let mutex = Mutex::new(1);
        let holder = || {
            let _held = mutex.lock();
            panic!("on purpose");
        };
        let panicked = std::thread::scope(|scope| scope.spawn(holder).join().is_err());
        assert!(panicked);
        assert!(mutex.try_lock().is_some());
        assert_eq!(*mutex.lock(), 1);
    }
}
