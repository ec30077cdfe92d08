//! Sockets: bound here, accepted here, drained here.

pub mod handover;
pub(crate) mod proxy_protocol;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;

use crate::certs::CertStore;
use crate::decision::{Answer, TlsPeer};
use crate::drain::{Drain, Ticket};
use crate::exchange::Exchange;
use crate::metrics::{Listener, Metrics};
use crate::proxy::conn::Conn;
use crate::proxy::http1::{self, Outcome, Server};
use crate::proxy::scope::ConnInfo;
pub use crate::proxy::transport::Rewind;
use crate::proxy::transport::Transport;
use crate::proxy::{answer, http2};
use crate::reason::Reason;
use crate::table::normalize_host;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 4096;
/// Pause after a failure to accept, such as running out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection needs.
pub struct Shared {
    pub server: Arc<Server>,
    pub certs: CertStore,
    pub drain: Drain,
    pub metrics: Arc<Metrics>,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub max_connections: usize,
    /// For PROXY header and TLS handshake together.
    pub handshake_timeout: Duration,
}

/// Binds a listening socket; port 0 takes a free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = unbound(address)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn unbound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted gateway must not wait for old connections to time out.
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

/// Whether [`bind`] would succeed. Nothing listens meanwhile: no client comes and is lost.
pub fn try_bind(address: SocketAddr) -> io::Result<()> {
    unbound(address)?.bind(address)
}

/// Another handle on a listening socket.
pub fn duplicate(listener: &TcpListener) -> io::Result<OwnedFd> {
    listener.as_fd().try_clone_to_owned()
}

/// Accepts connections until `stop`; when it returns, the drain knows of every one of them.
pub async fn accept(listener: TcpListener, kind: Listener, shared: Arc<Shared>, stop: CancellationToken) {
    let serve = |stream, remote, ticket| serve(stream, remote, kind, Arc::clone(&shared), ticket);
    accept_each(listener, kind, &shared, &shared.drain, stop, serve).await;
}

