//! A thread of the loop is sent for, while the threads park, leave, and take and give back the places.

use std::time::Duration;

use loom::thread;
use manyhands_core::pool::Owned;
use manyhands_core::slots::Token;
use manyhands_core::{JoinOptions, clock};

use crate::fake_poller::Files;
use crate::turning::{Call, Count, Gate, Loop, Making, close, explore, join, join_with, post};

struct Pool;

impl Owned for Pool {
    fn owner_gone(&self, _: Token) {}
    fn loop_stopping(&self, _: Token) {}
}

/// Sends for a thread; who is refused is his own thread, as a pool starts one.
fn send(event_loop: &Loop, call: Call) {
    if let Err(call) = event_loop.send_for(call, &Pool, 1) {
        call.run();
    }
}

fn turner(event_loop: &Loop, options: JoinOptions) -> thread::JoinHandle<()> {
    let event_loop = event_loop.clone();
    thread::spawn(move || join_with(&event_loop, &Count::default(), options))
}

/// T75f. Whoever is sent for comes: a thread that parks, that leads, or, from before they have joined, the sender's own.
#[test]
fn send_races_the_park_and_a_thread_comes() {
    for making in [Making::EAGER, Making::LAZY] {
        explore("send against park", move || {
            let files = Files::open(0);
            let event_loop = making.on(&files);
            let other = turner(&event_loop, JoinOptions::default());
            let sender = {
                let event_loop = event_loop.clone();
                thread::spawn(move || {
                    let stopped = event_loop.clone();
                    send(&event_loop, Call::new(move || stopped.request_stop(false).unwrap()));
                })
            };
            join(&event_loop, &Count::default());
            other.join().unwrap();
            sender.join().unwrap();
            close(&event_loop, &Count::default());
        });
    }
}

/// T75f. There is one place, and two are sent for; the one that finds it taken comes when it is given back.
#[test]
fn send_races_a_place_that_is_given_back_and_both_come() {
    explore("send against a place given back", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ran = Count::default();
        let other = turner(&event_loop, JoinOptions::default());
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (event_loop, ran) = (event_loop.clone(), ran.clone());
                thread::spawn(move || {
                    let stopped = event_loop.clone();
                    let call = Call::new(move || {
                        if ran.add() == 2 {
                            stopped.request_stop(false).unwrap();
                        }
                    });
                    send(&event_loop, call);
                })
            })
            .collect();
        join(&event_loop, &Count::default());
        other.join().unwrap();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(ran.get(), 2);
        close(&event_loop, &Count::default());
    });
}

/// T75f. A handler takes the place, needs it not, and goes on until the one that was sent for meanwhile has run: he who gives
/// a place back in a handler wakes another thread for it.
#[test]
fn send_races_a_handler_with_the_place_and_another_thread_comes() {
    explore("send against a handler with the place", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let other = turner(&event_loop, JoinOptions::default());
        let (inside, ran) = (Gate::new(), Gate::new());
        let handler = {
            let (event_loop, inside, ran) = (event_loop.clone(), inside.clone(), ran.clone());
            Call::new(move || {
                let taken = event_loop.take_place();
                inside.open();
                if taken {
                    event_loop.give_place_early(None);
                }
                ran.pass();
                event_loop.request_stop(false).unwrap();
            })
        };
        assert!(post(&event_loop, None, handler));
        let sender = {
            let event_loop = event_loop.clone();
            thread::spawn(move || {
                inside.pass();
                send(&event_loop, Call::new(move || ran.open()));
            })
        };
        join(&event_loop, &Count::default());
        other.join().unwrap();
        sender.join().unwrap();
        close(&event_loop, &Count::default());
    });
}

/// T8, T75f. A thread that was woken for it leaves, because its time is up: of three, another one comes; of two, the sender
/// gets to know that nobody does.
#[test]
fn send_races_a_thread_that_leaves_and_nobody_is_forgotten() {
    for others in [1, 2] {
        explore("send against leaving", move || {
            let files = Files::open(0);
            let event_loop = Making::EAGER.on(&files);
            let others: Vec<_> = (0..others).map(|_| turner(&event_loop, JoinOptions::default())).collect();
            let sender = {
                let event_loop = event_loop.clone();
                thread::spawn(move || {
                    clock::set_monotonic(1_000);
                    let stopped = event_loop.clone();
                    send(&event_loop, Call::new(move || stopped.request_stop(false).unwrap()));
                })
            };
            let brief = JoinOptions { timeout: Some(Duration::from_nanos(10)), ..JoinOptions::default() };
            join_with(&event_loop, &Count::default(), brief);
            others.into_iter().for_each(|other| other.join().unwrap());
            sender.join().unwrap();
            close(&event_loop, &Count::default());
        });
    }
}

/// T75f. The loop stops: the one that was sent for has come, or the sender gets to know that nobody does.
#[test]
fn send_races_stop_and_nobody_is_forgotten() {
    explore("send against stop", || {
        let files = Files::open(0);
        let event_loop = Making::EAGER.on(&files);
        let ran = Count::default();
        let other = turner(&event_loop, JoinOptions::default());
        let sender = {
            let (event_loop, ran) = (event_loop.clone(), ran.clone());
            thread::spawn(move || send(&event_loop, Call::new(move || _ = ran.add())))
        };
        let stopper = {
            let event_loop = event_loop.clone();
            thread::spawn(move || event_loop.request_stop(false).unwrap())
        };
        join(&event_loop, &Count::default());
        for thread in [other, sender, stopper] {
            thread.join().unwrap();
        }
        assert_eq!(ran.get(), 1);
        close(&event_loop, &Count::default());
    });
}
