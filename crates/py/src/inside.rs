//! What belongs to the thread inside a task, and is looked at by others.

use core::cell::UnsafeCell;

use manyhands_core::sync::Mutex;

/// A value that only the thread inside a task changes, under a lock. So that thread reads it without.
pub struct Inside<T> {
    lock: Mutex<()>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached under the lock, or by the one thread that changes it.
unsafe impl<T: Send> Send for Inside<T> {}
// SAFETY: as above; shared references are given to several threads at once.
unsafe impl<T: Send + Sync> Sync for Inside<T> {}

impl<T> Inside<T> {
    pub fn new(value: T) -> Self {
        Self { lock: Mutex::new(()), value: UnsafeCell::new(value) }
    }

    /// Anybody: a look, for short.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let _guard = self.lock.lock();
        // SAFETY: whoever changes it has the lock.
        look(unsafe { &*self.value.get() })
    }

    /// The thread inside, attached, or whoever has made sure that there is none and never will be.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let _guard = self.lock.lock();
        // SAFETY: under the lock, and the thread inside, which reads without, is this one.
        change(unsafe { &mut *self.value.get() })
    }

    /// A look without the lock.
    ///
    /// # Safety
    /// Either the calling thread is inside the task, and `look` changes nothing of it; or it is the collector: the value
    /// changes while attached, in one go, and the collector runs while no other attached thread does.
    pub unsafe fn look_unlocked<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        // SAFETY: as the caller says: nobody changes it meanwhile.
        look(unsafe { &*self.value.get() })
    }
}
