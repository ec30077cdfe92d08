//! A gRPC-like server: HTTP/2 in the clear, echoing both ways, with trailers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::connection::Stream;
use super::record::Record;
use super::seen::{Progress, Seen};

/// Answers every request with 200, its own body piece by piece as it comes, and the trailers
/// `grpc-status: 0` and `x-body-bytes`.
pub struct H2Upstream {
    pub address: SocketAddr,
    seen: Record<Seen>,
}

impl H2Upstream {
    pub async fn start() -> Self {
        Self::bind(None).await
    }

    /// Over TLS.
    pub async fn over_tls(acceptor: TlsAcceptor) -> Self {
        Self::bind(Some(acceptor)).await
    }

    async fn bind(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Record::default();
        let record = seen.clone();
        let requests = Arc::new(AtomicU64::new(0));
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (tls, requests, record) = (tls.clone(), requests.clone(), record.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, connection, requests, record).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, connection, requests, record).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// routes.yaml with one route, from every host and path to here.
    pub fn routes(&self) -> String {
        format!("routes: [{{host: '*', path: /, target: '{}', protocol: h2c}}]\n", self.address)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.all()
    }

    /// Every request since the last call.
    pub fn take(&self) -> Vec<Seen> {
        self.seen.take()
    }

    /// Waits until some request satisfies `found`.
    #[track_caller]
    pub fn wait(&self, what: &str, found: impl Fn(&Seen) -> bool) -> impl Future<Output = Seen> {
        self.seen.wait(what, move |all| all.iter().find(|s| found(s)).cloned())
    }
}

async fn serve(stream: impl Stream + 'static, connection: u64, requests: Arc<AtomicU64>, seen: Record<Seen>) {
    // What goes wrong on a connection shows in what the test saw of it.
    let Ok(mut server) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = server.accept().await {
        let number = requests.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = request_parts(request);
        seen.push(Seen::new(number, connection, parts.method, &parts.target, parts.headers));
        let record = seen.clone();
        tokio::spawn(async move {
            let done = echo(body, respond, number, &record).await;
            let progress = if done.is_ok() { Progress::Received } else { Progress::Truncated };
            record.update(number, |seen| seen.progress = progress);
        });
    }
}

struct Parts {
    method: http::Method,
    target: String,
    headers: HeaderMap,
}

fn request_parts(request: Request<RecvStream>) -> (Parts, RecvStream) {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("*", |t| t.as_str()).to_owned();
    (Parts { method: head.method, target, headers: head.headers }, body)
}

async fn echo(
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    number: u64,
    seen: &Record<Seen>,
) -> Result<(), h2::Error> {
    let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a valid head");
    let mut send = respond.send_response(head, false)?;
    let mut total = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        total += data.len();
        seen.add_body(number, &data);
        body.flow_control().release_capacity(data.len())?;
        send_all(&mut send, data).await?;
    }
    if let Some(trailers) = body.trailers().await? {
        seen.update(number, |seen| seen.trailers = trailers.clone());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    trailers.insert("x-body-bytes", total.into());
    send.send_trailers(trailers)
}

/// Sends no faster than the other side takes.
pub async fn send_all(send: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
        let room = room.ok_or(h2::Reason::CANCEL)??;
        send.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}
