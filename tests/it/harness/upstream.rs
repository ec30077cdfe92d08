//! An HTTP/1.1 server that behaves as the path of a request says.
//!
//! | Path | Answer |
//! |---|---|
//! | `/size/N` | N bytes with a Content-Length |
//! | `/chunked/N` | N bytes without |
//! | `/status/N` | that status and no body |
//! | `/gate/NAME` | 200 once the test calls [`Upstream::open`] |
//! | `/sse` | an event stream of what the test gives to [`Upstream::event`] |
//! | `/ws` | a WebSocket that echoes |
//! | `/early` | 200 without reading the request's body |
//! | others | 200 and a JSON account of the request |

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_KEY};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::connection::Stream;
use super::record::Record;
use super::seen::{Progress, Seen};

type Body = BoxBody<Bytes, Infallible>;

pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// Sent back in the header `x-upstream` of every answer.
    name: String,
    seen: Record<Seen>,
    requests: AtomicU64,
    open_gates: watch::Sender<BTreeSet<String>>,
    events: broadcast::Sender<String>,
}

impl Upstream {
    pub async fn start() -> Self {
        Self::named("upstream").await
    }

    /// With a name, which answers carry in `x-upstream`.
    pub async fn named(name: &str) -> Self {
        Self::bind(name, None).await
    }

    /// Over TLS.
    pub async fn over_tls(acceptor: TlsAcceptor) -> Self {
        Self::bind("upstream", Some(acceptor)).await
    }

