//! The end of the admin listener, in two steps: first no more connections, then none at all.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long connections have for what is on its way on them when accepting stops.
const LAST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// Accepts until it is told to stop; the connections live on.
pub struct Accepting {
    pub listener: TcpListener,
    pub stop: CancellationToken,
}

impl Listener for Accepting {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match self.stop.run_until_cancelled(Listener::accept(&mut self.listener)).await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Returns when connections on which nothing is asked may be closed.
pub async fn last_requests(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_REQUEST_GRACE).await;
}
