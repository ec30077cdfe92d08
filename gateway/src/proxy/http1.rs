//! HTTP/1 on one connection: read a head, check its framing, hand the request to the engine, repeat.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::decision::Answer;
use crate::drain::Ticket;
use crate::exchange::Exchange;
use crate::lane::client::Client;
use crate::lane::{Admission, After, Lane};
use crate::proxy::answer;
use crate::proxy::conn::Conn;
use crate::proxy::framing::{self, HeadScanner, Violation};
use crate::proxy::scope::Scope;
use crate::proxy::{context::Engine, engine::Proxy};
use crate::reason::Reason;

/// The preface of HTTP/2 with prior knowledge (RFC 9113 §3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// pingora closes connections whose keep-alive is off; how long they idle is decided here.
const ENGINE_KEEPALIVE_SECONDS: u64 = 60;

/// Bounds on the heads of requests.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub max_head_bytes: usize,
    /// From a head's first byte to its last.
    pub header_timeout: Duration,
    /// Between two requests.
    pub keepalive_timeout: Duration,
}

/// What serving needs beside the connection.
pub struct Server {
    pub proxy: Arc<HttpProxy<Proxy>>,
    pub engine: Arc<Engine>,
    pub lane: Lane,
    pub limits: HeadLimits,
    pub shutdown: watch::Receiver<bool>,
}

/// What arrived at the front of the inbox.
#[derive(Debug)]
enum Arrival {
    /// A complete head of this many bytes.
    Head(usize),
    /// The HTTP/2 preface.
    Preface,
    /// The client is gone, idle for too long, or the gateway drains.
    Nothing,
    Refused(Violation),
}

/// How a connection goes on after [`serve`].
pub enum Outcome {
    Closed,
    /// The client speaks HTTP/2 without having asked.
    Http2(Box<Conn>),
}

/// Serves requests until the connection ends.
pub async fn serve(mut conn: Box<Conn>, server: &Server, ticket: &Ticket) -> Outcome {
    let mut first = true;
    let mut timer = Box::pin(tokio::time::sleep(server.limits.header_timeout));
    loop {
        let length = match arrival(&mut conn, server, ticket, timer.as_mut(), first).await {
            Arrival::Head(length) => length,
            Arrival::Preface => return Outcome::Http2(conn),
            Arrival::Nothing => {
                conn.close().await;
                return Outcome::Closed;
            }
            Arrival::Refused(violation) => {
                refuse(&mut conn, server, violation).await;
                return Outcome::Closed;
            }
        };
        let framing = match framing::check(&conn.inbox[..length]) {
            Ok(framing) => framing,
            Err(violation) => {
                refuse(&mut conn, server, violation).await;
                return Outcome::Closed;
            }
        };
        first = false;
        let length = if framing.absolute { to_origin_form(&mut conn, length) } else { length };
        let scope = Scope::new(Arc::clone(&conn.info), Some(framing));
        match server.lane.admit(&conn.inbox[..length], &framing, &server.engine, &conn.info) {
            Admission::Granted(passage) => {
                conn.take_head(length);
                let client = Client::new(&mut conn, timer.as_mut());
                let passed = Arc::clone(&scope).run(server.lane.pass(passage, &server.engine, &scope, client));
                match passed.await {
                    Some(After::Next) => continue,
                    Some(After::Goodbye) => conn.close().await,
                    Some(After::Nothing) | None => {}
                }
                return Outcome::Closed;
            }
            Admission::Decided(decided) => scope.set_decided(decided),
            Admission::Unread => {}
        }
        conn.begin(length, framing.body);
        let stream: Stream = conn;
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(ENGINE_KEEPALIVE_SECONDS));
        let served = scope.run(server.proxy.process_new_http(session, &server.shutdown)).await;
        let Some((stream, _)) = served.flatten().map(|reusable| reusable.consume()) else { return Outcome::Closed };
        match stream.into_any().downcast::<Conn>() {
            Ok(returned) => conn = returned,
            // The engine gives back the very stream it was given.
            Err(_) => return Outcome::Closed,
        }
    }
}

