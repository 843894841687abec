//! A ring of this machine's kernel, on real files and pipes. Where there is no ring, these have nothing to say.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::pipe::pipe;

use super::*;

type Bytes = Box<[u8]>;

const LONG: Duration = Duration::from_secs(10);

fn ring(depth: u32) -> Option<Ring<Bytes>> {
    // Where the kernel has none to give there is nothing to test.
    Ring::open(depth).ok()
}

fn file(content: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("manyhands-ring-{}-{:?}", std::process::id(), thread::current().id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(content).unwrap();
    file
}

fn submit(ring: &Ring<Bytes>, code: Code, fd: RawFd, mut memory: Bytes, offset: u64) -> Token {
    let request = Request { code, fd, address: memory.as_mut_ptr() as usize, bytes: memory.len() as u32, offset };
    // SAFETY: the memory is the payload's, and a box does not move what is in it.
    let token = unsafe { ring.submit(request, memory) }.unwrap();
    ring.flush();
    token
}

fn read_into(ring: &Ring<Bytes>, fd: RawFd, bytes: usize, offset: u64) -> Token {
    submit(ring, Code::Read, fd, vec![0; bytes].into(), offset)
}

fn reap(ring: &Ring<Bytes>, count: usize) -> Vec<Done<Bytes>> {
    let deadline = Instant::now() + LONG;
    let mut done = Vec::new();
    while done.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} have ended", done.len());
        ring.wait(Duration::from_millis(100));
        done.extend(ring.reap().0);
        ring.flush();
    }
    done
}

fn signalled(ring: &Ring<Bytes>) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&*ring.signal, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

fn empty_pipe() -> (OwnedFd, OwnedFd) {
    pipe().unwrap()
}

#[test]
fn a_read_gives_what_there_is_and_the_end_of_the_file_is_short() {
    let Some(ring) = ring(4) else { return };
    let file = file(b"0123456789");
    for (offset, wanted) in [(0, &b"012345"[..]), (7, b"789"), (10, b"")] {
        read_into(&ring, file.as_raw_fd(), 6, offset);
        let done = reap(&ring, 1).remove(0);
        assert_eq!(done.result, Ok(wanted.len() as u32));
        assert_eq!(&done.payload[..wanted.len()], wanted);
    }
}

#[test]
fn what_was_written_is_read_after_a_sync() {
    let Some(ring) = ring(4) else { return };
    let file = file(b"");
    submit(&ring, Code::Write, file.as_raw_fd(), (*b"abc").into(), 2);
    assert_eq!(reap(&ring, 1)[0].result, Ok(3));
    submit(&ring, Code::Sync, file.as_raw_fd(), Box::new([]), 0);
    assert_eq!(reap(&ring, 1)[0].result, Ok(0));
    read_into(&ring, file.as_raw_fd(), 9, 0);
    assert_eq!(&reap(&ring, 1)[0].payload[..5], b"\0\0abc");
}

#[test]
fn an_error_of_the_kernel_is_the_result() {
    let Some(ring) = ring(4) else { return };
    read_into(&ring, 1_000_000, 1, 0);
    assert_eq!(reap(&ring, 1)[0].result, Err(Errno::BADF.raw_os_error()));
}

#[test]
fn the_signal_comes_with_a_completion_and_goes_with_the_reaping() {
    let Some(ring) = ring(4) else { return };
    let (reader, writer) = empty_pipe();
    read_into(&ring, reader.as_raw_fd(), 1, 0);
    assert!(!signalled(&ring));
    write(&writer, b"x").unwrap();
    assert!(ring.wait(LONG));
    assert!(signalled(&ring));
    assert_eq!(ring.reap().0.len(), 1);
    assert!(!signalled(&ring));
}

#[test]
fn more_operations_than_the_ring_holds_all_end() {
    let Some(ring) = ring(2) else { return };
    let file = file(&[7; 64]);
    for offset in 0..64 {
        read_into(&ring, file.as_raw_fd(), 1, offset);
    }
    assert!(ring.inside() <= 2);
    assert!(reap(&ring, 64).iter().all(|done| done.result == Ok(1) && done.payload[0] == 7));
    assert_eq!(ring.pending(), 0);
}

