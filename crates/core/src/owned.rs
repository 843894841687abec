//! The jobs that belong to a watch or to a strand and end with it, and those that run on a joined thread.
//!
//! The loop knows of a job only its token and whom to tell. "The owner has not ended" and "the job is in the table" are
//! one step under the table's mutex, and the owner's end is marked before the table is read: so no job is forgotten.

use std::collections::HashMap;

use crate::Payload;
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::pool::{Job, Owned};
use crate::slots::Token;
use crate::state::{Life, Mode};
use crate::strand::Strand;
use crate::sync::Arc;
use crate::watch::Watch;

/// By their numbers, which are unique in the process: one owner may have jobs in several pools.
type Jobs = HashMap<u64, JobRef>;

/// A job, as its loop knows it.
#[derive(Clone)]
pub(crate) struct JobRef {
    id: u64,
    token: Token,
    pool: Arc<dyn Owned>,
}

/// Who owns a job.
pub enum Owner<P: Payload> {
    /// A watch: its jobs end when it is removed.
    Watch(Arc<Watch<P>>),
    /// A strand: its jobs end when it does.
    Strand(Arc<Strand<P>>),
}

impl<P: Payload> Owner<P> {
    /// The strand on which it meets its jobs.
    pub fn strand(&self) -> &Arc<Strand<P>> {
        match self {
            Self::Watch(watch) => watch.strand(),
            Self::Strand(strand) => strand,
        }
    }

    fn token(&self) -> Token {
        match self {
            Self::Watch(watch) => watch.token(),
            Self::Strand(strand) => strand.token(),
        }
    }

    fn key(&self) -> Key {
        (matches!(self, Self::Watch(_)), self.token())
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Watch(watch) => watch.removed().map_or(Ok(()), |reason| Err(Error::WatchRemoved { reason })),
            Self::Strand(strand) if strand.body.lock().word.mode == Mode::Open => Ok(()),
            Self::Strand(_) => Err(Error::StrandClosed),
        }
    }
}

/// Watches and strands have tables of their own, so their tokens may be equal.
pub(crate) type Key = (bool, Token);

/// The jobs of every owner of a loop.
pub(crate) type OwnedJobs = HashMap<Key, Jobs>;

impl<P: Payload> EventLoop<P> {
    /// A job belongs to this owner from now on, and is told when that ends; refused if it has ended.
    pub fn own(&self, owner: &Owner<P>, job: &Job, pool: Arc<dyn Owned>) -> Result<(), Error> {
        self.check_open()?;
        let mut owned = self.owned.lock();
        owner.check()?;
        owned.entry(owner.key()).or_default().insert(job.id, JobRef { id: job.id, token: job.token(), pool });
        Ok(())
    }

    /// The job has ended, or was detached.
    pub fn disown(&self, owner: &Owner<P>, job: &Job) {
        if self.check_fork().is_err() {
            return;
        }
        let mut owned = self.owned.lock();
        let Some(jobs) = owned.get_mut(&owner.key()) else { return };
        let gone = jobs.remove(&job.id);
        if jobs.is_empty() {
            owned.remove(&owner.key());
        }
        drop(owned);
        drop(gone);
    }

    /// An owner has ended, and its word says so. Under no lock.
    pub(crate) fn orphan(&self, key: Key) {
        let jobs = self.owned.lock().remove(&key);
        for job in jobs.into_iter().flat_map(HashMap::into_values) {
            job.pool.owner_gone(job.token);
        }
    }

    /// Takes one of the places for a job on a joined thread: one thread fewer than have joined, so that one serves the
    /// loop.
    pub fn take_place(&self) -> bool {
        let mut hub = self.hub.lock();
        let free = hub.life == Life::Open && hub.places + 1 < hub.seats.len();
        hub.places += usize::from(free);
        free
    }

    /// Which job has the place: it is told when the loop stops, now if it has already.
    pub fn name_place(&self, job: &Job, pool: Arc<dyn Owned>) {
        let job = JobRef { id: job.id, token: job.token(), pool };
        let mut hub = self.hub.lock();
        hub.in_place.push(job.clone());
        let stopped = matches!(hub.life, Life::Stopped { .. });
        drop(hub);
        if stopped {
            job.pool.loop_stopping(job.token);
        }
    }

    /// Gives a place back, with or without a job.
    pub fn give_place(&self, job: Option<&Job>) {
        let mut hub = self.hub.lock();
        hub.places -= 1;
        let at = job.and_then(|job| hub.in_place.iter().position(|other| other.id == job.id));
        let gone = at.map(|at| hub.in_place.swap_remove(at));
        drop(hub);
        drop(gone);
    }

    /// The loop stops at once: tells the jobs in place. Under no lock.
    pub(crate) fn stop_in_place(&self) {
        let jobs = self.hub.lock().in_place.clone();
        for job in jobs {
            job.pool.loop_stopping(job.token);
        }
    }
}
