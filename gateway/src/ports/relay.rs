//! A connection of bytes between a client and a container.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use crate::containers::Woken;
use crate::drain::Ticket;
use crate::exchange::Exchange;
use crate::listeners::{Arrived, OpenConnection, Shared};
use crate::live::{Backend, LiveRoute, Status, Usage};
use crate::metrics::Listener;
use crate::proxy::transport::Rewind;
use crate::reason::Reason;
use crate::router::Router;

/// Bytes on their way in one direction; who does not take them keeps the other side from sending.
const BUFFER_BYTES: usize = 16 * 1024;

/// What has passed so far, in bytes.
#[derive(Debug, Default)]
struct Passed {
    to_container: AtomicU64,
    to_client: AtomicU64,
}

impl Passed {
    fn total(&self) -> u64 {
        self.to_container.load(Ordering::Relaxed) + self.to_client.load(Ordering::Relaxed)
    }
}

/// Where a connection came in.
pub struct Place<'a> {
    pub router: &'a Router,
    pub port: u16,
    /// Cancelled when the rule that has the port has it no longer.
    pub over: &'a CancellationToken,
}

/// Relays until both sides have ended, one of them fails, nothing moves for too long, or the rule or its container goes.
/// What it was is recorded.
pub async fn serve(arrived: Arrived, live: Arc<LiveRoute>, place: Place<'_>, shared: &Shared, ticket: &Ticket) {
    let _open = OpenConnection::new(shared, Listener::Dynamic, "tcp");
    let mut exchange = Exchange::new(Listener::Dynamic, arrived.ip);
    exchange.is_raw = true;
    exchange.route = Some(Arc::clone(&live));
    let visit = live.backend().map(Backend::visit);
    let passed = Passed::default();
    exchange.reason = tokio::select! {
        ended = connect_and_relay(arrived.stream, live, &place, shared, &mut exchange, &passed) => ended.err(),
        () = place.over.cancelled() => Some(Reason::RouteRemoved),
        () = cut(ticket) => Some(Reason::ShuttingDown),
    };
    exchange.bytes_in = passed.to_container.load(Ordering::Relaxed);
    exchange.bytes_out = passed.to_client.load(Ordering::Relaxed);
    if let Some(visit) = &visit {
        visit.count(Usage { requests: 1, bytes_in: exchange.bytes_in, bytes_out: exchange.bytes_out });
    }
    shared.server.engine.record(&exchange);
}

