//! HTTP/2 on one connection: every stream is a request of its own, served side by side.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::drain::Ticket;
use crate::proxy::conn::Conn;
use crate::proxy::http1::Server;
use crate::proxy::scope::Scope;

/// Streams that a client may have open at once.
const MAX_CONCURRENT_STREAMS: u32 = 100;
/// Streams that were reset before they were served; more end the connection (CVE-2023-44487).
const MAX_PENDING_RESET_STREAMS: usize = 20;
/// Streams that this side had to reset; more end the connection (CVE-2025-8671).
const MAX_LOCAL_RESET_STREAMS: usize = 128;
/// Malformed requests on one connection.
const MAX_MALFORMED_STREAMS: usize = 32;
/// Bytes a client may send on one stream before it is read.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes a client may send on one connection before they are read.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes kept per stream of an answer that the client is slow to take.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// What the accept loop turns to.
enum Next {
    /// A request, or a refused one; none at the end of the connection.
    Stream(Option<Box<H2Accept>>),
    Drain,
    Cut,
    Idle,
}

/// What a client that idles has after the GOAWAY before the connection is closed.
const GOAWAY_GRACE: Duration = Duration::from_secs(5);

fn options(server: &Server) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESET_STREAMS)
        .max_concurrent_reset_streams(MAX_PENDING_RESET_STREAMS)
        .max_local_error_reset_streams(Some(MAX_LOCAL_RESET_STREAMS))
        .max_header_list_size(u32::try_from(server.limits.max_head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(MAX_SEND_BUFFER_BYTES);
    options
}

/// Counts a stream for as long as it is served.
struct OpenStream(Arc<AtomicUsize>);

impl OpenStream {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves streams until the connection ends, or is cut off.
pub async fn serve(conn: Box<Conn>, server: &Arc<Server>, ticket: &Ticket) {
    let mut streams = JoinSet::new();
    accept(conn, server, ticket, &mut streams).await;
    // The engine notices by itself that the client is gone, and accounts for it.
    streams.detach_all();
}

async fn accept(conn: Box<Conn>, server: &Arc<Server>, ticket: &Ticket, streams: &mut JoinSet<()>) {
    let info = Arc::clone(&conn.info);
    let digest =
        Arc::new(Digest { ssl_digest: None, timing_digest: Vec::new(), proxy_digest: None, socket_digest: None });
    let greeting = tokio::time::timeout(server.limits.header_timeout, handshake(conn, Some(options(server))));
    let Ok(Ok(mut connection)) = greeting.await else { return };
    let open = Arc::new(AtomicUsize::new(0));
    let mut malformed = 0;
    let mut goaway_sent = false;
    let mut last_stream = Instant::now();
    let mut idle = pin!(tokio::time::sleep(server.limits.keepalive_timeout));
    loop {
        let next = {
            let mut accept = pin!(HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)));
            poll_fn(|context| {
                if let Poll::Ready(accepted) = accept.as_mut().poll(context) {
                    // An error means that the client broke the protocol or is gone; h2 has said so to it.
                    return Poll::Ready(Next::Stream(accepted.unwrap_or(None).map(Box::new)));
                }
                if ticket.poll_cut(context) {
                    return Poll::Ready(Next::Cut);
                }
                if !goaway_sent && ticket.poll_draining(context) {
                    return Poll::Ready(Next::Drain);
                }
                if idle.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Next::Idle);
                }
                Poll::Pending
            })
            .await
        };
        match next {
            Next::Stream(None) => return,
            Next::Stream(Some(accepted)) => match *accepted {
                H2Accept::Rejected => {
                    malformed += 1;
                    if malformed > MAX_MALFORMED_STREAMS {
                        return;
                    }
                }
                H2Accept::Session(session) => {
                    last_stream = Instant::now();
                    // One that panicked has told of it; the others are of no interest.
                    while streams.try_join_next().is_some() {}
                    let open = OpenStream::new(&open);
                    let (server, scope) = (Arc::clone(server), Scope::new(Arc::clone(&info), None));
                    streams.spawn(async move {
                        let _open = open;
                        let session = ServerSession::new_http2(session);
                        scope.run(server.proxy.process_new_http(session, &server.shutdown)).await;
                    });
                }
            },
            Next::Drain => {
                goaway_sent = true;
                connection.graceful_shutdown();
            }
            Next::Cut => {
                info.cut.store(true, Ordering::Release);
                streams.shutdown().await;
                return;
            }
            Next::Idle => {
                let idle_for = last_stream.elapsed();
                if open.load(Ordering::Relaxed) > 0 || idle_for < server.limits.keepalive_timeout {
                    let rest = server.limits.keepalive_timeout.saturating_sub(idle_for).max(GOAWAY_GRACE);
                    idle.as_mut().reset(Instant::now() + rest);
                } else if goaway_sent {
                    return;
                } else {
                    goaway_sent = true;
                    connection.graceful_shutdown();
                    idle.as_mut().reset(Instant::now() + GOAWAY_GRACE);
                }
            }
        }
    }
}
