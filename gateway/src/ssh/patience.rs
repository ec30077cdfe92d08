//! How long an end of a session may be silent, and a stream that fails when the other end takes nothing for so long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::ssh::kill_switch::Abort;

/// How often an end that says nothing is asked whether it is there, before it is given up on.
const QUESTIONS: usize = 3;

/// When a silent end is asked, and given up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// An end that says nothing for this long is asked, and asked again after as long.
    pub ask_every: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { ask_every: Duration::from_secs(30) }
    }
}

impl Patience {
    pub(super) fn questions(self) -> usize {
        QUESTIONS
    }

    /// From the last word of an end that is gone until its session ends.
    pub fn longest_silence(self) -> Duration {
        self.ask_every * (QUESTIONS as u32 + 1)
    }
}

/// A stream whose other end has to take something of what is written within a time: nobody can be asked anything as
/// long as the question waits behind what is not taken.
#[derive(Debug)]
pub struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Since when nothing is taken; made when that happens first.
    stalled: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
}

impl<S> Impatient<S> {
    pub fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stalled: None, is_stalled: false }
    }

    /// What a write came to, unless nothing was taken for too long.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_stalled = false;
            return written;
        }
        let until = Instant::now() + self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !std::mem::replace(&mut self.is_stalled, true) {
            stalled.as_mut().reset(until);
        }
        ready!(stalled.as_mut().poll(context));
        let seconds = self.patience.as_secs_f32();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing was taken for {seconds} s"))))
    }
}

impl<S: Abort> Abort for Impatient<S> {
    fn abort(&self) {
        self.stream.abort();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_now_and_then_is_waited_for_and_who_takes_nothing_is_not() {
        let (mut far, near) = tokio::io::duplex(10);
        let mut near = Impatient::new(near, Duration::from_secs(4));
        let reading = tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(3)).await;
                far.read_exact(&mut [0; 10]).await.unwrap();
            }
            // Nothing more is read, and nobody is told.
            std::future::pending::<()>().await;
            drop(far);
        });
        near.write_all(&[0; 60]).await.unwrap();
        let begun = Instant::now();
        let error = near.write_all(&[0]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, Duration::from_secs(4)));
        reading.abort();
    }
}
