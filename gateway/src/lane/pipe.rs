//! Pipes, through which the kernel moves a body from one socket to another without showing it to us.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What a pipe holds if the system lets us; else what it gives by itself.
const PIPE_BYTES: usize = 1024 * 1024;
/// Pipes that a thread keeps for the next body.
const MAX_KEPT_PIPES: usize = 8;
/// Pipes in use, which cost two file descriptors each; bodies beyond are copied.
const MAX_PIPES: usize = 1024;

static OPEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static KEPT: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

/// Both ends of a pipe that is empty while it is kept.
#[derive(Debug)]
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Drop for Ends {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ends {
    fn open() -> Option<Self> {
        if OPEN.fetch_add(1, Ordering::Relaxed) >= MAX_PIPES {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let Ok((reader, writer)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        // A smaller one works as well, only with more calls.
        let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
        Some(Self { reader, writer })
    }
}

/// A pipe for one body.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// A pipe, if one is to be had.
    pub fn open() -> Option<Self> {
        let ends = KEPT.with_borrow_mut(Vec::pop).or_else(Ends::open)?;
        Some(Self { ends: Some(ends), held: 0 })
    }

    /// Bytes inside.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `most` bytes from `socket` into the pipe, which is empty: if it would block, that is the socket's doing.
    pub fn fill(&mut self, socket: impl AsFd, most: u64) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let most = usize::try_from(most).unwrap_or(PIPE_BYTES).min(PIPE_BYTES);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = splice(socket, None, &ends.writer, None, most, flags)?;
        self.held += count;
        Ok(count)
    }

    /// Moves what is inside to `socket`, as far as it takes it.
    pub fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = splice(&ends.reader, None, socket, None, self.held, flags)?;
        self.held -= count;
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        if self.held > 0 {
            // What is left belongs to one client: it goes with the pipe.
            return;
        }
        // While its thread ends there is nobody to keep it for.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MAX_KEPT_PIPES {
                kept.push(ends);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_client_did_not_take_reaches_no_other() {
        let (mut sender, source) = UnixStream::pair().unwrap();
        let (sink, mut receiver) = UnixStream::pair().unwrap();
        sender.write_all(b"secret").unwrap();
        let mut pipe = Pipe::open().unwrap();
        assert_eq!((pipe.fill(&source, 4).unwrap(), pipe.held()), (4, 4));
        drop(pipe);
        assert_eq!(KEPT.with_borrow(Vec::len), 0, "it is not empty");
        let mut pipe = Pipe::open().unwrap();
        assert_eq!(pipe.fill(&source, u64::MAX).unwrap(), 2);
        assert_eq!((pipe.drain(&sink).unwrap(), pipe.held()), (2, 0));
        let mut got = [0; 2];
        receiver.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"et");
        drop(pipe);
        assert_eq!(KEPT.with_borrow(Vec::len), 1);
        source.set_nonblocking(true).unwrap();
        let nothing = Pipe::open().unwrap().fill(&source, 1);
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
