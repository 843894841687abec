//! A poller on loom's primitives, and the kernel behind it: files with a number, a condition and a registration.
//!
//! It keeps what the contract (`poller.rs`) promises of epoll and no more: reports once, by level or by edge, a registration that
//! is forgotten when its file is closed, and one that is not because a duplicate lives, changes that go by number, a wake
//! that stays until a wait has returned for it.
//! Two threads in `wait` at once are a failed test: never two leaders.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use loom::sync::{Condvar, Mutex};
use manyhands_core::poller::{self, Events, Mode, PollError, PollEvent, Poller};

#[derive(Clone, Copy)]
struct Registration {
    token: u64,
    events: Events,
    armed: bool,
    mode: Mode,
}

#[derive(Clone, Copy, Default)]
struct File {
    /// How many files have had the number before.
    inode: u32,
    ready: Events,
    /// Something came since it was reported.
    fresh: bool,
    registration: Option<Registration>,
}

#[derive(Default)]
struct Kernel {
    /// By number; None where no file is open.
    files: Vec<Option<File>>,
    /// Files that no number leads to any more, and that duplicates keep open.
    dead: Vec<File>,
    woken: bool,
    waiting: bool,
}

/// The test's side of the poller: what the world does to the files.
#[derive(Clone)]
pub struct Files(Arc<(Mutex<Kernel>, Condvar)>, bool, bool);

impl Files {
    /// `count` open files, numbered from 0, of which nothing is ready.
    pub fn open(count: usize) -> Self {
        let kernel = Kernel { files: vec![Some(File::default()); count], ..Kernel::default() };
        Self(Arc::new((Mutex::new(kernel), Condvar::new())), crate::turning::level(), true)
    }

    /// As [`Self::open`], of a poller that has no edges.
    pub fn without_edges(count: usize) -> Self {
        Self { 2: false, ..Self::open(count) }
    }

    /// The loop's side.
    pub fn poller(&self) -> Box<dyn Poller> {
        Box::new(Fake(self.clone()))
    }

    /// Something can be read from it, until [`Self::read`].
    pub fn write(&self, fd: RawFd) {
        self.with(fd, |file| {
            file.ready |= Events::READ;
            file.fresh = true;
        });
        self.0.1.notify_one();
    }

    /// A handler reads everything.
    pub fn read(&self, fd: RawFd) {
        self.with(fd, |file| file.ready = Events::NONE);
    }

    /// A task reads everything: whether there was anything.
    pub fn take(&self, fd: RawFd) -> bool {
        self.with(fd, |file| core::mem::replace(&mut file.ready, Events::NONE) != Events::NONE)
    }

    /// How many files have had the number before.
    pub fn inode(&self, fd: RawFd) -> u32 {
        self.with(fd, |file| file.inode)
    }

    /// A handler reads everything from the first file that had this number, if it is still there.
    pub fn read_first(&self, fd: RawFd) {
        self.with(fd, |file| {
            if file.inode == 0 {
                file.ready = Events::NONE;
            }
        });
    }

    /// Its descriptor is closed and the number is given to a new file at once, as `open` does.
    pub fn close_and_reuse(&self, fd: RawFd) {
        self.with(fd, |file| *file = File { inode: file.inode + 1, ..File::default() });
    }

    /// As [`Self::close_and_reuse`], but a duplicate keeps the old file open, and its registration with it.
    pub fn close_and_reuse_duplicated(&self, fd: RawFd) {
        let mut kernel = self.0.0.lock().unwrap();
        let file = kernel.files[fd as usize].as_mut().expect("the test uses open files");
        let fresh = File { inode: file.inode + 1, ..File::default() };
        let dead = core::mem::replace(file, fresh);
        kernel.dead.push(dead);
    }

    /// How many registrations there are that no number leads to.
    pub fn dead(&self) -> usize {
        self.0.0.lock().unwrap().dead.iter().filter(|file| file.registration.is_some()).count()
    }

    /// The token of what is registered under a number, and whether it would be reported.
    pub fn registered(&self, fd: RawFd) -> Option<(u64, bool)> {
        let registration = self.with(fd, |file| file.registration);
        registration.map(|registration| (registration.token, registration.armed))
    }

    /// Whether it is registered to be reported again and again.
    pub fn by_level(&self, fd: RawFd) -> bool {
        self.with(fd, |file| file.registration.is_some_and(|registration| registration.mode == Mode::Level))
    }

    /// What a number's registration asks for.
    pub fn interest(&self, fd: RawFd) -> Option<Events> {
        self.with(fd, |file| file.registration.map(|registration| registration.events))
    }

    fn with<R>(&self, fd: RawFd, change: impl FnOnce(&mut File) -> R) -> R {
        let mut kernel = self.0.0.lock().unwrap();
        change(kernel.files[fd as usize].as_mut().expect("the test uses open files"))
    }
}