async fn arrival(
    conn: &mut Conn,
    server: &Server,
    ticket: &Ticket,
    mut timer: Pin<&mut Sleep>,
    first: bool,
) -> Arrival {
    let limits = &server.limits;
    let mut scanner = HeadScanner::default();
    let mut begun = !conn.inbox.is_empty();
    let patience = if begun || first { limits.header_timeout } else { limits.keepalive_timeout };
    let mut deadline = Instant::now() + patience;
    poll_fn(|context| {
        loop {
            skip_empty_lines(conn);
            if first && let Some(preface) = preface(&conn.inbox) {
                if preface {
                    return Poll::Ready(Arrival::Preface);
                }
            } else if let Some(arrival) = scan(&mut scanner, conn, limits) {
                return Poll::Ready(arrival);
            }
            match conn.poll_receive(context) {
                Poll::Ready(Ok(true)) => {
                    if !begun {
                        begun = true;
                        deadline = Instant::now() + limits.header_timeout;
                    }
                }
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Arrival::Nothing),
                Poll::Pending => break,
            }
        }
        if expired(timer.as_mut(), deadline, context) {
            return Poll::Ready(if begun {
                Arrival::Refused(Violation {
                    reason: Reason::HeaderTimeout,
                    detail: "the head was not complete in time",
                })
            } else {
                Arrival::Nothing
            });
        }
        // A request that has begun to arrive is still served while the gateway drains.
        if !begun && ticket.poll_close_idle(context) {
            return Poll::Ready(Arrival::Nothing);
        }
        Poll::Pending
    })
    .await
}

/// Whether `deadline` has passed. The timer is only ever moved when it fires or is late, so that a
/// busy connection does not pay for it with every request.
pub(crate) fn expired(mut timer: Pin<&mut Sleep>, deadline: Instant, context: &mut Context<'_>) -> bool {
    if timer.deadline() > deadline {
        timer.as_mut().reset(deadline);
    }
    while timer.as_mut().poll(context).is_ready() {
        if Instant::now() >= deadline {
            return true;
        }
        timer.as_mut().reset(deadline);
    }
    false
}

/// RFC 9112 §2.2: an empty line before a request line is let pass.
fn skip_empty_lines(conn: &mut Conn) {
    while conn.inbox.starts_with(b"\r\n") {
        bytes::Buf::advance(&mut conn.inbox, 2);
    }
}

/// Whether the inbox begins with the HTTP/2 preface; none if it cannot be one.
fn preface(inbox: &[u8]) -> Option<bool> {
    let length = inbox.len().min(H2_PREFACE.len());
    (length >= 3 && inbox[..length] == H2_PREFACE[..length]).then_some(length == H2_PREFACE.len())
}

fn scan(scanner: &mut HeadScanner, conn: &Conn, limits: &HeadLimits) -> Option<Arrival> {
    match scanner.scan(&conn.inbox) {
        Ok(Some(length)) if length <= limits.max_head_bytes => Some(Arrival::Head(length)),
        Ok(None) if conn.inbox.len() <= limits.max_head_bytes => None,
        Ok(_) => Some(Arrival::Refused(Violation {
            reason: Reason::HeadersTooLarge,
            detail: "the head has more bytes than the gateway takes",
        })),
        Err(violation) => Some(Arrival::Refused(violation)),
    }
}

/// Rewrites the head at the front of the inbox, and returns its new length.
fn to_origin_form(conn: &mut Conn, length: usize) -> usize {
    let Some(head) = framing::origin_form(&conn.inbox[..length]) else { return length };
    let rest = conn.inbox.split_off(length);
    conn.inbox = BytesMut::from(&head[..]);
    conn.inbox.unsplit(rest);
    head.len()
}

/// Answers a head that no engine may see, accounts for it, and closes.
async fn refuse(conn: &mut Conn, server: &Server, violation: Violation) {
    let mut exchange = Exchange::new(conn.info.listener, conn.info.ip);
    describe(&conn.inbox, &mut exchange);
    exchange.tls_version = conn.info.tls.as_ref().map(|tls| tls.version);
    exchange.reason = Some(violation.reason);
    let answer = Answer::new(violation.reason, violation.detail);
    let rendered = answer::render(&answer, &accept_header(&conn.inbox), &exchange.id);
    exchange.status = Some(rendered.status);
    exchange.bytes_out = rendered.body.len() as u64;
    server.engine.record(&exchange);
    conn.finish_with(&rendered.into_http1_close()).await;
}

/// Fills in what can be told of a malformed head without trusting it.
fn describe(inbox: &[u8], exchange: &mut Exchange) {
    const MAX_LOGGED_PATH_BYTES: usize = 256;
    let line = inbox.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    if let Some(Ok(method)) = words.next().map(Method::from_bytes) {
        exchange.method = method;
    }
    let path = words.next().unwrap_or_default().split(|byte| *byte == b'?').next().unwrap_or_default();
    let path = &path[..path.len().min(MAX_LOGGED_PATH_BYTES)];
    exchange.path = String::from_utf8_lossy(path).into();
}

/// The Accept header of a malformed head, so that a browser still gets a page.
fn accept_header(inbox: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in inbox.split(|byte| *byte == b'\n') {
        if let Some(b"accept:") = line.get(..7).map(<[u8]>::to_ascii_lowercase).as_deref()
            && let Ok(value) = HeaderValue::from_bytes(line[7..].trim_ascii())
        {
            headers.insert(HeaderName::from_static("accept"), value);
        }
    }
    headers
}
