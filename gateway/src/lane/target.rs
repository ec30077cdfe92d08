//! From a decision to a target that has the request: whose turn it is, a connection, and when to try another one.

use std::io;
use std::task::{Poll, ready};
use std::time::Instant;

use edd_proto::ContainerId;
use tokio::net::TcpStream;

use crate::containers::Wakes;
use crate::lane::client::{Client, Interruption};
use crate::lane::pool::{Key, Pool};
use crate::lane::transfer::target_failure;
use crate::lane::{Failure, Lane};
use crate::live::{Hop, LiveRoute};
use crate::proxy::context::{Context, Engine};
use crate::proxy::engine::MAX_CONNECT_ATTEMPTS;
use crate::proxy::waking;
use crate::reason::Reason;
use crate::route::Timeouts;

/// A connection to a target.
#[derive(Debug)]
pub struct Target {
    pub stream: TcpStream,
    key: Key,
    /// It has served a request before, and may have been closed since.
    pub is_used: bool,
}

impl Target {
    /// Leaves the connection for the next request.
    pub fn keep(self, pool: &Pool) {
        pool.put(self.key, self.stream);
    }

    /// Sends a request's head.
    pub async fn send(&self, head: &[u8], timeouts: &Timeouts, client: &mut Client<'_>) -> Result<(), Failure> {
        let mut sent = 0;
        while sent < head.len() {
            let written = client.attend(timeouts.write, |_, context| {
                loop {
                    ready!(self.stream.poll_write_ready(context))?;
                    match self.stream.try_write(&head[sent..]) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        done => return Poll::Ready(done),
                    }
                }
            });
            match written.await {
                Ok(Ok(count)) => sent += count,
                Ok(Err(_)) => return Err(Failure::new(Reason::UpstreamClosed, "the target did not take the request")),
                Err(Interruption::Late) => {
                    return Err(Failure::new(Reason::UpstreamTimeout, "the target did not take the request in time"));
                }
                Err(gone) => return Err(target_failure(gone)),
            }
        }
        Ok(())
    }
}

impl Lane {
    /// A connection to the target whose turn it is, or to another one if that takes none. With `fresh` it is a new one.
    pub(super) async fn reach(
        &self,
        live: &LiveRoute,
        context: &mut Context,
        engine: &Engine,
        client: &mut Client<'_>,
        fresh: bool,
    ) -> Result<Target, Failure> {
        loop {
            let Some(hop) = live.pick(context.tried, engine.upstreams.now_ms()) else {
                return Err(Failure::new(Reason::NoTarget, "every target of the route is out of rotation"));
            };
            context.exchange.upstream = Some(hop.clone());
            let address = hop.address().map_err(|reason| Failure::new(reason, format!("{hop} does not resolve")))?;
            context.tried |= 1 << hop.index();
            context.upstream_since = Some(Instant::now());
            let key = Key { group: live.pool_group().unwrap_or_default(), address };
            let waiting = if fresh { None } else { self.pool.take(&key) };
            let connected = match waiting {
                Some(stream) => Ok(Target { stream, key, is_used: true }),
                None => connect(key, &live.route.timeouts, client).await,
            };
            context.hop = Some(hop.clone());
            match connected {
                Ok(target) => {
                    if let Some(upstream) = hop.upstream() {
                        upstream.connected();
                    }
                    // A pooled connection that turns out to be stale may be tried again at the same target.
                    context.tried = 0;
                    return Ok(target);
                }
                Err(failure) => prepare_another(failure, &hop, live, context, engine, client).await?,
            }
        }
    }
}

/// Accounts for a target that took no connection; fails if no other one may be tried.
async fn prepare_another(
    failure: Failure,
    hop: &Hop,
    live: &LiveRoute,
    context: &mut Context,
    engine: &Engine,
    client: &mut Client<'_>,
) -> Result<(), Failure> {
    if failure.reason == Reason::ClientClosed {
        return Err(failure);
    }
    context.connect_attempts += 1;
    if let Some(upstream) = hop.upstream() {
        engine.upstreams.connect_failed(upstream);
    }
    let awaits = engine.wakes.as_ref().zip(context.waking());
    let is_left = live.pick(context.tried, engine.upstreams.now_ms()).is_some();
    if !(is_left || awaits.is_some()) || context.connect_attempts >= MAX_CONNECT_ATTEMPTS {
        return Err(failure);
    }
    if let Some((wakes, id)) = awaits {
        join(wakes, id, client).await?;
        context.tried = 0;
    }
    Ok(())
}

/// Waits for a container that is waking up.
async fn join(wakes: &Wakes, id: ContainerId, client: &mut Client<'_>) -> Result<(), Failure> {
    let mut joining = std::pin::pin!(waking::join(wakes, id));
    // It has a limit of its own.
    match client.attend(2 * wakes.longest_wait(), |_, context| joining.as_mut().poll(context)).await {
        Ok(joined) => joined.map_err(|answer| Failure::new(answer.reason, answer.detail)),
        Err(interruption) => Err(target_failure(interruption)),
    }
}

async fn connect(key: Key, timeouts: &Timeouts, client: &mut Client<'_>) -> Result<Target, Failure> {
    let mut connecting = std::pin::pin!(TcpStream::connect(key.address));
    let connected = client.attend(timeouts.connect, |_, context| connecting.as_mut().poll(context)).await;
    match connected {
        Ok(Ok(stream)) => {
            // Failing means that the target is gone already, which the first write tells.
            let _ = stream.set_nodelay(true);
            Ok(Target { stream, key, is_used: false })
        }
        Ok(Err(error)) => Err(refused(&error)),
        Err(Interruption::Late) => Err(Failure::new(Reason::UpstreamConnectTimeout, NO_CONNECTION)),
        Err(gone) => Err(target_failure(gone)),
    }
}

const NO_CONNECTION: &str = "no connection was made";

fn refused(error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::UpstreamRefused,
        io::ErrorKind::TimedOut => Reason::UpstreamConnectTimeout,
        _ => Reason::UpstreamUnreachable,
    };
    Failure::new(reason, NO_CONNECTION)
}

/// Where a failure happened, in words for the person who sees it.
pub fn place(hop: Option<&Hop>) -> String {
    hop.map_or_else(|| "no target was reached".to_owned(), |hop| format!("target {hop}"))
}
