//! A connection to a port of containers, from its first byte on.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::door::Door;
use super::relay;
use super::sniff::{Spoken, sniff};
use crate::drain::Ticket;
use crate::listeners::{self, Arrived, Shared};
use crate::live::LiveRoute;
use crate::metrics::Listener;
use crate::proxy::conn::Conn;
use crate::proxy::scope::ConnInfo;
use crate::proxy::transport::Transport;
use crate::router::Router;
use crate::table::ports::PortRule;

/// How a connection goes on.
enum Opened {
    /// Bytes for the one who has the port.
    Raw(Arrived, PortRule, Arc<LiveRoute>),
    /// HTTP, and whether it is HTTP/2.
    Http(Box<Conn>, bool),
}

/// Serves one connection to its end.
pub async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    door: Arc<Door>,
    router: Router,
    shared: Arc<Shared>,
    ticket: Ticket,
) {
    let opening = tokio::time::timeout(shared.handshake_timeout, open(stream, remote, door.port, &router, &shared));
    match opening.await {
        Ok(Some(Opened::Http(conn, is_h2))) => listeners::serve_http(conn, is_h2, &shared, &ticket).await,
        Ok(Some(Opened::Raw(arrived, rule, live))) => match door.enter(&rule) {
            Some(tenant) => {
                let place = relay::Place { router: &router, port: door.port, over: &tenant.0.over };
                relay::serve(arrived, live, place, &shared, &ticket).await;
            }
            None => refused(&shared, "rule_connections"),
        },
        Ok(None) => {}
        Err(_) => refused(&shared, "silent"),
    }
}

async fn open(stream: TcpStream, remote: SocketAddr, port: u16, router: &Router, shared: &Shared) -> Option<Opened> {
    let mut arrived = listeners::arrive(stream, remote, None, shared).await?;
    // A server may be the first to speak, so nothing is waited for.
    let raw = router.snapshot().ports.match_tcp(port).cloned();
    if let Some((rule, live)) = raw {
        return Some(Opened::Raw(arrived, rule, live));
    }
    let spoken = loop {
        match sniff(&arrived.stream.ahead) {
            Some(spoken) => break spoken,
            None => {
                let wanted = arrived.stream.ahead.len() + 1;
                if !arrived.stream.fill(wanted).await.ok()? {
                    return None;
                }
            }
        }
    };
    let Arrived { stream, ip, trusted } = arrived;
    let info = |tls| Arc::new(ConnInfo::new(Listener::Dynamic, Some(port), ip, trusted, tls));
    match spoken {
        Spoken::Http => Some(Opened::Http(Box::new(Conn::new(Transport::Plain(stream), info(None))), false)),
        Spoken::Tls => {
            let (transport, tls, is_h2) = listeners::handshake(stream, shared).await?;
            Some(Opened::Http(Box::new(Conn::new(transport, info(Some(tls)))), is_h2))
        }
        Spoken::Other => {
            refused(shared, "unknown_protocol");
            None
        }
    }
}

fn refused(shared: &Shared, reason: &str) {
    shared.metrics.connections_refused.with_label_values(&[reason]).inc();
}
