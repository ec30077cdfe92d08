//! The client: files as requests, over connections that stay open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Of a large body at once, in bytes.
const BLOCK_BYTES: usize = 256 * 1024;

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub host: String,
    /// What all paths begin with.
    pub prefix: String,
    /// Empty: nobody.
    pub token: String,
}

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// One open connection.
pub struct Client {
    sender: SendRequest<Body>,
    server: Server,
}

impl Client {
    pub async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        Self { sender, server: server.clone() }
    }

    /// Sends a request and reads the answer to its end: its bytes.
    async fn ask(&mut self, method: Method, name: &str, body: Body) -> usize {
        let uri = format!("{}/{name}", self.server.prefix);
        let mut request = Request::builder().method(method.clone()).uri(&uri).header("host", &self.server.host);
        if !self.server.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.server.token));
        }
        self.sender.ready().await.expect("the connection stays open");
        let answer = self.sender.send_request(request.body(body).expect("a request")).await.expect("an answer");
        let status = answer.status();
        let mut body = answer.into_body();
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            received += frame.expect("a whole answer").data_ref().map_or(0, Bytes::len);
        }
        assert!(status.is_success(), "{method} {uri}: {status}");
        received
    }

    pub async fn put(&mut self, name: &str, bytes: Bytes) {
        self.ask(Method::PUT, name, Full::new(bytes).boxed()).await;
    }

    /// So many MiB, none of which is in memory before it is sent.
    pub async fn put_large(&mut self, name: &str, mib: usize) {
        let block = Bytes::from(vec![0x5a; BLOCK_BYTES]);
        let frames = (0..mib * (1 << 20) / BLOCK_BYTES).map(move |_| Ok(Frame::data(block.clone())));
        let body = Sized { inner: StreamBody::new(futures_util::stream::iter(frames)), left: (mib as u64) << 20 };
        self.ask(Method::PUT, name, BodyExt::boxed(body)).await;
    }

    pub async fn get(&mut self, name: &str) -> usize {
        self.ask(Method::GET, name, nothing()).await
    }

    pub async fn delete(&mut self, name: &str) {
        self.ask(Method::DELETE, name, nothing()).await;
    }
}

fn nothing() -> Body {
    Full::new(Bytes::new()).boxed()
}

/// A stream whose length is told, as every client tells it that sends a file.
struct Sized<B> {
    inner: B,
    left: u64,
}

impl<B: hyper::body::Body<Data = Bytes> + Unpin> hyper::body::Body for Sized<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = std::pin::Pin::new(&mut self.inner).poll_frame(cx);
        if let std::task::Poll::Ready(Some(Ok(frame))) = &frame {
            self.left -= frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        frame
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.left)
    }
}

/// What is done with each of many small files.
#[derive(Clone, Copy, Debug)]
pub enum Small {
    Put,
    Get,
}

/// Does it with `count` files of 1 KiB below `folder`, over so many connections: how long it takes.
pub async fn small(server: &Server, what: Small, folder: &str, count: usize, connections: usize) -> Duration {
    let bytes = Bytes::from(vec![0xa5; 1024]);
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(server).await);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (next, bytes, folder) = (next.clone(), bytes.clone(), folder.to_owned());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let name = format!("{folder}/{number}");
                match what {
                    Small::Put => client.put(&name, bytes.clone()).await,
                    Small::Get => assert_eq!(client.get(&name).await, bytes.len(), "{name}"),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a client that ends well");
    }
    began.elapsed()
}
