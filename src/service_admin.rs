//! The admin listener of a control service: health and metrics, as the gateway's own, without the routes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use edd_gateway::health::{CheckState, Reporter};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the pages show.
#[derive(Clone, Debug)]
pub struct ServiceAdmin {
    pub registry: Registry,
    pub reporters: Arc<[Arc<dyn Reporter>]>,
    /// Set while the service drains.
    pub draining: CancellationToken,
}

/// Binds `address` and serves until `stop`; the address that was bound.
pub async fn start(address: SocketAddr, admin: ServiceAdmin, stop: CancellationToken) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let pages = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "no such page; see /livez, /readyz?verbose and /metrics\n") })
        .with_state(admin);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "the admin listener failed");
        }
    });
    Ok(address)
}

#[derive(Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

async fn readyz(State(admin): State<ServiceAdmin>, Query(query): Query<Verbose>) -> (StatusCode, String) {
    let checks: Vec<_> = admin.reporters.iter().flat_map(|reporter| reporter.checks()).collect();
    let ready = !admin.draining.is_cancelled() && checks.iter().all(|check| check.state != CheckState::Failed);
    let mut text = String::new();
    if query.verbose.is_some() {
        for check in &checks {
            text += &format!("[{}] {}: {}\n", check.state.mark(), check.name, check.detail);
        }
    }
    text += if ready { "ready\n" } else { "not ready\n" };
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

async fn metrics(State(admin): State<ServiceAdmin>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&admin.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
