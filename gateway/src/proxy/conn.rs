//! A client's connection as the HTTP engine sees it: it reads one request at a time, and the head of
//! an answer leaves together with what follows it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::decision::BodyLength;
use crate::proxy::chunks::{BadChunk, ChunkScanner};
use crate::proxy::scope::ConnInfo;
use crate::proxy::transport::Transport;

/// Bytes of further requests read while one is being answered.
const MAX_READ_AHEAD_BYTES: usize = 16 * 1024;
/// An answer's head is held back to leave with up to this many bytes.
const MAX_HELD_BYTES: usize = 16 * 1024;
/// Unread bytes thrown away before a connection closes, so that the client gets to read the answer
/// instead of a reset (RFC 9112 §9.6).
const MAX_LINGER_BYTES: usize = 256 * 1024;
/// How long that may take.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the engine may still read of the request that it is in.
#[derive(Debug)]
enum Request {
    /// So many bytes; over HTTP/2, where this is no business of the connection's, without end.
    Bytes(u64),
    /// The rest of a head, then chunks.
    Chunked { head_bytes: usize, chunks: ChunkScanner },
}

/// A connection with at most one request open to its reader.
#[derive(Debug)]
pub struct Conn {
    transport: Transport,
    pub info: Arc<ConnInfo>,
    /// Received, and not yet read by the engine.
    pub inbox: BytesMut,
    /// What still belongs to the current request.
    request: Request,
    held: Vec<u8>,
    hold: bool,
    ended: bool,
}

impl Conn {
    pub fn new(transport: Transport, info: Arc<ConnInfo>) -> Self {
        let (inbox, held) = (BytesMut::new(), Vec::new());
        Self { transport, info, inbox, request: Request::Bytes(u64::MAX), held, hold: false, ended: false }
    }

    /// Opens the request at the front of the inbox: a head of `head_bytes`, and its body.
    pub fn begin(&mut self, head_bytes: usize, body: BodyLength) {
        self.request = match body {
            BodyLength::None => Request::Bytes(head_bytes as u64),
            BodyLength::Bytes(length) => Request::Bytes(length.saturating_add(head_bytes as u64)),
            BodyLength::Chunked => Request::Chunked { head_bytes, chunks: ChunkScanner::default() },
        };
        self.hold = true;
    }

