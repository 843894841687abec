//! Who comes before whom: in the queue, in place, and between two steps. Every step here is a call, so nothing is timed.
#![cfg(not(loom))]

use std::sync::Arc;

use manyhands_core::Payload;
use manyhands_core::pool::{
    Entrance, Host, Job, Lane, Outcome, Pool, PoolOptions, PoolSeat, Status, StopReason, Taken, Traits,
};

/// What a pool carries in these tests: nothing.
struct Nothing;

impl Payload for Nothing {
    fn duplicate(&self) -> Self {
        Self
    }
}

/// The tests bring their threads.
struct NoHost;

impl Host for NoHost {
    fn start_thread(&self, _: Lane) {}
    fn send_for_thread(&self) -> bool {
        false
    }
    fn expires_sooner(&self) {}
}

const LOW: Traits = Traits { priority: -1, ..ORDINARY };
const HIGH: Traits = Traits { priority: 1, ..ORDINARY };
const SLOW: Traits = Traits { slow: true, ..ORDINARY };
const ORDINARY: Traits =
    Traits { steps: false, slow: false, outlive: false, in_place: 0, keep: false, priority: 0, deadline: None };

fn pool(threads: usize, max_queue_depth: Option<usize>) -> Arc<Pool<Nothing>> {
    let options = PoolOptions {
        threads,
        errand_threads: 1,
        max_queue_depth,
        max_done: 8,
        max_slow: 1,
        stop_warning: u64::MAX,
        idle_look: None,
    };
    Pool::new(options, Box::new(NoHost))
}

fn enqueue(pool: &Pool<Nothing>, traits: Traits) -> Arc<Job> {
    let job = Arc::new(Job::new(traits));
    assert!(pool.admit(&job, Nothing, Entrance::Queue).is_ok());
    pool.perform(pool.enqueue(&job, false));
    job
}

/// A job in place, if it may be.
fn in_place(pool: &Pool<Nothing>, traits: Traits) -> Option<Arc<Job>> {
    let job = Arc::new(Job::new(traits));
    pool.admit(&job, Nothing, Entrance::InPlace).is_ok().then_some(job)
}

fn take(pool: &Pool<Nothing>, seat: &PoolSeat) -> Option<u64> {
    match pool.take(seat).0 {
        Taken::Job(job, _) => Some(job.id),
        _ => None,
    }
}

fn end(pool: &Pool<Nothing>, job: &Job) {
    pool.perform(pool.end(job, Outcome::Finished).call);
    assert_eq!(job.status(), Status::Finished);
}

/// T75f. What waits and would begin later is no reason to send a job away from its thread.
#[test]
fn a_job_of_a_lower_priority_keeps_none_from_its_place() {
    let pool = pool(2, None);
    let low = enqueue(&pool, LOW);
    assert!(in_place(&pool, LOW).is_none(), "of two with one priority the earlier begins first");
    let ordinary = in_place(&pool, ORDINARY).expect("the one that waits comes later");
    assert!(pool.begin_in_place(&ordinary).is_some());
    let seat = pool.arrive(Lane::Jobs);
    assert_eq!(take(&pool, &seat), Some(low.id));
    assert!(in_place(&pool, HIGH).is_none(), "no slot is left");
}

/// T75, T75f. Slow jobs beyond their share wait for their like: they are before nobody else.
#[test]
fn slow_jobs_that_cannot_begin_keep_none_from_its_place() {
    let pool = pool(3, None);
    let seat = pool.arrive(Lane::Jobs);
    let running = enqueue(&pool, SLOW);
    assert_eq!(take(&pool, &seat), Some(running.id));
    let waiting = enqueue(&pool, SLOW);
    let ordinary = in_place(&pool, ORDINARY).expect("the slow one cannot begin");
    assert!(pool.begin_in_place(&ordinary).is_some());
    end(&pool, &running);
    assert!(in_place(&pool, ORDINARY).is_none(), "now it can");
    assert_eq!(take(&pool, &seat), Some(waiting.id));
}

/// T75, T75f. A slow job that is promised to a thread counts against the share before it begins.
#[test]
fn slow_jobs_in_place_have_their_share_and_no_more() {
    let pool = pool(4, None);
    let first = in_place(&pool, SLOW).expect("nobody is there");
    assert!(in_place(&pool, SLOW).is_none());
    let queued = enqueue(&pool, SLOW);
    let seat = pool.arrive(Lane::Jobs);
    assert_eq!(take(&pool, &seat), None);
    assert!(pool.begin_in_place(&first).is_some());
    assert_eq!(take(&pool, &seat), None);
    end(&pool, &first);
    assert_eq!(take(&pool, &seat), Some(queued.id));
}

/// T70, T75f. A place never costs a job that was taken its thread: the queue's depth is its depth.
#[test]
fn a_job_in_place_makes_no_other_wait_beyond_the_depth() {
    let pool = pool(1, Some(0));
    let low = enqueue(&pool, LOW);
    assert!(in_place(&pool, HIGH).is_none(), "the low one would wait, in a queue of depth 0");
    let seat = pool.arrive(Lane::Jobs);
    assert_eq!(take(&pool, &seat), Some(low.id));
}

