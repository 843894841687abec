//! Named points at which a test can hold a thread. Without the feature `points` they compile to nothing.
//!
//! No lock of the core is held at a point. The hook is the seam's: it knows whether the thread has to let go of the
//! interpreter before it waits.

/// Every point, in the order of its file.
pub const POINTS: &[&str] = &[
    "join.entered",
    "join.leaving",
    "poll.enter",
    "poll.returned",
    "lead.taken",
    "strand.begin",
    "watch.dispatch",
    "watch.rearm",
    "pause.word",
    "remove.word",
    "add.registered",
    "post.queued",
    "stop.requested",
    "socket.lease",
    "socket.wait",
    "job.taken",
    "job.ending",
    "job.told",
    "sync.begun",
];

/// Whether this build has them.
pub const COMPILED: bool = cfg!(feature = "points");

#[cfg(feature = "points")]
mod hook {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static HOOK: OnceLock<fn(&'static str)> = OnceLock::new();
    static ARMED: AtomicBool = AtomicBool::new(false);

    /// Installs what is called at every point while [`arm`]ed. The first call counts.
    pub fn install(hook: fn(&'static str)) {
        _ = HOOK.set(hook);
    }

    /// Says whether any test holds a point: a point that nobody holds costs one load.
    pub fn arm(armed: bool) {
        // ORDER: Release; pairs with the Acquire in `reach`. A test arms before it starts what it wants to hold.
        ARMED.store(armed, Ordering::Release);
    }

    #[inline]
    pub(crate) fn reach(name: &'static str) {
        // ORDER: Acquire; pairs with the Release in `arm`.
        if ARMED.load(Ordering::Acquire)
            && let Some(hook) = HOOK.get()
        {
            hook(name);
        }
    }
}

#[cfg(feature = "points")]
pub(crate) use hook::reach;
#[cfg(feature = "points")]
pub use hook::{arm, install};

#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn reach(_name: &'static str) {}