#[test]
fn a_cancel_in_flight_gives_the_memory_back_with_its_completion() {
    let Some(ring) = ring(4) else { return };
    let (reader, _writer) = empty_pipe();
    let token = read_into(&ring, reader.as_raw_fd(), 1, 0);
    assert!(matches!(ring.cancel(token), Cancelled::Asked));
    assert_eq!(ring.pending(), 1);
    ring.flush();
    let done = reap(&ring, 1).remove(0);
    assert_eq!(done.result, Err(Errno::CANCELED.raw_os_error()));
    assert!(matches!(ring.cancel(token), Cancelled::Gone));
}

#[test]
fn data_that_won_against_a_cancel_is_the_result() {
    let Some(ring) = ring(4) else { return };
    let (reader, writer) = empty_pipe();
    let token = read_into(&ring, reader.as_raw_fd(), 1, 0);
    write(&writer, b"x").unwrap();
    assert!(ring.wait(LONG));
    assert!(matches!(ring.cancel(token), Cancelled::Asked));
    ring.flush();
    let done = reap(&ring, 1).remove(0);
    assert_eq!((done.result, done.payload[0]), (Ok(1), b'x'));
}

#[test]
fn the_end_of_the_thread_that_submitted_ends_no_operation() {
    let Some(ring) = ring(4) else { return };
    let (reader, writer) = empty_pipe();
    thread::scope(|scope| scope.spawn(|| read_into(&ring, reader.as_raw_fd(), 1, 0)).join().unwrap());
    // The kernel may say at once that it cancelled it; it is put in again, and is no result.
    ring.wait(Duration::from_millis(10));
    assert_eq!(ring.reap().0.len(), 0);
    ring.flush();
    write(&writer, b"x").unwrap();
    assert_eq!(reap(&ring, 1)[0].result, Ok(1));
}

#[test]
fn several_threads_submit_and_reap_and_each_operation_ends_once() {
    let Some(ring) = ring(8) else { return };
    let file = file(&[1; 16]);
    let total: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut ended = 0;
                    for offset in 0..500 {
                        read_into(&ring, file.as_raw_fd(), 1, offset % 16);
                        ended += ring.reap().0.len();
                        ring.flush();
                    }
                    ended
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(total + reap(&ring, 1500 - total).len(), 1500);
    assert_eq!((ring.pending(), ring.inside()), (0, 0));
}

#[test]
fn a_closed_ring_takes_nothing_and_the_kernel_lets_go_of_what_it_has() {
    let Some(ring) = ring(1) else { return };
    let (reader, _writer) = empty_pipe();
    read_into(&ring, reader.as_raw_fd(), 1, 0);
    read_into(&ring, reader.as_raw_fd(), 1, 0);
    assert_eq!(ring.close().len(), 1, "the one that waited");
    ring.flush();
    assert_eq!(reap(&ring, 1)[0].result, Err(Errno::CANCELED.raw_os_error()));
    let request = Request { code: Code::Sync, fd: 0, address: 0, bytes: 0, offset: 0 };
    // SAFETY: no memory.
    assert!(unsafe { ring.submit(request, Box::new([])) }.is_err());
}

#[test]
fn memory_that_the_kernel_has_is_never_given_to_somebody_else() {
    struct Memory(Bytes, #[expect(dead_code, reason = "counted, not read")] Arc<()>);
    let Ok(ring) = Ring::<Memory>::open(1) else { return };
    let (reader, _writer) = empty_pipe();
    let alive = Arc::new(());
    let mut memory = Memory(vec![0; 1].into(), alive.clone());
    let address = memory.0.as_mut_ptr() as usize;
    let request = Request { code: Code::Read, fd: reader.as_raw_fd(), address, bytes: 1, offset: 0 };
    // SAFETY: as in `submit`.
    assert!(unsafe { ring.submit(request, memory) }.is_ok());
    ring.flush();
    drop(ring);
    assert_eq!(Arc::strong_count(&alive), 2, "given up, not dropped");
}

#[test]
fn a_ring_that_the_kernel_refuses_says_which_step_and_why() {
    let refuse = |errno: Errno| move |_: u32| Err(io::Error::from_raw_os_error(errno.raw_os_error()));
    for errno in [Errno::PERM, Errno::NOSYS, Errno::MFILE] {
        let refused = Ring::<Bytes>::open_by(4, refuse(errno)).err();
        assert_eq!(refused, Some(Unavailable::Refused("io_uring_setup", errno.raw_os_error())));
    }
    let text = Ring::<Bytes>::open_by(4, refuse(Errno::PERM)).err().unwrap().to_string();
    assert_eq!(text, "io_uring_setup: Operation not permitted (os error 1)");
}
