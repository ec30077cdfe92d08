//! What ends a session at once, whether its ends read and write or not.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::listeners::Rewind;

/// Ends both legs of a session. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct KillSwitch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    reason: OnceLock<Reason>,
    /// The session is to end: its container is left at once, and its client told why if it listens.
    asked: CancellationToken,
    /// The sockets are dead.
    dead: CancellationToken,
}

/// Why a session is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One of a bounded set, for logs and metrics.
    pub word: &'static str,
    /// For the person at the client.
    pub message: String,
}

impl KillSwitch {
    /// Ends the session. Who comes first gives the reason.
    pub fn kill(&self, word: &'static str, message: impl Into<String>) {
        // A second reason is none: the session ends already.
        let _ = self.0.reason.set(Reason { word, message: message.into() });
        self.0.asked.cancel();
    }

    /// Resolves when the session is to end.
    pub async fn asked(&self) -> Reason {
        self.0.asked.cancelled().await;
        let unsaid = || Reason { word: "killed", message: "the session was ended".to_owned() };
        self.0.reason.get().cloned().unwrap_or_else(unsaid)
    }

    pub fn is_asked(&self) -> bool {
        self.0.asked.is_cancelled()
    }

    /// Cancelled when the session is to end.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.0.asked
    }

    /// Nothing more is said to the client.
    pub(super) fn cut_client(&self) {
        self.0.dead.cancel();
    }

    /// A client's socket: it survives the order to end for as long as it takes to be told.
    pub(super) fn client_socket<S>(&self, stream: S) -> Mortal<S> {
        Mortal::new(stream, &self.0.dead)
    }

    /// A container's socket: it dies with the order to end.
    pub(super) fn container_socket<S>(&self, stream: S) -> Mortal<S> {
        Mortal::new(stream, &self.0.asked)
    }
}

/// A stream that fails from the moment of its death, whatever it waits for.
#[derive(Debug)]
pub struct Mortal<S> {
    stream: S,
    /// Each wakes the one task that polled it last; reader and writer may be two.
    to_reader: Death,
    to_writer: Death,
}

#[derive(Debug)]
struct Death {
    token: CancellationToken,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// A stream that can be broken off: what was not sent is not, and the other end is told of an error.
pub trait Abort {
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        // Without it, a client that does not read keeps the connection until it does.
        let _ = rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }
}

impl Abort for Rewind {
    fn abort(&self) {
        self.stream.abort();
    }
}

impl<S: Abort> Mortal<S> {
    /// Failing if dead. Otherwise the task is woken by death.
    fn check(death: &mut Death, stream: &S, context: &mut Context<'_>) -> io::Result<()> {
        if death.token.is_cancelled() || death.waiting.as_mut().poll(context).is_ready() {
            stream.abort();
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session was ended"));
        }
        Ok(())
    }
}

impl<S> Mortal<S> {
    fn new(stream: S, death: &CancellationToken) -> Self {
        Self { stream, to_reader: Death::new(death), to_writer: Death::new(death) }
    }
}

impl Death {
    fn new(token: &CancellationToken) -> Self {
        Self { token: token.clone(), waiting: Box::pin(token.clone().cancelled_owned()) }
    }
}

impl<S: AsyncRead + Abort + Unpin> AsyncRead for Mortal<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, to_reader, .. } = &mut *self;
        Self::check(to_reader, stream, context)?;
        Pin::new(stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Abort + Unpin> AsyncWrite for Mortal<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, to_writer, .. } = &mut *self;
        Self::check(to_writer, stream, context)?;
        Pin::new(stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, to_writer, .. } = &mut *self;
        Self::check(to_writer, stream, context)?;
        Pin::new(stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, to_writer, .. } = &mut *self;
        Self::check(to_writer, stream, context)?;
        Pin::new(stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    impl Abort for DuplexStream {
        fn abort(&self) {}
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_reader_that_waits_and_a_writer_that_is_stuck_end_at_once() {
        let kill = KillSwitch::default();
        let (near, _far) = duplex(16);
        let (mut read, mut write) = tokio::io::split(kill.container_socket(near));
        let reading = tokio::spawn(async move { read.read_u8().await });
        let writing = tokio::spawn(async move { write.write_all(&[0; 64]).await });
        tokio::task::yield_now().await;
        assert!(!reading.is_finished() && !writing.is_finished());
        kill.kill("test", "it is a test");
        let read = tokio::time::timeout(SOON, reading).await.unwrap().unwrap();
        let written = tokio::time::timeout(SOON, writing).await.unwrap().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_client_can_be_told_why_until_it_is_cut_off() {
        let kill = KillSwitch::default();
        let (near, mut far) = duplex(16);
        let mut near = kill.client_socket(near);
        kill.kill("first", "because");
        kill.kill("second", "too late");
        assert_eq!(kill.asked().await, Reason { word: "first", message: "because".to_owned() });
        near.write_all(b"why").await.unwrap();
        let mut said = [0; 3];
        far.read_exact(&mut said).await.unwrap();
        kill.cut_client();
        assert!(near.write_all(b"more").await.is_err());
    }
}
