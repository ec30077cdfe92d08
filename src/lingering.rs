//! A connection that ends in a way that lets its client read the last answer.
//!
//! An upload that is refused is answered while its client still sends. A socket that is closed with bytes unread resets
//! the connection, and the answer may be lost on the way. So what still comes is read for a moment, and thrown away.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// How long the client may go on, and with how many bytes.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_DISCARDED_BYTES: usize = 64 << 20;

/// The connection; its shutdown waits for the client's.
#[derive(Debug)]
pub struct Lingering {
    stream: TcpStream,
    /// Cancelled: there is no time for it.
    hurry: CancellationToken,
    closing: Option<Closing>,
}

/// The answer is sent, and said to be all.
#[derive(Debug)]
struct Closing {
    deadline: Pin<Box<Sleep>>,
    left_bytes: usize,
}

impl Lingering {
    pub fn new(stream: TcpStream, hurry: CancellationToken) -> Self {
        Self { stream, hurry, closing: None }
    }

    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timer =
            || Closing { deadline: Box::pin(tokio::time::sleep(LINGER_TIMEOUT)), left_bytes: MAX_DISCARDED_BYTES };
        let closing = self.closing.get_or_insert_with(timer);
        let mut bytes = [0; 16 * 1024];
        loop {
            let is_over = self.hurry.is_cancelled() || closing.left_bytes == 0;
            if is_over || closing.deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    closing.left_bytes = closing.left_bytes.saturating_sub(buffer.filled().len());
                }
                // The client is done, or gone.
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        ready!(self.poll_discard(context));
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        (client, listener.accept().await.expect("a connection").0)
    }

    #[tokio::test]
    async fn a_client_that_still_sends_reads_the_answer() {
        let (mut client, server) = pair().await;
        let mut server = Lingering::new(server, CancellationToken::new());
        let answering = tokio::spawn(async move {
            server.write_all(b"no").await.expect("written");
            server.shutdown().await.expect("shut down");
        });
        let block = vec![0; 64 * 1024];
        for _ in 0..64 {
            client.write_all(&block).await.expect("the server still reads");
        }
        client.shutdown().await.expect("shut down");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("no reset");
        assert_eq!(answer, "no");
        answering.await.expect("the server ends when its client does");
    }

    #[tokio::test]
    async fn a_client_that_goes_on_and_on_is_cut_off() {
        let (_client, server) = pair().await;
        let mut server = Lingering::new(server, CancellationToken::new());
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        server.shutdown().await.expect("shut down");
        assert!(begun.elapsed() >= LINGER_TIMEOUT);
    }

    #[tokio::test]
    async fn in_a_hurry_nobody_is_waited_for() {
        let (_client, server) = pair().await;
        let hurry = CancellationToken::new();
        hurry.cancel();
        Lingering::new(server, hurry).shutdown().await.expect("at once");
    }
}
