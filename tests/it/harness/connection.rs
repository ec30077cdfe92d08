//! A client connection that sends exactly what a test says.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::record::within;
use super::response::{Broken, Framing, Head, Response, malformed, parse_trailers};

/// Anything that bytes go over: TCP, or TLS over TCP.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Longest head or chunk line that is read, in bytes.
const MAX_HEAD_BYTES: usize = 256 * 1024;

/// A peer that takes nothing for this long has stopped reading.
const STALL: Duration = Duration::from_secs(2);

/// How a peer bore a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// It took everything.
    Taken,
    /// It stopped reading, because nobody reads what it has to say.
    Stalled,
    Closed,
}

/// Bytes in both directions, and what came but was not read yet.
pub struct Connection {
    stream: Box<dyn Stream>,
    unread: BytesMut,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|e| panic!("connect to {address}: {e}"));
        stream.set_nodelay(true).expect("a connected socket takes options");
        Self::over(stream)
    }

    pub fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), unread: BytesMut::new() }
    }

    /// Hands the stream on to a library, such as an HTTP/2 or WebSocket client.
    #[track_caller]
    pub fn into_stream(self) -> Box<dyn Stream> {
        assert!(self.unread.is_empty(), "bytes came that nobody read: `{}`", self.unread.escape_ascii());
        self.stream
    }

    /// Writes all of `bytes`, or fails the test.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the peer takes what it is sent");
    }

    /// Writes `bytes` to a peer that may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let bytes = bytes.as_ref();
        within("the peer to take bytes", async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Sends `block` over and over, `most` bytes at most, and reads nothing.
    pub async fn flood(&mut self, block: &[u8], most: usize) -> Flood {
        let mut sent = 0;
        while sent < most {
            match tokio::time::timeout(STALL, self.stream.write_all(block)).await {
                Ok(Ok(())) => sent += block.len(),
                Ok(Err(_)) => return Flood::Closed,
                Err(_) => return Flood::Stalled,
            }
        }
        Flood::Taken
    }

    /// Reads more; false at the end. A reset counts as an end: it is how a server closes with bytes unread.
    async fn fill(&mut self) -> bool {
        matches!(within("bytes or a close from the peer", self.stream.read_buf(&mut self.unread)).await, Ok(1..))
    }

    /// The answer to a request whose method has a body in its answer; fails the test otherwise.
    pub async fn response(&mut self) -> Response {
        self.try_response("GET").await.expect("a whole answer")
    }

    /// The next final answer to a `method` request; interim answers are noted in it.
    pub async fn try_response(&mut self, method: &str) -> Result<Response, Broken> {
        let mut interim = Vec::new();
        loop {
            let head = self.head().await?;
            if head.status < 200 && head.status != 101 {
                interim.push(head.status);
                continue;
            }
            let mut trailers = HeaderMap::new();
            let body = match head.framing(method)? {
                Framing::None => Vec::new(),
                Framing::Length(length) => self.exactly(length).await?,
                Framing::UntilClose => self.rest().await,
                Framing::Chunked => {
                    let (body, fields) = self.chunks().await?;
                    trailers = fields;
                    body
                }
            };
            return Ok(Response { status: head.status, headers: head.headers, body, trailers, interim });
        }
    }

    /// The head of the next answer alone; its body is left unread.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        let text = match self.until(b"\r\n\r\n").await {
            Err(Broken::Truncated) if self.unread.is_empty() => return Err(Broken::Closed),
            text => text?,
        };
        Head::parse(&text[..text.len() - 4])
    }

    /// Bytes up to and with `end`.
    pub async fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|w| w == end) {
                return Ok(self.unread.split_to(at + end.len()).to_vec());
            }
            if self.unread.len() > MAX_HEAD_BYTES {
                return Err(malformed("endless line", &self.unread));
            }
            if !self.fill().await {
                return Err(Broken::Truncated);
            }
        }
    }

    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.unread.len() < length {
            if !self.fill().await {
                return Err(Broken::Truncated);
            }
        }
        Ok(self.unread.split_to(length).to_vec())
    }

    /// Reads and forgets as many bytes; returns how many came before the end.
    pub async fn discard(&mut self, length: u64) -> u64 {
        let mut left = length;
        loop {
            let held = (self.unread.len() as u64).min(left);
            self.unread.advance(held as usize);
            left -= held;
            self.unread.reserve(256 * 1024);
            if left == 0 || !self.fill().await {
                return length - left;
            }
        }
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        self.unread.split().to_vec()
    }

    async fn chunks(&mut self) -> Result<(Vec<u8>, HeaderMap), Broken> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                break;
            }
            body.extend(chunk);
        }
        let mut fields = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            if line == b"\r\n" {
                return Ok((body, parse_trailers(&fields)?));
            }
            fields.extend(line);
        }
    }

    /// The data of the next chunk; empty for the last, whose trailers are left unread.
    pub async fn chunk(&mut self) -> Result<Vec<u8>, Broken> {
        let line = self.until(b"\r\n").await?;
        let digits = line[..line.len() - 2].to_vec();
        let size = std::str::from_utf8(&digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = size.and_then(|t| usize::from_str_radix(t, 16).ok());
        let size = size.ok_or_else(|| malformed("chunk size", &line))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut data = self.exactly(size + 2).await?;
        if !data.ends_with(b"\r\n") {
            return Err(malformed("end of chunk", &data[size..]));
        }
        data.truncate(size);
        Ok(data)
    }

    /// Fails the test unless the peer closes now and sends nothing before.
    pub async fn expect_close(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "`{}` came in place of a close", rest[..rest.len().min(500)].escape_ascii());
    }

    /// Whether nothing comes, not even a close, for this long.
    pub async fn stays_quiet(&mut self, duration: Duration) -> bool {
        tokio::time::timeout(duration, self.stream.read_buf(&mut self.unread)).await.is_err()
    }

    /// Whether the peer has closed, without waiting and without reading.
    pub async fn is_closed(&mut self) -> bool {
        let mut read = std::pin::pin!(self.stream.read_buf(&mut self.unread));
        poll_fn(|context| {
            let ended = matches!(read.as_mut().poll(context), Poll::Ready(Ok(0) | Err(_)));
            Poll::Ready(ended)
        })
        .await
    }
}
