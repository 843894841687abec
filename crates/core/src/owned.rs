//! The jobs that belong to a watch or to a strand and end with it.
//!
//! The loop knows of a job only its token and whom to tell. "The owner has not ended" and "the job is in the table" are
//! one step under the table's mutex, and the owner's end is marked before the table is read: so no job is forgotten.

use std::collections::HashMap;

use crate::Payload;
use crate::error::Error;
use crate::event_loop::EventLoop;
use crate::pool::{Job, Owned};
use crate::slots::Token;
use crate::state::Mode;
use crate::strand::Strand;
use crate::sync::Arc;
use crate::watch::Watch;

/// By their numbers, which are unique in the process: one owner may have jobs in several pools.
type Jobs = HashMap<u64, JobRef>;

/// A job, as its loop knows it.
#[derive(Clone)]
pub(crate) struct JobRef {
    pub(crate) id: u64,
    pub(crate) token: Token,
    pub(crate) pool: Arc<dyn Owned>,
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
}