struct Fake(Files);

/// The kernel forgets what a poller was told when the poller is closed.
impl Drop for Fake {
    fn drop(&mut self) {
        let mut kernel = self.0.0.0.lock().unwrap();
        kernel.dead.clear();
        for file in kernel.files.iter_mut().flatten() {
            file.registration = None;
        }
    }
}

impl Fake {
    fn change<R>(
        &self,
        fd: RawFd,
        change: impl FnOnce(&mut Option<Registration>) -> Result<R, PollError>,
    ) -> Result<R, PollError> {
        let mut kernel = self.0.0.0.lock().unwrap();
        let file = kernel.files.get_mut(fd as usize).and_then(Option::as_mut).ok_or(PollError::BadDescriptor)?;
        let result = change(&mut file.registration);
        drop(kernel);
        // A change takes effect for the wait in progress.
        self.0.0.1.notify_one();
        result
    }
}

impl Poller for Fake {
    fn add(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        self.change(fd, |registration| match registration {
            Some(_) => Err(PollError::Exists),
            None => {
                *registration = Some(Registration { token, events, armed: true, mode });
                Ok(())
            }
        })
    }

    fn modify(&self, fd: RawFd, token: u64, events: Events, mode: Mode) -> Result<(), PollError> {
        self.change(fd, |registration| match registration {
            None => Err(PollError::Missing),
            Some(_) => {
                *registration = Some(Registration { token, events, armed: true, mode });
                Ok(())
            }
        })
    }

    fn disarm(&self, fd: RawFd, token: u64) -> Result<(), PollError> {
        self.change(fd, |registration| match registration {
            None => Err(PollError::Missing),
            Some(registration) => {
                registration.token = token;
                registration.armed = false;
                registration.mode = Mode::OneShot;
                Ok(())
            }
        })
    }

    fn level_pays(&self) -> bool {
        self.0.1
    }

    fn has_edges(&self) -> bool {
        self.0.2
    }

    fn renew(&self, wanted: &[poller::Registration]) -> Result<(), PollError> {
        // Two steps, as for the kernel: what is changed in between is changed in the old set.
        let fresh: Vec<_> = wanted
            .iter()
            .map(|wanted| {
                let poller::Registration { fd, token, events, mode } = *wanted;
                let known = self.change(fd, |registration| {
                    let known = registration.is_some();
                    let armed = events != Events::NONE;
                    Ok(known.then_some(Registration { token, events, armed, mode }))
                });
                (fd, known.unwrap_or(None))
            })
            .collect();
        let mut kernel = self.0.0.0.lock().unwrap();
        kernel.dead.clear();
        for file in kernel.files.iter_mut().flatten() {
            file.registration = None;
        }
        for (fd, registration) in fresh {
            kernel.files[fd as usize].as_mut().expect("known, so open").registration = registration;
        }
        Ok(())
    }

    fn delete(&self, fd: RawFd) -> Result<(), PollError> {
        self.change(fd, |registration| registration.take().map(|_| ()).ok_or(PollError::Missing))
    }

    fn wait(&self, out: &mut Vec<PollEvent>, timeout: Option<Duration>) -> Result<usize, PollError> {
        let (kernel, changed) = &*self.0.0;
        let mut kernel = kernel.lock().unwrap();
        assert!(!kernel.waiting, "two threads lead");
        kernel.waiting = true;
        loop {
            let before = out.len();
            let Kernel { files, dead, .. } = &mut *kernel;
            for file in files.iter_mut().flatten().chain(dead) {
                let ready = file.ready;
                let Some(registration) = &mut file.registration else { continue };
                let events = Events(ready.0 & registration.events.0);
                let edge = registration.mode != Mode::Edge || core::mem::take(&mut file.fresh);
                if registration.armed && edge && !events.is_empty() {
                    registration.armed = registration.mode != Mode::OneShot;
                    out.push(PollEvent { token: registration.token, events });
                }
            }
            let found = out.len() - before;
            if kernel.woken || found > 0 || timeout == Some(Duration::ZERO) {
                kernel.woken = false;
                kernel.waiting = false;
                return Ok(found);
            }
            kernel = changed.wait(kernel).unwrap();
        }
    }

    fn ready(&self) -> Result<bool, PollError> {
        let kernel = self.0.0.0.lock().unwrap();
        Ok(kernel.files.iter().flatten().any(|file| {
            let registration = file.registration.filter(|registration| registration.armed);
            registration.is_some_and(|registration| registration.events.0 & file.ready.0 != 0)
        }))
    }

    fn wake(&self) {
        self.0.0.0.lock().unwrap().woken = true;
        self.0.0.1.notify_one();
    }

    fn raw_fds(&self) -> [RawFd; 2] {
        [-1; 2]
    }

    fn name(&self) -> &'static str {
        "fake"
    }
}