/// The same, with `serve` for what happens to a connection, and a drain of the listener's own.
pub async fn accept_each<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    kind: Listener,
    shared: &Shared,
    drain: &Drain,
    stop: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr, Ticket) -> F,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                if shared.drain.open() >= shared.max_connections {
                    shared.metrics.connections_refused.with_label_values(&["max_connections"]).inc();
                    continue;
                }
                // Failing means that the client is gone already, which the first read tells.
                let _ = stream.set_nodelay(true);
                // Here and not in the task: a drain that begins now has to know of it.
                tokio::spawn(serve(stream, remote, drain.register()));
            }
            Err(error) => {
                shared.metrics.accept_errors.inc();
                tracing::warn!(%error, listener = kind.as_str(), "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Counts a connection in the gauge for as long as it lives.
pub struct OpenConnection(prometheus::IntGauge);

impl OpenConnection {
    pub fn new(shared: &Shared, kind: Listener, protocol: &str) -> Self {
        let gauge = shared.metrics.connections.with_label_values(&[kind.as_str(), protocol]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn serve(stream: TcpStream, remote: SocketAddr, kind: Listener, shared: Arc<Shared>, ticket: Ticket) {
    let opening = tokio::time::timeout(shared.handshake_timeout, open(stream, remote, kind, &shared));
    let Ok(Some((conn, is_h2))) = opening.await else { return };
    serve_http(Box::new(conn), is_h2, &shared, &ticket).await;
}

/// Serves requests until the connection ends.
pub async fn serve_http(conn: Box<Conn>, is_h2: bool, shared: &Shared, ticket: &Ticket) {
    let kind = conn.info.listener;
    let h2 = if is_h2 {
        conn
    } else {
        let _open = OpenConnection::new(shared, kind, "h1");
        match until_cut(conn, &shared.server, ticket).await {
            Outcome::Closed => return,
            Outcome::Http2(conn) => conn,
        }
    };
    let _open = OpenConnection::new(shared, kind, "h2");
    http2::serve(h2, &shared.server, ticket).await;
}

/// Serves HTTP/1 until the connection ends; when it is cut off, its request is dropped where it stands.
async fn until_cut(conn: Box<Conn>, server: &Server, ticket: &Ticket) -> Outcome {
    let info = Arc::clone(&conn.info);
    let mut serving = pin!(http1::serve(conn, server, ticket));
    poll_fn(|context| {
        if ticket.poll_cut(context) {
            info.cut.store(true, Ordering::Release);
            return Poll::Ready(Outcome::Closed);
        }
        serving.as_mut().poll(context)
    })
    .await
}

/// An accepted connection, and who made it.
pub struct Arrived {
    pub stream: Rewind,
    /// The other end, or what a trusted PROXY header says it is.
    pub ip: IpAddr,
    /// The client's forwarding headers count.
    pub trusted: bool,
}

/// Reads the PROXY header of a trusted peer. None: it is malformed.
///
/// `first_byte` is how long such a peer has to begin one, where clients may wait for the server to speak first. A header
/// that comes later is the client's own bytes, and believed by nobody; none: the peer speaks first whatever it says.
pub async fn arrive(
    stream: TcpStream,
    remote: SocketAddr,
    first_byte: Option<Duration>,
    shared: &Shared,
) -> Option<Arrived> {
    let is_trusted = |ip: IpAddr| shared.trusted_proxies.iter().any(|network| network.contains(&ip));
    let mut ip = remote.ip().to_canonical();
    let mut stream = Rewind::new(stream);
    if is_trusted(ip) && speaks(&mut stream, first_byte).await {
        match proxy_protocol::read(&mut stream).await {
            Ok(Some(client)) => ip = client.to_canonical(),
            Ok(None) => {}
            Err(error) => {
                shared.metrics.connections_refused.with_label_values(&["proxy_protocol"]).inc();
                tracing::debug!(%error, balancer = %remote, "no usable PROXY header");
                return None;
            }
        }
    }
    Some(Arrived { stream, ip, trusted: is_trusted(ip) })
}

/// Whether the peer says something in time. One that ends, or breaks, says so to whoever reads next.
async fn speaks(stream: &mut Rewind, within: Option<Duration>) -> bool {
    match within {
        None => true,
        Some(within) => tokio::time::timeout(within, stream.fill(1)).await.is_ok(),
    }
}

/// From an accepted socket to a connection that HTTP can be spoken on, and whether it is HTTP/2.
async fn open(stream: TcpStream, remote: SocketAddr, kind: Listener, shared: &Shared) -> Option<(Conn, bool)> {
    let Arrived { mut stream, ip, trusted } = arrive(stream, remote, None, shared).await?;
    let info = |tls| Arc::new(ConnInfo::new(kind, None, ip, trusted, tls));
    if kind == Listener::Http {
        return Some((Conn::new(Transport::Plain(stream), info(None)), false));
    }
    if !stream.fill(1).await.ok()? {
        return None;
    }
    if stream.ahead[0] != TLS_HANDSHAKE {
        refuse_plain(Conn::new(Transport::Plain(stream), info(None)), shared).await;
        return None;
    }
    let (transport, tls, is_h2) = handshake(stream, shared).await?;
    Some((Conn::new(transport, info(Some(tls))), is_h2))
}

/// The content type of a TLS record that begins a handshake (RFC 8446 §5.1).
pub const TLS_HANDSHAKE: u8 = 0x16;

/// Shakes hands with the certificate for the name that the client asks for; true: HTTP/2 was agreed on.
pub async fn handshake(stream: Rewind, shared: &Shared) -> Option<(Transport, TlsPeer, bool)> {
    let count = |version: &str, result: &str| shared.metrics.tls_handshakes.with_label_values(&[version, result]).inc();
    let mut start = match LazyConfigAcceptor::new(Acceptor::default(), stream).await {
        Ok(start) => start,
        Err(error) => {
            tracing::debug!(%error, "no TLS handshake");
            count("", "malformed");
            return None;
        }
    };
    let config = match shared.certs.server_config(&start.client_hello()) {
        Ok(config) => config,
        Err(refusal) => {
            count("", "unknown_name");
            tracing::debug!(name = start.client_hello().server_name(), %refusal, "TLS refused");
            // The client may be gone; there is nobody else to tell.
            let _ = start.io.write_all(refusal.alert()).await;
            let _ = start.io.shutdown().await;
            return None;
        }
    };
    let stream = match start.into_stream(config).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            count("", "failed");
            return None;
        }
    };
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    };
    count(version, if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) { "resumed" } else { "full" });
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let tls = TlsPeer {
        version,
        server_name: session.server_name().and_then(|name| normalize_host(name).ok()).map(|name| name.as_ref().into()),
        client_certificate: session.peer_certificates().is_some(),
    };
    Some((Transport::Tls(Box::new(stream)), tls, is_h2))
}

/// Tells a client that speaks plain HTTP to the HTTPS port what is wrong.
async fn refuse_plain(mut conn: Conn, shared: &Shared) {
    let mut exchange = Exchange::new(Listener::Https, conn.info.ip);
    let answer = Answer::new(Reason::PlainOnTls, "use https:// for this port");
    let rendered = answer::render(&answer, &http::HeaderMap::new(), &exchange.id);
    exchange.status = Some(rendered.status);
    exchange.reason = Some(answer.reason);
    shared.server.engine.record(&exchange);
    conn.finish_with(&rendered.into_http1_close()).await;
}
