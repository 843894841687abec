//! What a pool shows of itself.

use super::Pool;
use super::job::{Job, Status};
use crate::Payload;
use crate::clock::monotonic;
use crate::hub::BUCKETS;
use crate::slots::Token;
use crate::sync::Arc;

/// Counts at one moment. `submitted` is the sum of everything from `queued` to `stopped`.
#[derive(Clone, Debug)]
pub struct PoolStats {
    /// Threads that run jobs.
    pub threads: usize,
    /// Of these, and of joined threads that run a job in place, the ones that do.
    pub busy: usize,
    /// Nanoseconds that the longest waiting job has waited; None with an empty queue.
    pub oldest_wait: Option<u64>,
    /// Jobs taken since the pool was made.
    pub submitted: u64,
    /// Jobs refused because the queue was full.
    pub refused: u64,
    /// Jobs that have not begun.
    pub queued: usize,
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait for their owner and hold a thread.
    pub syncing_held: usize,
    /// Jobs that wait for their owner without a thread.
    pub syncing_parked: usize,
    /// Jobs that were told to stop and have not ended.
    pub stopping: usize,
    /// Jobs that have finished.
    pub finished: u64,
    /// Jobs that were stopped.
    pub stopped: u64,
    /// Ended jobs that wait to be reaped.
    pub done: usize,
    /// Ended jobs that were dropped because too many waited to be reaped.
    pub dropped: u64,
    /// How many jobs waited for up to 2^i microseconds before they began.
    pub wait_times: [u64; BUCKETS],
    /// How many jobs took up to 2^i microseconds, syncs included.
    pub run_times: [u64; BUCKETS],
}

/// One job.
pub struct JobView<P> {
    /// What the pool carries for it.
    pub payload: P,
    /// The job.
    pub job: Arc<Job>,
    /// Its status, at the same moment for every job of the list.
    pub status: Status,
    /// Nanoseconds since it was accepted.
    pub age: u64,
}

impl<P: Payload> Pool<P> {
    /// Counts at this moment.
    pub fn stats(&self) -> PoolStats {
        let state = self.lock();
        let counts = &state.counts;
        let waiting = state.queue.values().chain(state.slow_queue.values());
        let oldest = waiting
            .filter_map(|token| state.jobs.get(*token))
            .filter(|record| record.started == 0)
            .map(|record| record.accepted)
            .min();
        PoolStats {
            threads: state.lanes[0].started,
            busy: state.busy,
            oldest_wait: oldest.map(|accepted| monotonic().saturating_sub(accepted)),
            submitted: counts.submitted,
            refused: counts.refused,
            queued: counts.queued,
            running: counts.running,
            syncing_held: counts.syncing_held,
            syncing_parked: counts.syncing_parked,
            stopping: counts.stopping,
            finished: counts.finished,
            stopped: counts.stopped,
            done: state.done.len(),
            dropped: counts.dropped,
            wait_times: state.wait_times,
            run_times: state.run_times,
        }
    }

    /// Attached. Every job that has not been reaped, the earliest first.
    pub fn views(&self) -> Vec<JobView<P>> {
        let now = monotonic();
        let state = self.lock();
        let mut views: Vec<_> = state
            .jobs
            .iter()
            // Reaped, and its errand is still to be done.
            .filter(|(_, record)| !(record.job.status().ended() && record.job.orphaned()))
            .map(|(_, record)| JobView {
                payload: record.payload.duplicate(),
                job: record.job.clone(),
                status: record.job.status(),
                age: now.saturating_sub(record.accepted),
            })
            .collect();
        drop(state);
        views.sort_by_key(|view| view.job.id);
        views
    }

    /// Attached. What the pool carries for a job.
    pub fn payload(&self, token: Token) -> Option<P> {
        self.lock().jobs.get(token).map(|record| record.payload.duplicate())
    }

    /// Shows the collector the payloads of jobs that have ended and wait to be reaped. Those of the others are held for
    /// a thread that will come for them: to the collector that is a reference from outside.
    pub fn visit(&self, mut visit: impl FnMut(&P)) {
        let state = self.lock();
        for token in state.done.values() {
            if let Some(record) = state.jobs.get(*token) {
                visit(&record.payload);
            }
        }
    }

    /// Attached. Takes every payload off the done queue, to be dropped.
    pub fn drop_done(&self) -> Vec<P> {
        let mut state = self.lock();
        let tokens: Vec<Token> = core::mem::take(&mut state.done).into_values().collect();
        tokens.into_iter().filter_map(|token| Some(state.jobs.remove(token)?.payload)).collect()
    }
}