/// T70, T75f. A job that is promised to its thread waits for no other, and takes one slot.
#[test]
fn a_job_in_place_that_has_not_begun_takes_one_place() {
    let pool = pool(2, Some(0));
    let first = in_place(&pool, ORDINARY).expect("nobody is there");
    assert_eq!((pool.stats().busy, pool.stats().queued), (1, 1));
    let second = enqueue(&pool, ORDINARY);
    assert!(pool.begin_in_place(&first).is_some());
    let seat = pool.arrive(Lane::Jobs);
    assert_eq!(take(&pool, &seat), Some(second.id));
    end(&pool, &first);
    end(&pool, &second);
    assert_eq!(pool.stats().busy, 0);
}

/// T75f. A thread that leaves puts its job where it would be by now: before those that came later.
#[test]
fn a_job_whose_thread_leaves_goes_to_its_place_in_the_queue() {
    let pool = pool(1, None);
    let first = in_place(&pool, ORDINARY).expect("nobody is there");
    let second = enqueue(&pool, ORDINARY);
    let high = enqueue(&pool, HIGH);
    pool.perform(pool.send_to_queue(&first));
    assert_eq!((pool.stats().busy, pool.stats().queued), (0, 3));
    let seat = pool.arrive(Lane::Jobs);
    for job in [&high, &first, &second] {
        assert_eq!(take(&pool, &seat), Some(job.id));
        end(&pool, job);
    }
}

/// T62, T75f. A stop gives the slot back by itself: the job may have left the table when its thread looks.
#[test]
fn a_job_in_place_that_is_stopped_leaves_its_slot() {
    let pool = pool(1, None);
    let job = in_place(&pool, SLOW).expect("nobody is there");
    let next = enqueue(&pool, SLOW);
    pool.stop(&job, StopReason::Caller);
    assert_eq!((pool.stats().busy, job.status()), (0, Status::Stopped));
    let errands = pool.arrive(Lane::Errands);
    assert!(matches!(pool.take(&errands).0, Taken::Errand(..)));
    drop(pool.conclude(&job));
    assert!(pool.begin_in_place(&job).is_none());
    pool.perform(pool.send_to_queue(&job));
    let seat = pool.arrive(Lane::Jobs);
    assert_eq!(take(&pool, &seat), Some(next.id));
    assert_eq!(pool.stats().busy, 1);
}

/// T66a. Between two steps a job lets those go first that come before it, and nobody else.
#[test]
fn a_step_lets_go_for_those_that_come_before_it() {
    let pool = pool(1, None);
    let seat = pool.arrive(Lane::Jobs);
    let steps = enqueue(&pool, Traits { steps: true, ..ORDINARY });
    assert_eq!(take(&pool, &seat), Some(steps.id));
    assert!(!pool.others_wait(&steps));
    enqueue(&pool, LOW);
    assert!(!pool.others_wait(&steps), "a lower priority would come later");
    let like = enqueue(&pool, ORDINARY);
    assert!(pool.others_wait(&steps));
    pool.perform(pool.let_go(&steps));
    assert_eq!(take(&pool, &seat), Some(like.id));
}

/// T66a, T75. A slow job that waits for the share is before a slow one that has it, and before no other.
#[test]
fn a_step_lets_go_for_a_slow_job_if_it_holds_the_share() {
    let pool = pool(2, None);
    let seats = [pool.arrive(Lane::Jobs), pool.arrive(Lane::Jobs)];
    let fast = enqueue(&pool, Traits { steps: true, ..ORDINARY });
    let slow = enqueue(&pool, Traits { steps: true, ..SLOW });
    assert_eq!([take(&pool, &seats[0]), take(&pool, &seats[1])], [Some(fast.id), Some(slow.id)]);
    let waiting = enqueue(&pool, SLOW);
    assert!(!pool.others_wait(&fast), "the share is taken");
    assert!(pool.others_wait(&slow));
    pool.perform(pool.let_go(&slow));
    assert!(pool.others_wait(&fast), "the share is free");
    assert_eq!(take(&pool, &seats[1]), Some(waiting.id));
}

/// T66a. What has begun goes on first, and then one begins: however many go on, those that wait to begin have every other turn.
#[test]
fn jobs_that_go_on_and_jobs_that_begin_take_turns() {
    let pool = pool(3, None);
    let seats = [pool.arrive(Lane::Jobs), pool.arrive(Lane::Jobs), pool.arrive(Lane::Jobs)];
    let steps = [(); 3].map(|()| enqueue(&pool, Traits { steps: true, ..ORDINARY }));
    for (seat, job) in seats.iter().zip(&steps) {
        assert_eq!(take(&pool, seat), Some(job.id));
    }
    let new = [(); 3].map(|()| enqueue(&pool, ORDINARY));
    for job in &steps {
        pool.stop(job, StopReason::Caller);
        pool.perform(pool.let_go(job));
    }
    let mut taken = Vec::new();
    for seat in &seats {
        taken.push(take(&pool, seat).expect("a job"));
    }
    assert_eq!(taken, [steps[0].id, new[0].id, steps[1].id]);
    pool.perform(pool.end(&steps[0], Outcome::Finished).call);
    assert_eq!(take(&pool, &seats[0]), Some(new[1].id));
    end(&pool, &new[0]);
    assert_eq!(take(&pool, &seats[1]), Some(steps[2].id));
    pool.perform(pool.end(&steps[1], Outcome::Finished).call);
    assert_eq!(take(&pool, &seats[2]), Some(new[2].id));
}
