//! The body of an answer, from its target to the client. What one does not take, the other is not asked for: a body of
//! any length passes through one block or one pipe.

use std::future::poll_fn;
use std::io;
use std::task::{self, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::lane::Failure;
use crate::lane::block::{Block, LARGE_BLOCK_BYTES};
use crate::lane::client::{Client, Interruption};
use crate::lane::pipe::Pipe;
use crate::lane::response::Body;
use crate::proxy::chunks::ChunkScanner;
use crate::proxy::conn::Conn;
use crate::proxy::context::Context;
use crate::proxy::engine::CLIENT_WRITE_TIMEOUT;
use crate::reason::Reason;

/// A body with at least so many bytes to come goes through a pipe, or where it cannot through a large block.
const MIN_LONG_BYTES: u64 = 128 * 1024;

/// Where a body ends, as its bytes arrive.
#[derive(Debug)]
enum Framer {
    Bytes { left: u64 },
    Chunked(ChunkScanner),
    UntilClose,
}

impl Framer {
    fn new(body: Body) -> Self {
        match body {
            Body::Bytes(left) => Self::Bytes { left },
            Body::Chunked => Self::Chunked(ChunkScanner::default()),
            Body::UntilClose => Self::UntilClose,
        }
    }

    /// How many of `bytes`, which came next, belong to the body, and how many of these to what it says.
    fn take(&mut self, bytes: &[u8]) -> Result<(usize, u64), Failure> {
        match self {
            Self::Bytes { left } => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok((taken, taken as u64))
            }
            Self::Chunked(chunks) => {
                let before = chunks.data_bytes();
                let malformed = "a chunk of the answer is malformed";
                let taken = chunks.advance(bytes);
                let taken = taken.map_err(|_| Failure::new(Reason::UpstreamInvalidResponse, malformed))?;
                Ok((taken, chunks.data_bytes() - before))
            }
            Self::UntilClose => Ok((bytes.len(), bytes.len() as u64)),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Bytes { left } => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Most bytes to receive next: what is behind the end of a body is better left where it is.
    fn wanted(&self) -> u64 {
        match self {
            Self::Bytes { left } => *left,
            Self::Chunked(_) | Self::UntilClose => u64::MAX,
        }
    }
}

/// A body on its way.
pub struct Transfer<'t, 'c> {
    pub client: &'t mut Client<'c>,
    pub target: &'t mut TcpStream,
    /// Without a byte from the target.
    pub patience: Duration,
    pub context: &'t mut Context,
    /// The client has got something of the answer.
    pub has_begun: bool,
}

impl Transfer<'_, '_> {
    /// Sends `head` and what follows it: what `block` holds already, then what comes. Tells whether the target's
    /// connection is at the end of the answer and nowhere else.
    pub async fn run(&mut self, head: Vec<u8>, mut block: Block, body: Body) -> Result<bool, Failure> {
        let mut framer = Framer::new(body);
        if block.filled().is_empty() && !framer.is_done() {
            // The body often follows at once, and then leaves with the head.
            self.receive_at_once(&mut block, &framer).await?;
        }
        let mut head = &head[..];
        loop {
            let (taken, data) = framer.take(block.filled())?;
            self.has_begun = true;
            self.send(head, &block.filled()[..taken], &framer).await?;
            self.passed(data);
            head = &[];
            if framer.is_done() {
                let is_clean = taken == block.filled().len();
                self.client.flush().await?;
                return Ok(is_clean);
            }
            block.consume(taken);
            if framer.wanted() >= MIN_LONG_BYTES && !block.is_large() {
                if let Framer::Bytes { left } = &mut framer
                    && self.client.conn.plain().is_some()
                    && let Some(pipe) = Pipe::open()
                {
                    self.splice(pipe, *left).await?;
                    return Ok(true);
                }
                block = Block::large();
                self.client.conn.transport().encrypt_ahead(LARGE_BLOCK_BYTES);
            }
            if self.receive(&mut block, &framer).await? == 0 {
                if matches!(framer, Framer::UntilClose) {
                    self.client.send(&[b"0\r\n\r\n"]).await?;
                    self.client.flush().await?;
                    return Ok(false);
                }
                return Err(Failure::new(Reason::UpstreamClosed, "the answer ended too early"));
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Sends a piece of the body, behind `head` if that is still to go.
    async fn send(&mut self, head: &[u8], piece: &[u8], framer: &Framer) -> Result<(), Failure> {
        if matches!(framer, Framer::UntilClose) && !piece.is_empty() {
            let size = format!("{:x}\r\n", piece.len());
            self.client.send(&[head, size.as_bytes(), piece, b"\r\n"]).await?;
        } else {
            self.client.send(&[head, piece]).await?;
        }
        Ok(())
    }

    fn passed(&mut self, bytes: u64) {
        self.context.exchange.bytes_out += bytes;
        if let Some(scope) = &self.context.scope {
            scope.moved();
        }
    }

    async fn receive_at_once(&mut self, block: &mut Block, framer: &Framer) -> Result<(), Failure> {
        let received = poll_fn(|context| Poll::Ready(block.poll_receive(self.target, framer.wanted(), context)));
        match received.await {
            // An end is found again by whoever waits for more.
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
            Poll::Ready(Err(_)) => Err(broken()),
        }
    }

    /// Waits for more of the body; 0 at the end of the connection.
    async fn receive(&mut self, block: &mut Block, framer: &Framer) -> Result<usize, Failure> {
        let target = &mut *self.target;
        let receive =
            |_: &mut Conn, context: &mut task::Context<'_>| block.poll_receive(target, framer.wanted(), context);
        let received = self.client.attend(self.patience, receive);
        match received.await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(_)) => Err(broken()),
            Err(interruption) => Err(target_failure(interruption)),
        }
    }

    /// Moves the next `left` bytes through `pipe`, from socket to socket.
    async fn splice(&mut self, mut pipe: Pipe, mut left: u64) -> Result<(), Failure> {
        while left > 0 {
            let count = self.fill(&mut pipe, left).await?;
            if count == 0 {
                return Err(Failure::new(Reason::UpstreamClosed, "the answer ended too early"));
            }
            left -= count as u64;
            while pipe.held() > 0 {
                let count = self.drain(&mut pipe).await?;
                self.passed(count as u64);
            }
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    async fn fill(&mut self, pipe: &mut Pipe, left: u64) -> Result<usize, Failure> {
        let target = &*self.target;
        let filled = self.client.attend(self.patience, |_, context| {
            loop {
                ready!(target.poll_read_ready(context))?;
                match target.try_io(Interest::READABLE, || pipe.fill(target, left)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            }
        });
        match filled.await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(_)) => Err(broken()),
            Err(interruption) => Err(target_failure(interruption)),
        }
    }

    async fn drain(&mut self, pipe: &mut Pipe) -> Result<usize, Failure> {
        let drained = self.client.attend(CLIENT_WRITE_TIMEOUT, |conn, context| {
            let Some(socket) = conn.plain() else {
                return Poll::Ready(Err(Errno::NOTCONN.into()));
            };
            loop {
                ready!(socket.poll_write_ready(context))?;
                match socket.try_io(Interest::WRITABLE, || pipe.drain(socket)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            }
        });
        let gone = || Failure::new(Reason::ClientClosed, "the client left");
        drained.await.map_err(|_| gone())?.map_err(|_| gone())
    }
}

fn broken() -> Failure {
    Failure::new(Reason::UpstreamClosed, "the connection broke within the answer")
}

/// What it means that a wait for the target was interrupted.
pub fn target_failure(interruption: Interruption) -> Failure {
    match interruption {
        Interruption::Gone => Failure::new(Reason::ClientClosed, "the client left"),
        Interruption::Late => Failure::new(Reason::UpstreamTimeout, "the target sent nothing in time"),
    }
}
