//! The client's side of a request in the lane: nothing is waited for without watching whether it is still there.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};

use crate::proxy::conn::Conn;
use crate::proxy::engine::CLIENT_WRITE_TIMEOUT;
use crate::proxy::http1::expired;
use crate::proxy::transport::Transport;

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The client left.
    Gone,
    Late,
}

/// A client's connection, and the timer that goes with it.
pub struct Client<'c> {
    pub conn: &'c mut Conn,
    timer: Pin<&'c mut Sleep>,
}

impl<'c> Client<'c> {
    pub fn new(conn: &'c mut Conn, timer: Pin<&'c mut Sleep>) -> Self {
        Self { conn, timer }
    }

    /// Waits for `work`, at most for `patience`, and no longer than the client does.
    pub async fn attend<T>(
        &mut self,
        patience: Duration,
        mut work: impl FnMut(&mut Conn, &mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Interruption> {
        let mut deadline = None;
        poll_fn(|context| {
            if let Poll::Ready(done) = work(self.conn, context) {
                return Poll::Ready(Ok(done));
            }
            if self.conn.poll_gone(context).is_ready() {
                return Poll::Ready(Err(Interruption::Gone));
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
            if expired(self.timer.as_mut(), deadline, context) {
                return Poll::Ready(Err(Interruption::Late));
            }
            Poll::Pending
        })
        .await
    }

    /// Writes `parts`, one behind the other and in as few pieces as the connection takes.
    pub async fn send(&mut self, parts: &[&[u8]]) -> Result<(), Interruption> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        while sent < total {
            let write = |conn: &mut Conn, context: &mut Context<'_>| poll_send(conn.transport(), context, parts, sent);
            sent += self.attend(CLIENT_WRITE_TIMEOUT, write).await?.map_err(|_| Interruption::Gone)?;
        }
        Ok(())
    }

    /// Waits until everything that was sent is on its way.
    pub async fn flush(&mut self) -> Result<(), Interruption> {
        let flush = |conn: &mut Conn, context: &mut Context<'_>| Pin::new(conn.transport()).poll_flush(context);
        self.attend(CLIENT_WRITE_TIMEOUT, flush).await?.map_err(|_| Interruption::Gone)
    }
}

/// Most parts of one write.
const MAX_PARTS: usize = 4;

fn poll_send(
    transport: &mut Transport,
    context: &mut Context<'_>,
    parts: &[&[u8]],
    mut sent: usize,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); MAX_PARTS];
    let mut count = 0;
    for part in parts {
        let skipped = sent.min(part.len());
        sent -= skipped;
        if skipped < part.len() && count < MAX_PARTS {
            slices[count] = IoSlice::new(&part[skipped..]);
            count += 1;
        }
    }
    match ready!(Pin::new(transport).poll_write_vectored(context, &slices[..count]))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}
