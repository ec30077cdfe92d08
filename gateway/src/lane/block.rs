//! Buffers for what passes from target to client. A request has one only while something is on its way in it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Size of a block that begins an answer, and so the most that its head may have.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// Size of a block for what is long: it asks the kernel, and wakes the client, a quarter as often.
pub const LARGE_BLOCK_BYTES: usize = 256 * 1024;
/// Bytes that a thread keeps in blocks of each size for the next request.
const MAX_KEPT_BYTES: usize = 2 * 1024 * 1024;

thread_local! {
    static KEPT: [RefCell<Vec<Box<[u8]>>>; 2] = const { [const { RefCell::new(Vec::new()) }; 2] };
}

/// Which of the two sizes a block has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Size {
    #[default]
    Ordinary,
    Large,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Ordinary => BLOCK_BYTES,
            Self::Large => LARGE_BLOCK_BYTES,
        }
    }
}

/// Bytes that were received and not yet sent on.
#[derive(Debug, Default)]
pub struct Block {
    size: Size,
    /// Empty until something is received.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Block {
    /// One of [`LARGE_BLOCK_BYTES`].
    pub fn large() -> Self {
        Self { size: Size::Large, bytes: Box::default(), start: 0, end: 0 }
    }

    pub fn is_large(&self) -> bool {
        self.size == Size::Large
    }

    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn is_full(&self) -> bool {
        self.end == self.size.bytes()
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
        if self.start == self.end {
            self.give_back();
        }
    }

    /// Receives up to `most` bytes behind those that are there; ready with 0 at the end of the stream.
    pub fn poll_receive(
        &mut self,
        stream: &mut TcpStream,
        most: u64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        // Who waits has no block, unless there is something in it.
        ready!(stream.poll_read_ready(context))?;
        let size = self.size.bytes();
        if self.bytes.is_empty() {
            let kept = KEPT.with(|kept| kept[self.size as usize].borrow_mut().pop());
            self.bytes = kept.unwrap_or_else(|| vec![0; size].into());
        }
        let end = size.min(self.end.saturating_add(usize::try_from(most).unwrap_or(size)));
        let mut unfilled = ReadBuf::new(&mut self.bytes[self.end..end]);
        let polled = Pin::new(stream).poll_read(context, &mut unfilled);
        let count = unfilled.filled().len();
        self.end += count;
        if self.start == self.end {
            self.give_back();
        }
        polled.map_ok(|()| count)
    }

    fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        let bytes = std::mem::take(&mut self.bytes);
        // While its thread ends there is nobody to keep it for.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept[self.size as usize].borrow_mut();
            if !bytes.is_empty() && kept.len() < MAX_KEPT_BYTES / self.size.bytes() {
                kept.push(bytes);
            }
        });
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.give_back();
    }
}
