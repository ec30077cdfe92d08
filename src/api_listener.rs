//! The listener of a control service's API: HTTP/1.1, bounded in connections and in patience. A connection that is
//! upgraded, to a WebSocket, is no longer its own: whoever upgraded it bounds and ends it. Bodies take as long as they
//! take, in both directions: whoever reads or sends one says for how long it may stand still.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::lingering::Lingering;

/// Connections open at once; further ones wait to be accepted.
const MAX_CONNECTIONS: u32 = 1024;
/// From a request's first byte to the end of its head, and between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Pause after a failure to accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An API that is served.
#[derive(Debug)]
pub struct ApiListener {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl ApiListener {
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves `router` until `stop`, then lets requests that have begun finish, for `drain` at most.
    pub async fn serve(self, router: Router, stop: CancellationToken, drain: Duration) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        let ending = CancellationToken::new();
        loop {
            let accepted = async {
                // Never closed.
                let place = Arc::clone(&places).acquire_owned().await.ok();
                (self.listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = connection(stream, peer, router.clone(), ending.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the API cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        ending.cancel();
        // Every connection has given its place back when the last has ended.
        if tokio::time::timeout(drain, places.acquire_many(MAX_CONNECTIONS)).await.is_err() {
            tracing::warn!("the drain time is over; requests to the API are cut off");
        }
    }
}

/// Serves one connection; once `ending`, only what has begun.
async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, ending: CancellationToken) {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    // Answers are short; waiting for more to send would delay them.
    let _ = stream.set_nodelay(true);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Lingering::new(stream, ending.clone())), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    // A client that goes, or speaks no HTTP, is its own affair.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = ending.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}