    async fn bind(name: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            seen: Record::default(),
            requests: AtomicU64::new(0),
            open_gates: watch::Sender::default(),
            events: broadcast::Sender::new(64),
        });
        tokio::spawn(accept(listener, tls, shared.clone()));
        Self { address, shared }
    }

    /// routes.yaml with one route, from every host and path to here.
    pub fn routes(&self) -> String {
        format!("routes: [{{host: '*', path: /, target: '{}'}}]\n", self.address)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.all()
    }

    /// Every request since the last call.
    pub fn take(&self) -> Vec<Seen> {
        self.shared.seen.take()
    }

    /// Waits until some request satisfies `found`.
    #[track_caller]
    pub fn wait(&self, what: &str, found: impl Fn(&Seen) -> bool) -> impl Future<Output = Seen> {
        self.shared.seen.wait(what, move |all| all.iter().find(|s| found(s)).cloned())
    }

    /// Lets requests to `/gate/NAME` through, those that wait and those to come.
    pub fn open(&self, gate: &str) {
        self.shared.open_gates.send_modify(|open| {
            open.insert(gate.to_owned());
        });
    }

    /// Sends one event to every event stream that is open.
    pub fn event(&self, data: &str) {
        self.shared.events.send(format!("data: {data}\n\n")).expect("an event stream is open");
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    for connection in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (tls, shared) = (tls.clone(), shared.clone());
        // Errors of a connection show in what the test saw of it.
        tokio::spawn(async move {
            match tls {
                None => serve(stream, connection, shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, connection, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl Stream + 'static, connection: u64, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, connection, shared.clone()));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// Notes a request that ended before it was answered, which drops the future that holds this.
struct Exchange {
    seen: Record<Seen>,
    number: u64,
    answered: bool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            self.seen.update(self.number, |seen| match seen.progress {
                Progress::Receiving => seen.progress = Progress::Truncated,
                Progress::Received => seen.progress = Progress::Abandoned,
                Progress::Truncated | Progress::Abandoned => {}
            });
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    connection: u64,
    shared: Arc<Shared>,
) -> Result<Response<Body>, hyper::Error> {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    let target = request.uri().path_and_query().map_or("*", |t| t.as_str()).to_owned();
    let headers = request.headers().clone();
    shared.seen.push(Seen::new(number, connection, request.method().clone(), &target, headers));
    let mut exchange = Exchange { seen: shared.seen.clone(), number, answered: false };
    if !target.starts_with("/early") {
        receive(&mut request, number, &shared.seen).await?;
    }
    let mut response = respond(request, &target, number, &shared).await;
    exchange.answered = true;
    response.headers_mut().insert("x-upstream", shared.name.parse().expect("names are header values"));
    Ok(response)
}

async fn receive(request: &mut Request<Incoming>, number: u64, seen: &Record<Seen>) -> Result<(), hyper::Error> {
    while let Some(frame) = request.body_mut().frame().await {
        match frame?.into_data() {
            Ok(data) => seen.add_body(number, &data),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    seen.update(number, |seen| seen.trailers = trailers.clone());
                }
            }
        }
    }
    seen.update(number, |seen| seen.progress = Progress::Received);
    Ok(())
}

async fn respond(request: Request<Incoming>, target: &str, number: u64, shared: &Shared) -> Response<Body> {
    let path = target.split('?').next().unwrap_or_default();
    let mut words = path.split('/').skip(1);
    let (behaviour, argument) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let size = || argument.parse::<usize>().expect("the path ends in a number");
    match behaviour {
        "size" => Response::new(Full::new(Bytes::from(vec![b'x'; size()])).boxed()),
        "chunked" => Response::new(chunks(size())),
        "status" => with_status(StatusCode::from_u16(argument.parse().unwrap_or(500)).expect("a status")),
        "gate" => {
            let mut open = shared.open_gates.subscribe();
            open.wait_for(|open| open.contains(argument)).await.expect("the test holds the upstream");
            Response::new(Full::from("open").boxed())
        }
        "sse" => event_stream(shared.events.subscribe()),
        "ws" => websocket(request),
        _ => Response::new(account(number, shared)),
    }
}

fn with_status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = status;
    response
}

/// `size` bytes in pieces, which hyper sends chunked because it is told no length.
fn chunks(size: usize) -> Body {
    const PIECE_BYTES: usize = 16 * 1024;
    let pieces = stream::unfold(size, |left| async move {
        let piece = left.min(PIECE_BYTES);
        (piece > 0).then(|| (Ok(Frame::data(Bytes::from(vec![b'x'; piece]))), left - piece))
    });
    BodyExt::boxed(StreamBody::new(pieces))
}

fn event_stream(events: broadcast::Receiver<String>) -> Response<Body> {
    let frames = stream::unfold(events, |mut events| async move {
        let event = events.recv().await.ok()?;
        Some((Ok(Frame::data(Bytes::from(event))), events))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().expect("a header value"));
    response
}

fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes())) else {
        return with_status(StatusCode::BAD_REQUEST);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let (sink, messages) = socket.split();
        let echoes = messages.filter(|m| std::future::ready(m.as_ref().is_ok_and(|m| m.is_text() || m.is_binary())));
        // The client ends it, in whatever way the test is about.
        let _ = echoes.forward(sink).await;
    });
    let mut response = with_status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert("connection", "upgrade".parse().expect("a header value"));
    headers.insert("upgrade", "websocket".parse().expect("a header value"));
    headers.insert("sec-websocket-accept", key.parse().expect("base64 is a header value"));
    response
}

/// The request as it came, in JSON.
fn account(number: u64, shared: &Shared) -> Body {
    let all = shared.seen.all();
    let text = match all.iter().find(|seen| seen.number == number) {
        // The test took it away while it was on its way.
        None => json!({}),
        Some(seen) => {
            let headers: serde_json::Map<_, _> =
                seen.headers.keys().map(|name| (name.to_string(), seen.header(name.as_str()).into())).collect();
            json!({
                "upstream": shared.name,
                "method": seen.method.as_str(),
                "target": seen.target,
                "headers": headers,
                "body": String::from_utf8_lossy(&seen.body),
                "body_bytes": seen.body_bytes,
            })
        }
    };
    Full::from(text.to_string()).boxed()
}