async fn cut(ticket: &Ticket) {
    poll_fn(|context| if ticket.poll_cut(context) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// # Errors
/// Why it ended before both sides were done.
async fn connect_and_relay(
    mut client: Rewind,
    live: Arc<LiveRoute>,
    place: &Place<'_>,
    shared: &Shared,
    exchange: &mut Exchange,
    passed: &Passed,
) -> Result<(), Reason> {
    let live = awake(live, place, shared).await?;
    exchange.route = Some(Arc::clone(&live));
    let mut container = connect(&live, shared, exchange).await?;
    // Without it, a byte at a time is slower; nothing else depends on it.
    let _ = container.set_nodelay(true);
    let ahead = std::mem::take(&mut client.ahead);
    let (from_client, to_client) = client.stream.split();
    let (from_container, mut to_container) = container.split();
    let up = async {
        if !ahead.is_empty() {
            to_container.write_all(&ahead).await.map_err(|_| Reason::UpstreamClosed)?;
            passed.to_container.fetch_add(ahead.len() as u64, Ordering::Relaxed);
        }
        let sides = (Reason::ClientClosed, Reason::UpstreamClosed);
        pump(from_client, to_container, &passed.to_container, sides).await
    };
    let sides = (Reason::UpstreamClosed, Reason::ClientClosed);
    let down = pump(from_container, to_client, &passed.to_client, sides);
    tokio::select! {
        both = async { tokio::try_join!(up, down) } => both.map(drop),
        () = live.retired().cancelled() => Err(Reason::RouteRemoved),
        () = idle(passed, live.route.timeouts.stream_idle) => Err(Reason::StreamIdle),
    }
}

/// The route once its container runs, which a container that sleeps is made to.
///
/// # Errors
/// It does not run.
async fn awake(live: Arc<LiveRoute>, place: &Place<'_>, shared: &Shared) -> Result<Arc<LiveRoute>, Reason> {
    let Some(backend) = live.backend() else { return Ok(live) };
    if backend.status() != Status::Hibernated {
        return runs(backend).map(|()| live);
    }
    let wakes = shared.server.engine.wakes.as_ref().ok_or(Reason::WakeFailed)?;
    match wakes.wake(backend.container(), wakes.longest_wait()).await {
        Woken::Up | Woken::Otherwise => {}
        Woken::Full => return Err(Reason::WakeQueueFull),
        Woken::Refused(_) => return Err(Reason::WakeFailed),
        Woken::NotYet | Woken::TooLate => return Err(Reason::WakeTimeout),
    }
    // What was known before is of the past.
    let snapshot = place.router.snapshot();
    let now = snapshot.ports.match_tcp(place.port).filter(|(rule, _)| rule.container == backend.container());
    let now = now.map(|(_, live)| Arc::clone(live)).ok_or(Reason::RouteRemoved)?;
    now.backend().map_or(Ok(()), runs).map(|()| now)
}

fn runs(backend: &Backend) -> Result<(), Reason> {
    match backend.status() {
        Status::Running => Ok(()),
        Status::Starting => Err(Reason::ContainerStarting),
        Status::Stopped => Err(Reason::ContainerStopped),
        Status::Failed => Err(Reason::ContainerFailed),
        Status::Hibernated => Err(Reason::ContainerWaking),
    }
}

async fn connect(live: &LiveRoute, shared: &Shared, exchange: &mut Exchange) -> Result<TcpStream, Reason> {
    let upstreams = &shared.server.engine.upstreams;
    let hop = live.pick(0, upstreams.now_ms()).ok_or(Reason::NoTarget)?;
    exchange.upstream = Some(hop.clone());
    let connected = match tokio::time::timeout(live.route.timeouts.connect, TcpStream::connect(hop.address()?)).await {
        Ok(connected) => connected.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Reason::UpstreamRefused,
            _ => Reason::UpstreamUnreachable,
        }),
        Err(_) => Err(Reason::UpstreamConnectTimeout),
    };
    match (hop.upstream(), &connected) {
        (Some(upstream), Ok(_)) => upstream.connected(),
        (Some(upstream), Err(_)) => upstreams.connect_failed(upstream),
        (None, _) => {}
    }
    if connected.is_ok() {
        exchange.upstream_seconds = Some(exchange.started.elapsed().as_secs_f64());
    }
    connected
}

/// Passes bytes on until their source ends, and tells the sink so. `sides` are the reasons if the source or the sink
/// fails.
async fn pump(
    source: ReadHalf<'_>,
    mut sink: WriteHalf<'_>,
    passed: &AtomicU64,
    sides: (Reason, Reason),
) -> Result<(), Reason> {
    loop {
        source.readable().await.map_err(|_| sides.0)?;
        // Taken while there is something to read: a connection that idles keeps no buffer.
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match source.try_read(&mut buffer) {
                Ok(0) => return sink.shutdown().await.map_err(|_| sides.1),
                Ok(count) => {
                    sink.write_all(&buffer[..count]).await.map_err(|_| sides.1)?;
                    passed.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(sides.0),
            }
        }
    }
}

/// Resolves when nothing has passed for as long as `timeout`.
async fn idle(passed: &Passed, timeout: Duration) {
    loop {
        let before = passed.total();
        tokio::time::sleep(timeout).await;
        if passed.total() == before {
            return;
        }
    }
}
