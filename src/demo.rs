//! The demo service of `edd up`: something to see behind the gateway before anything else runs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, Method, Uri, Version};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::{Stream, stream};
use serde_json::json;
use tokio::net::TcpListener;

use crate::exit::Failure;

/// The name under which routes.yaml knows it.
pub const TARGET: &str = "edd-demo:80";
/// Largest body that `/echo` takes, in bytes.
const MAX_ECHO_BYTES: usize = 1024 * 1024;

/// Starts the service on a free port of this machine.
pub async fn start() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let pages = Router::new()
        .route("/", get(page))
        .route("/echo", any(echo))
        .route("/sse", get(ticks))
        .route("/ws", get(socket))
        .fallback(page)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_ECHO_BYTES));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).await {
            tracing::error!(%error, "the demo service failed");
        }
    });
    Ok(address)
}

async fn page() -> Html<&'static str> {
    Html(include_str!("demo.html"))
}

/// What the request looked like when it arrived here.
async fn echo(method: Method, uri: Uri, version: Version, headers: HeaderMap, body: Bytes) -> Response {
    let headers: serde_json::Map<_, _> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into()))
        .collect();
    Json(json!({
        "method": method.as_str(),
        "path": uri.path(),
        "query": uri.query(),
        "version": format!("{version:?}"),
        "headers": headers,
        "body_bytes": body.len(),
    }))
    .into_response()
}

/// One event a second.
async fn ticks() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = stream::unfold(0u64, |count| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok(Event::default().event("tick").data(count.to_string())), count + 1))
    });
    Sse::new(ticks).keep_alive(KeepAlive::default())
}

/// Sends back what it is sent.
async fn socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket: WebSocket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}
