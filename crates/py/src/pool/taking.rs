//! The way in: a job is made, admitted, made known to its owner and put where it will run.

use std::sync::Arc;

use manyhands_core::owned::Owner;
use manyhands_core::pool::{Call as Wanted, Entrance, Job, Refusal};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::wishes::Wishes;
use super::{CorePool, Held, PoolCore, WhenFull};
use crate::event_loop::LoopCore;
use crate::job::{Extras, JobCore, Parts, Work, make};
use crate::payload::copy_context;
use crate::worker::Worker;
use crate::{attach, current, errors, in_place};

/// Whether a place was taken on this joined thread, and nothing was promised for it yet.
struct Placed(bool);

impl Drop for Placed {
    fn drop(&mut self) {
        if self.0 {
            in_place::give_back(None);
        }
    }
}

impl PoolCore {
    /// Takes a job, or refuses it and leaves nothing behind.
    pub(super) fn take<'py>(
        slf: &Bound<'py, Self>,
        work: Work,
        wishes: Wishes<'py>,
        when_full: WhenFull,
    ) -> PyResult<Bound<'py, JobCore>> {
        let (this, py) = (slf.get(), slf.py());
        let opened = this.opened()?;
        let pool = this.core(py)?;
        let Wishes { owner, name, user, cleanup, on_sync, on_done, traits } = wishes;
        let owned = owner.map(Self::owned).transpose()?.map(Box::new);
        let mut extras = (cleanup.is_some() || on_sync.is_some() || on_done.is_some()).then(|| {
            Box::new(Extras {
                cleanup: cleanup.map(Bound::unbind),
                on_sync: on_sync.map(Bound::unbind),
                on_done: on_done.map(Bound::unbind),
                context: None,
            })
        });
        if let Some(extras) = &mut extras {
            extras.context = Some(copy_context(py)?);
        }
        let job = Arc::new(Job::new(traits));
        let object = make(
            opened.job_class.bind(py),
            Parts {
                pool: slf.clone().unbind(),
                core: pool.clone(),
                job: job.clone(),
                name: name.map(Bound::unbind),
                user: user.map(Bound::unbind),
                owned,
                extras,
                context: copy_context(py)?,
                work,
            },
        )?;
        let mut placed = Placed(traits.in_place != 0 && current::job(py).is_none() && in_place::take_place());
        if placed.0 && Self::take_in_place(slf, &object)? {
            placed.0 = false;
            return Self::taken(slf, object);
        }
        let mut entrance = Entrance::Queue;
        let mut deadline = None;
        loop {
            let held = Held(object.clone().unbind());
            match pool.admit(&job, held, entrance) {
                Ok(()) => break,
                Err((Refusal::Finished, held)) => {
                    drop(held);
                    return Err(errors::pool_finished(py, &opened.name));
                }
                Err((Refusal::Full, held)) => {
                    drop(held);
                    match when_full {
                        WhenFull::RunHere => entrance = Entrance::Here,
                        WhenFull::Wait if !attach::lent() => {
                            let limit = attach::timeout("full_timeout", opened.full_timeout)?;
                            let now = std::time::Instant::now();
                            let until = *deadline.get_or_insert(limit.map(|limit| now + limit));
                            let left = until.map(|until| until.saturating_duration_since(now));
                            let room = attach::wait(py, left, |limit| pool.wait_room(limit))?;
                            if !room {
                                return Err(this.full(slf, pool));
                            }
                        }
                        WhenFull::Wait | WhenFull::Refuse => return Err(this.full(slf, pool)),
                    }
                }
            }
        }
        if let Err(error) = object.get().join_owner(py) {
            let withdrawn = pool.withdraw(&job);
            if withdrawn.is_some() {
                drop(withdrawn);
                return Err(error);
            }
            // Told to stop meanwhile: it was taken, and is cleaned up.
        }
        if entrance == Entrance::Here {
            drop(placed);
            pool.keep_slot(&job);
            let object = Self::taken(slf, object)?;
            slf.call_method1("_run_here", (Worker::here(py, object.clone().unbind())?, &object))?;
            return Ok(object);
        }
        let wanted = pool.enqueue(&job, placed.0);
        if placed.0 {
            placed.0 = false;
            in_place::take_later(pool);
        }
        let starts = matches!(wanted, Wanted::Start(_) | Wanted::Send);
        Self::perform(slf, pool, wanted);
        if starts && !pool.has_threads() {
            if let Some(held) = pool.withdraw(&job) {
                object.get().leave_owner();
                drop(held);
                return Err(PyRuntimeError::new_err(format!(
                    "pool {:?} has no thread and could not start one: the process has as many as it may",
                    opened.name
                )));
            }
        }
        Self::taken(slf, object)
    }

    /// Tries to give it a slot on this joined thread, where a place was taken for it; false if it has to be queued.
    fn take_in_place(slf: &Bound<'_, Self>, object: &Bound<'_, JobCore>) -> PyResult<bool> {
        let py = slf.py();
        let pool = slf.get().core(py)?;
        let job = object.get().job();
        if let Err((_, held)) = pool.admit(job, Held(object.clone().unbind()), Entrance::InPlace) {
            drop(held);
            return Ok(false);
        }
        if let Err(error) = object.get().join_owner(py) {
            let withdrawn = pool.withdraw(job);
            if withdrawn.is_some() {
                drop(withdrawn);
                return Err(error);
            }
            // Told to stop meanwhile: it was taken, and this thread gives its slot back.
        }
        pool.keep_slot(job);
        in_place::run_later(object);
        Ok(true)
    }

    fn taken<'py>(slf: &Bound<'py, Self>, object: Bound<'py, JobCore>) -> PyResult<Bound<'py, JobCore>> {
        if let Some(hook) = slf.get().opened()?.on_submit.as_ref() {
            slf.call_method1("_call_hook", ("on_submit", hook, &object))?;
        }
        Ok(object)
    }

    fn full(&self, slf: &Bound<'_, Self>, pool: &CorePool) -> PyErr {
        pool.count_refused();
        errors::pool_full(slf.py(), slf.as_any(), pool.options().max_queue_depth.unwrap_or(0))
    }

    pub(super) fn work(
        function: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        kwargs: Option<Bound<'_, PyDict>>,
    ) -> Work {
        Work { function: function.unbind(), args: args.unbind(), kwargs: kwargs.map(Bound::unbind) }
    }
}

impl JobCore {
    /// Its owner gets to know of it; refused if that has ended.
    fn join_owner(&self, py: Python<'_>) -> PyResult<()> {
        let Some(owned) = self.owned() else { return Ok(()) };
        let event_loop: &LoopCore = owned.event_loop.get();
        let joined = event_loop.core()?.own(&owned.owner, self.job(), self.core().clone());
        joined.map_err(|error| {
            let mut about = errors::About { name: event_loop.name(), ..errors::About::default() };
            match &owned.owner {
                Owner::Watch(watch) => about.fd = watch.fd(),
                Owner::Strand(_) => about.strand = Some(owned.object.bind(py).clone()),
            }
            errors::raise(py, error, &about)
        })
    }

    fn leave_owner(&self) {
        if let Some(owned) = self.owned()
            && let Ok(event_loop) = owned.event_loop.get().core()
        {
            event_loop.disown(&owned.owner, self.job());
        }
    }
}
