//! Waiting in line: for a permit, for an item, against whoever cancels and whoever closes.

use std::sync::{Arc, OnceLock, Weak};

use loom::thread;

use crate::fake_poller::Files;
use crate::tasks::{Task, abort, make, over, start, turner};
use crate::turning::{Call, Count, Loop, Making, explore};
use manyhands_core::channel::{After, Fate, Found, Offered, Went};
use manyhands_core::permits::{Asked, Decided, Waiter};

type Permits = manyhands_core::Permits<Call>;
type Channel = manyhands_core::Channel<Call, u32>;

/// The task that a model is about, for its own steps.
#[derive(Clone, Default)]
struct Me(Arc<OnceLock<Weak<Task>>>);

impl Me {
    fn waiter(&self, event_loop: &Loop) -> Waiter<Call> {
        Waiter::open(event_loop, &self.0.get().and_then(Weak::upgrade).expect("it runs"))
    }
}

fn go_on(decided: impl IntoIterator<Item = Decided<Call>>) {
    for one in decided {
        let (owner, wake) = one.queue();
        owner.wake(wake);
    }
}

/// T85. A permit is released while the one who waits for it is cancelled: it has the permit, or the permit is free.
#[test]
fn a_release_races_a_cancellation_and_the_permit_is_with_one() {
    explore("release against cancellation", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, given, me) = (Count::default(), Count::default(), Me::default());
        let permits = Arc::new(Permits::new(0, 1));
        let task = make(None, {
            let (permits, event_loop, given, me) = (permits.clone(), event_loop.clone(), given.clone(), me.clone());
            move |task, n| {
                if n == 1 {
                    match permits.ask(|| me.waiter(&event_loop)) {
                        Asked::Waits(place) => assert_eq!(place, 0),
                        Asked::Given => {
                            given.add();
                            return false;
                        }
                    }
                    return true;
                }
                let (aborted, had) = (task.take(), permits.leave(0));
                assert_ne!(aborted, had, "both, or neither");
                if had {
                    given.add();
                }
                false
            }
        });
        _ = me.0.set(Arc::downgrade(&task));
        let turner = turner(&event_loop, &ended);
        start(&event_loop, &task);
        let releaser = {
            let permits = permits.clone();
            thread::spawn(move || {
                let mut decided = Vec::new();
                assert!(permits.add(1, &mut decided));
                go_on(decided);
            })
        };
        abort(&event_loop, &task);
        releaser.join().unwrap();
        turner.join().unwrap();
        assert_eq!((permits.free() as usize, permits.waiting()), (1 - given.get(), 0));
        over_in(&event_loop, &task, &ended);
    });
}

/// T85. An item is sent while the one who waits for it is cancelled: it is received, or it stays.
#[test]
fn a_send_races_a_cancellation_and_the_item_is_received_or_stays() {
    explore("send against cancellation", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, received, me) = (Count::default(), Count::default(), Me::default());
        let channel = Arc::new(Channel::new(1));
        let (sender, receiver) = (channel.add_sender(), Arc::new(channel.add_receiver()));
        let task = receiving(&event_loop, &channel, &receiver, &me, {
            let received = received.clone();
            move |aborted, fate, item| {
                assert_eq!((aborted, fate == Fate::Waits), (item.is_none(), item.is_none()), "both, or neither");
                if item == Some(7) {
                    received.add();
                }
            }
        });
        let turner = turner(&event_loop, &ended);
        start(&event_loop, &task);
        let sending = {
            let channel = channel.clone();
            thread::spawn(move || {
                let mut after = After::default();
                assert!(matches!(channel.offer(&sender, 7, &mut after), Offered::Sent));
                go_on(core::mem::take(&mut after.decided));
            })
        };
        abort(&event_loop, &task);
        sending.join().unwrap();
        turner.join().unwrap();
        let counts = channel.counts();
        assert_eq!((counts.buffered, counts.receives), (1 - received.get(), 0));
        over_in(&event_loop, &task, &ended);
    });
}

/// T85. The last sender closes while a receiver gets in line: it hears of it, and waits for nobody.
#[test]
fn a_close_races_a_receive_and_nobody_is_left_in_line() {
    explore("close against receive", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let (ended, alone, me) = (Count::default(), Count::default(), Me::default());
        let channel = Arc::new(Channel::new(0));
        let (sender, receiver) = (channel.add_sender(), Arc::new(channel.add_receiver()));
        let task = receiving(&event_loop, &channel, &receiver, &me, {
            let alone = alone.clone();
            move |aborted, fate, item| {
                assert_eq!((aborted, fate, item), (false, Fate::Alone, None));
                alone.add();
            }
        });
        let turner = turner(&event_loop, &ended);
        start(&event_loop, &task);
        let mut after = After::default();
        channel.close_sender(&sender, &mut after);
        go_on(core::mem::take(&mut after.decided));
        turner.join().unwrap();
        assert_eq!((alone.get(), channel.counts().receives), (1, 0));
        over_in(&event_loop, &task, &ended);
    });
}

/// A task that receives once, waiting if it has to, and says what became of it.
fn receiving(
    event_loop: &Loop,
    channel: &Arc<Channel>,
    receiver: &Arc<manyhands_core::channel::Handle>,
    me: &Me,
    said: impl Fn(bool, Fate, Option<u32>) + Send + Sync + 'static,
) -> Arc<Task> {
    let task = make(None, {
        let (event_loop, channel, receiver, me) = (event_loop.clone(), channel.clone(), receiver.clone(), me.clone());
        move |task, n| {
            if n == 1 {
                let mut after = After::default();
                match channel.receive(&receiver, &mut after, || me.waiter(&event_loop)) {
                    Went::Waits(place) => assert_eq!(place, 0),
                    Went::Through(found) => {
                        match found {
                            Found::Item(item) => said(false, Fate::Done, Some(item)),
                            Found::Alone => said(false, Fate::Alone, None),
                            Found::Empty | Found::Closed => unreachable!("it would have waited"),
                        }
                        return false;
                    }
                }
                return true;
            }
            let aborted = task.take();
            let (fate, item) = channel.leave_receivers(0).expect("it had a place").end();
            said(aborted, fate, item);
            false
        }
    });
    _ = me.0.set(Arc::downgrade(&task));
    task
}

/// It has been stepped once, or twice if it had to wait.
fn over_in(event_loop: &Loop, task: &Arc<Task>, ended: &Count) {
    over(event_loop, task, ended, crate::tasks::steps(task));
}
