//! The SSH port.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::listeners::{self, Shared};
use crate::metrics::Listener;
use crate::ssh::connection;
use crate::ssh::service::Service;

/// Accepts connections until `stop`; when it returns, the drain knows of every one of them.
pub async fn accept(listener: TcpListener, service: Arc<Service>, shared: Arc<Shared>, stop: CancellationToken) {
    let serve =
        |stream, remote, ticket| connection::serve(stream, remote, Arc::clone(&service), Arc::clone(&shared), ticket);
    listeners::accept_each(listener, Listener::Ssh, &shared, &shared.drain, stop, serve).await;
}