    /// Receives into the inbox; ready with false at the end of the stream.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.inbox.is_empty() && self.held.capacity() > 0 && self.held.is_empty() {
            // An idle connection keeps no buffers.
            self.held = Vec::new();
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        ready!(Pin::new(&mut self.transport).poll_read(context, &mut buffer))?;
        self.inbox.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!buffer.filled().is_empty()))
    }

    /// The connection itself, for an engine that reads and writes it past the one whose requests [`Conn::begin`] opens.
    pub fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// The client's socket, if what is written to it is what the client gets.
    pub fn plain(&self) -> Option<&TcpStream> {
        match &self.transport {
            Transport::Plain(rewind) => Some(&rewind.stream),
            Transport::Tls(_) => None,
        }
    }

    /// Forgets the request at the front of the inbox, which has no body.
    pub fn take_head(&mut self, head_bytes: usize) {
        self.inbox.advance(head_bytes);
        if self.inbox.is_empty() {
            // An idle connection keeps no buffers.
            self.inbox = BytesMut::new();
        }
    }

    /// Ready when the client has left. What comes meanwhile is the next request, read ahead within bounds.
    pub fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_beyond(context).map(|_| ())
    }

    /// How many bytes the engine may read at most right now.
    fn allowance(&self) -> usize {
        if self.info.upgraded.load(Ordering::Acquire) {
            return usize::MAX;
        }
        match &self.request {
            Request::Bytes(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            Request::Chunked { chunks, .. } if chunks.is_done() => 0,
            Request::Chunked { .. } => usize::MAX,
        }
    }

    /// Accounts for bytes on their way to the engine, and returns how many of them it may have.
    fn account(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.request {
            _ if self.info.upgraded.load(Ordering::Acquire) => Ok(bytes.len()),
            Request::Bytes(left) => {
                *left = left.saturating_sub(bytes.len() as u64);
                Ok(bytes.len())
            }
            Request::Chunked { head_bytes, chunks } => {
                let head = bytes.len().min(*head_bytes);
                *head_bytes -= head;
                match chunks.advance(&bytes[head..]) {
                    Ok(body) => Ok(head + body),
                    // Without its head nobody could answer the request: the next read fails, at the same byte.
                    Err(BadChunk) if head > 0 => {
                        *chunks = ChunkScanner::default();
                        Ok(head)
                    }
                    Err(BadChunk) => {
                        self.info.bad_body.store(true, Ordering::Release);
                        Err(io::Error::new(io::ErrorKind::InvalidData, "malformed chunk"))
                    }
                }
            }
        }
    }

    /// The request is read to its end. Tells the engine of a client that left, and nothing else:
    /// what comes next is the next request.
    fn poll_beyond(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ended && self.inbox.len() < MAX_READ_AHEAD_BYTES {
            match ready!(self.poll_receive(context))? {
                true => {}
                false => self.ended = true,
            }
        }
        // A client that sent further requests and closed its side still waits for the answers.
        if self.ended && self.inbox.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Reads at most `most` bytes past the inbox.
    fn poll_straight(
        &mut self,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        if most >= buf.remaining() {
            ready!(Pin::new(&mut self.transport).poll_read(context, buf))?;
            return Poll::Ready(Ok(buf.filled().len() - before));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.transport).poll_read(context, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        Poll::Ready(Ok(count))
    }

    /// From here on nothing is held back.
    fn let_go(&mut self) {
        self.hold = false;
        self.info.holding.store(false, Ordering::Release);
    }

    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        while sent < self.held.len() {
            match Pin::new(&mut self.transport).poll_write(context, &self.held[sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.held.drain(..sent);
                    return Poll::Pending;
                }
            }
        }
        self.held.clear();
        Poll::Ready(Ok(()))
    }

    /// Writes `answer` as the last thing on this connection and closes it.
    pub async fn finish_with(&mut self, answer: &[u8]) {
        let write = async {
            self.transport.write_all(answer).await?;
            self.transport.flush().await
        };
        if let Ok(Ok(())) = tokio::time::timeout(LINGER_TIMEOUT, write).await {
            self.close().await;
        }
    }

    /// Closes, letting the client read what was sent.
    pub async fn close(&mut self) {
        let linger = async {
            self.flush().await?;
            self.transport.shutdown().await?;
            let mut thrown_away = [0u8; 4096];
            let mut total = 0;
            while !self.ended && total < MAX_LINGER_BYTES {
                match self.transport.read(&mut thrown_away).await? {
                    0 => break,
                    count => total += count,
                }
            }
            io::Result::Ok(())
        };
        // Nobody is left to tell of a failure; the drop that follows closes in any case.
        let _ = tokio::time::timeout(LINGER_TIMEOUT, linger).await;
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.info.give_up.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.info.release.swap(false, Ordering::AcqRel) {
            self.let_go();
            // If the socket is full the bytes wait, and are sent before any that follow.
            if let Poll::Ready(Err(error)) = self.poll_held(context) {
                return Poll::Ready(Err(error));
            }
        }
        let most = buf.remaining().min(self.allowance());
        if most == 0 {
            return self.poll_beyond(context);
        }
        if !self.inbox.is_empty() {
            let mut inbox = std::mem::take(&mut self.inbox);
            let count = most.min(inbox.len());
            let count = self.account(&inbox[..count])?;
            buf.put_slice(&inbox[..count]);
            inbox.advance(count);
            if !inbox.is_empty() {
                self.inbox = inbox;
            }
            return Poll::Ready(Ok(()));
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = self.poll_straight(context, buf, most);
        self.info.awaits_client.store(polled.is_pending(), Ordering::Release);
        let count = ready!(polled)?;
        if count == 0 {
            self.ended = true;
        }
        let taken = self.account(&buf.filled()[before..])?;
        if taken < count {
            // The next request has come along with the end of this one.
            self.inbox.extend_from_slice(&buf.filled()[before + taken..]);
            buf.set_filled(before + taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let fits = self.held.len() + buf.len() <= MAX_HELD_BYTES;
        if self.hold && fits {
            let first = self.held.is_empty();
            self.held.extend_from_slice(buf);
            if first {
                self.info.holding.store(true, Ordering::Release);
            } else {
                self.let_go();
                // If the socket is full the bytes wait, and are sent before any that follow.
                if let Poll::Ready(Err(error)) = self.poll_held(context) {
                    return Poll::Ready(Err(error));
                }
            }
            return Poll::Ready(Ok(buf.len()));
        }
        self.let_go();
        ready!(self.poll_held(context))?;
        Pin::new(&mut self.transport).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.let_go();
        ready!(self.poll_held(context))?;
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.transport).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.let_go();
        ready!(self.poll_held(context))?;
        Pin::new(&mut self.transport).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[async_trait]
impl Shutdown for Conn {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl UniqueID for Conn {
    fn id(&self) -> UniqueIDType {
        use std::os::fd::AsRawFd;
        match &self.transport {
            Transport::Plain(stream) => stream.stream.as_raw_fd(),
            Transport::Tls(stream) => stream.get_ref().0.stream.as_raw_fd(),
        }
    }
}

// The engine learns about the connection from `ConnInfo`, not from pingora's digests.
impl Ssl for Conn {}
impl Peek for Conn {}

impl GetTimingDigest for Conn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Conn {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Conn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
