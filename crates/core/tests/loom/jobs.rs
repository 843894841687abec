//! A job's life on two threads: the stop against the end, the sync against the owner's end, the queue against parking.

use std::sync::Arc;

use loom::thread;
use manyhands_core::Payload;
use manyhands_core::pool::{
    Entrance, Host, Job, Lane, Met, Outcome, Owned, Pool, PoolOptions, PoolSeat, Status, StopReason, Stopped, Taken,
    Traits,
};

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Making, close, explore};

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

fn pool() -> Arc<Pool<Nothing>> {
    let options = PoolOptions {
        threads: 1,
        errand_threads: 1,
        max_queue_depth: None,
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

/// Takes one job and runs it; None if there is nothing to take.
fn run_one(pool: &Pool<Nothing>, seat: &PoolSeat, body: impl FnOnce(&Job) -> Outcome) -> Option<Status> {
    let (taken, call) = pool.take(seat);
    pool.perform(call);
    let Taken::Job(job, _) = taken else { return None };
    let outcome = body(&job);
    let ended = pool.end(&job, outcome);
    pool.perform(ended.call);
    Some(job.status())
}

/// As `run_one`, waiting for something to take; None when the thread has to leave.
fn serve_one(pool: &Pool<Nothing>, seat: &Arc<PoolSeat>, body: impl Fn(&Job) -> Outcome) -> Option<Status> {
    loop {
        let (taken, call) = pool.take(seat);
        pool.perform(call);
        match taken {
            Taken::Job(job, _) => {
                let outcome = body(&job);
                pool.perform(pool.end(&job, outcome).call);
                return Some(job.status());
            }
            Taken::Wait => pool.wait(seat),
            Taken::Leave => return None,
            Taken::Errand(..) => unreachable!("this thread runs jobs"),
        }
    }
}

fn adds_up(pool: &Pool<Nothing>) {
    let stats = pool.stats();
    let live = stats.queued + stats.running + stats.syncing_held + stats.syncing_parked + stats.stopping;
    assert_eq!(stats.submitted, live as u64 + stats.finished + stats.stopped);
}

/// T61. A stop and the end meet: the job ends once, and the stopper is told the truth.
#[test]
fn stop_races_finish_and_the_job_ends_once() {
    explore("stop against finish", || {
        let pool = pool();
        let job = enqueue(&pool, Traits::default());
        let stopper = {
            let (pool, job) = (pool.clone(), job.clone());
            thread::spawn(move || pool.stop(&job, StopReason::Caller))
        };
        let seat = pool.arrive(Lane::Jobs);
        let ran = run_one(&pool, &seat, |job| if job.check_in() { Outcome::GaveUp } else { Outcome::Finished });
        let stopped = stopper.join().unwrap();
        match (ran, stopped) {
            (None, Stopped::Never) => assert_eq!(job.status(), Status::Stopped),
            (Some(Status::Stopped), Stopped::Asked) => assert_eq!(job.reason(), Some(StopReason::Caller)),
            (Some(Status::Finished), Stopped::Asked | Stopped::Ended) => {}
            other => panic!("{other:?}"),
        }
        adds_up(&pool);
    });
}

/// T62. A stop and a thread that takes the job meet: it runs, or it is cleaned up as one that never ran; not both.
#[test]
fn stop_races_take_and_a_stopped_job_never_runs() {
    explore("stop against take", || {
        let pool = pool();
        let job = enqueue(&pool, Traits::default());
        let runner = {
            let pool = pool.clone();
            thread::spawn(move || {
                let seat = pool.arrive(Lane::Jobs);
                run_one(&pool, &seat, |_| Outcome::Finished)
            })
        };
        let stopped = pool.stop(&job, StopReason::OwnerGone);
        let ran = runner.join().unwrap().is_some();
        let errands = pool.arrive(Lane::Errands);
        let (taken, _) = pool.take(&errands);
        let cleaned = matches!(taken, Taken::Errand(..));
        assert_eq!(ran, !cleaned);
        assert_eq!(stopped == Stopped::Never, cleaned);
        adds_up(&pool);
    });
}

/// T68. The owner ends while it visits a job that syncs: the job comes back, and never beside the callback.
#[test]
fn sync_races_close_and_the_job_never_runs_beside_its_owner() {
    explore("sync against close", || {
        let pool = pool();
        let job = enqueue(&pool, Traits::default());
        let seat = pool.arrive(Lane::Jobs);
        let (Taken::Job(..), _) = pool.take(&seat) else { unreachable!("it is queued") };
        let (number, _) = pool.begin_meeting(&job, None).unwrap();
        let (inside, together) = (Count::default(), Count::default());
        let owner = {
            let (pool, job, inside, together) = (pool.clone(), job.clone(), inside.clone(), together.clone());
            thread::spawn(move || {
                if pool.enter_meeting(&job, number) {
                    inside.add();
                    _ = pool.answer(&job).map(|call| pool.perform(call));
                    together.add();
                    pool.leave_meeting(&job, number, false);
                }
            })
        };
        let closer = {
            let (pool, token) = (pool.clone(), job.token());
            thread::spawn(move || pool.owner_gone(token))
        };
        let met = pool.wait_met(&job, None).unwrap();
        assert_eq!(inside.get(), together.get(), "the callback is still inside");
        assert!(matches!(met, Met::Answered | Met::Stopping));
        pool.perform(pool.end(&job, Outcome::Finished).call);
        owner.join().unwrap();
        closer.join().unwrap();
        assert_eq!(job.status(), Status::Finished);
        adds_up(&pool);
    });
}

/// T67. Two answers meet: one is taken, and the job goes on once.
#[test]
fn answer_races_answer_and_one_is_taken() {
    explore("answer against answer", || {
        let pool = pool();
        let job = enqueue(&pool, Traits { steps: true, ..Traits::default() });
        let seat = pool.arrive(Lane::Jobs);
        let (Taken::Job(..), _) = pool.take(&seat) else { unreachable!("it is queued") };
        _ = pool.begin_meeting(&job, None).unwrap();
        let other = {
            let (pool, job) = (pool.clone(), job.clone());
            thread::spawn(move || pool.answer(&job).is_ok())
        };
        let mine = pool.answer(&job).is_ok();
        assert!(mine ^ other.join().unwrap());
        assert_eq!(run_one(&pool, &seat, |_| Outcome::Finished), Some(Status::Finished));
        assert_eq!(run_one(&pool, &seat, |_| Outcome::Finished), None);
    });
}

/// T68, T66a. The answer to a parked stepwise job and its owner's end meet: it is continued exactly once.
#[test]
fn answer_races_close_and_a_parked_job_is_continued_once() {
    explore("answer against close of a parked job", || {
        let pool = pool();
        let job = enqueue(&pool, Traits { steps: true, ..Traits::default() });
        let seat = pool.arrive(Lane::Jobs);
        let (Taken::Job(..), _) = pool.take(&seat) else { unreachable!("it is queued") };
        let (number, _) = pool.begin_meeting(&job, None).unwrap();
        let closer = {
            let (pool, token) = (pool.clone(), job.token());
            thread::spawn(move || pool.owner_gone(token))
        };
        if pool.enter_meeting(&job, number) {
            _ = pool.answer(&job).map(|call| pool.perform(call));
            pool.leave_meeting(&job, number, false);
        }
        closer.join().unwrap();
        assert!(run_one(&pool, &seat, |_| Outcome::Finished).is_some());
        assert_eq!(run_one(&pool, &seat, |_| Outcome::Finished), None);
        adds_up(&pool);
    });
}

/// T68, T66a. The same for a job that outlives its owner.
#[test]
fn answer_races_the_end_of_an_owner_that_is_outlived_and_the_job_is_continued_once() {
    explore("answer against the end of an owner that is outlived", || {
        let pool = pool();
        let job = enqueue(&pool, Traits { steps: true, outlive: true, ..Traits::default() });
        let seat = pool.arrive(Lane::Jobs);
        let (Taken::Job(..), _) = pool.take(&seat) else { unreachable!("it is queued") };
        let (number, _) = pool.begin_meeting(&job, None).unwrap();
        let closer = {
            let (pool, token) = (pool.clone(), job.token());
            thread::spawn(move || pool.owner_gone(token))
        };
        if pool.enter_meeting(&job, number) {
            _ = pool.answer(&job).map(|call| pool.perform(call));
            pool.leave_meeting(&job, number, false);
        }
        closer.join().unwrap();
        let once = |job: &Job| {
            assert!(!pool.others_wait(job), "it waits for a second thread");
            Outcome::Finished
        };
        assert_eq!(run_one(&pool, &seat, once), Some(Status::Finished));
        assert_eq!(run_one(&pool, &seat, |_| Outcome::Finished), None);
        adds_up(&pool);
    });
}

/// T74. A job comes while the only thread decides to park: it is run. A lost wake-up would be a deadlock.
#[test]
fn enqueue_races_park_and_the_job_runs() {
    explore("enqueue against park", || {
        let pool = pool();
        let seat = pool.arrive(Lane::Jobs);
        let worker = {
            let (pool, seat) = (pool.clone(), seat.clone());
            thread::spawn(move || serve_one(&pool, &seat, |_| Outcome::Finished))
        };
        let job = enqueue(&pool, Traits::default());
        assert_eq!(pool.wait_ended(&job, None, false), Ok(true));
        assert_eq!(worker.join().unwrap(), Some(Status::Finished));
    });
}

/// T65. The pool's end and a thread that decides to park meet: it leaves, and whoever waits for that is told.
#[test]
fn finish_races_park_and_the_thread_leaves() {
    explore("the end of the pool against park", || {
        let pool = pool();
        let seat = pool.arrive(Lane::Jobs);
        let worker = {
            let (pool, seat) = (pool.clone(), seat.clone());
            thread::spawn(move || serve_one(&pool, &seat, |_| Outcome::Finished))
        };
        pool.close_entrance();
        assert!(pool.wait_left(None));
        assert_eq!(worker.join().unwrap(), None);
    });
}

/// T65. A job that is being taken and the pool's end meet: it was refused, or it is stopped, or it runs.
#[test]
fn admit_races_finish_and_no_job_is_forgotten() {
    explore("admit against the end of the pool", || {
        let pool = pool();
        let job = Arc::new(Job::new(Traits::default()));
        let admitter = {
            let (pool, job) = (pool.clone(), job.clone());
            thread::spawn(move || {
                let admitted = pool.admit(&job, Nothing, Entrance::Queue).is_ok();
                if admitted {
                    pool.perform(pool.enqueue(&job, false));
                }
                admitted
            })
        };
        pool.close_entrance();
        pool.stop_all(StopReason::PoolFinishing, true);
        let admitted = admitter.join().unwrap();
        let seat = pool.arrive(Lane::Jobs);
        let ran = run_one(&pool, &seat, |_| Outcome::Finished).is_some();
        assert_eq!(admitted, ran || job.status() == Status::Stopped);
        adds_up(&pool);
    });
}

/// T71. The owner's loop is closed as the job ends: its on_done is run by whoever closes, or comes back for the pool.
#[test]
fn done_races_close_and_on_done_has_one_caller() {
    explore("on_done against the close of its loop", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let strand = event_loop.strand(None, None).unwrap();
        let (called, ended) = (Count::default(), Count::default());
        let ending = {
            let (event_loop, strand, called) = (event_loop.clone(), strand.clone(), called.clone());
            thread::spawn(move || {
                let counted = called.clone();
                let on_done = Call::new(move || _ = counted.add());
                if event_loop.complete_unless_closed(&strand, on_done).is_err() {
                    called.add();
                }
            })
        };
        close(&event_loop, &ended);
        ending.join().unwrap();
        assert_eq!(called.get(), 1);
    });
}

/// T62, T75f. A job in place is stopped as its thread leaves, or as it begins the job: its slot is given back once.
#[test]
fn stop_races_the_thread_that_leaves_and_the_slot_is_free() {
    for leaves in [true, false] {
        explore(if leaves { "stop against leaving" } else { "stop against beginning in place" }, move || {
            let pool = pool();
            let job = Arc::new(Job::new(Traits { slow: true, ..Traits::default() }));
            assert!(pool.admit(&job, Nothing, Entrance::InPlace).is_ok());
            let stopper = {
                let (pool, job) = (pool.clone(), job.clone());
                thread::spawn(move || pool.stop(&job, StopReason::Caller))
            };
            if leaves {
                pool.perform(pool.send_to_queue(&job));
            } else if pool.begin_in_place(&job).is_some() {
                pool.perform(pool.end(&job, Outcome::Finished).call);
            }
            let stopped = stopper.join().unwrap();
            assert!(!leaves || stopped == Stopped::Never);
            assert_eq!((pool.stats().busy, pool.stats().queued), (0, 0));
            adds_up(&pool);
            let next = Arc::new(Job::new(Traits { slow: true, ..Traits::default() }));
            assert!(pool.admit(&next, Nothing, Entrance::InPlace).is_ok(), "no slot is left");
            drop(pool.withdraw(&next));
        });
    }
}
