//! The admin listener: health, metrics, and what the gateway knows of its routes. Loopback by
//! default; it has no authentication of its own.

mod accepting;
mod browser;
mod certificates;
mod problem;
mod ssh_sessions;
mod static_routes;
mod tap;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router as Pages;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::admin::accepting::Accepting;
use crate::admin::problem::Problem;
use crate::certs::CertStore;
use crate::health::{Check, Health};
use crate::metrics::Metrics;
use crate::path;
use crate::ports::ListenerSet;
use crate::router::Router;
use crate::ssh::sessions::Sessions;
use crate::static_routes::StaticRoutes;
use crate::table::normalize_host;

/// What the pages show.
#[derive(Clone)]
pub struct Admin {
    pub router: Router,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub certs: CertStore,
    pub ports: ListenerSet,
    /// None as long as the gateway has no database.
    pub static_routes: watch::Receiver<Option<StaticRoutes>>,
    /// None: this gateway takes no logins over SSH.
    pub ssh_sessions: Option<Sessions>,
    pub access_log: AccessLog,
}

/// Accepts until `stop`, and returns when the last connection has ended.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let pages = Pages::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/routes", get(routes).post(static_routes::add).delete(static_routes::remove))
        .route("/routes/explain", get(explain))
        .route("/certs", get(certs))
        .route("/ports", get(ports))
        .route("/ssh/sessions", get(ssh_sessions::list).delete(ssh_sessions::kill))
        .route("/tap", get(tap::tap))
        .fallback(|| async {
            Problem::not_found(
                "no such page; see /readyz, /metrics, /routes, /routes/explain, /certs, /ports, /ssh/sessions, /tap",
            )
        })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed("this page is read, with GET or HEAD") })
        .with_state(admin);
    let listener = Accepting { listener, stop: stop.clone() };
    let served = axum::serve(listener, pages).with_graceful_shutdown(accepting::last_requests(stop));
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin listener failed");
    }
}

#[derive(Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<Check>,
}

async fn readyz(
    State(admin): State<Admin>,
    query: Result<Query<Verbose>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let ready = admin.health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.verbose.is_none() {
        return Ok((status, if ready { "ready\n" } else { "not ready\n" }).into_response());
    }
    let mut checks = admin.health.checks();
    checks.push(certificates::check(&admin.certs));
    let wants_json = headers.get(header::ACCEPT).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if wants_json {
        return Ok((status, Json(Readiness { ready, checks })).into_response());
    }
    let mut text = String::new();
    for check in &checks {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[{}] {}: {}", check.state.mark(), check.name, check.detail);
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    Ok((status, text).into_response())
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Problem> {
    let text = certificates::metrics(&admin.certs).and_then(|certificates| admin.metrics.render(certificates));
    let text = text.map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

#[derive(Serialize)]
struct ListedRoute {
    route: String,
    host: String,
    path: String,
    action: String,
    source: &'static str,
}

async fn routes(State(admin): State<Admin>) -> Response {
    let snapshot = admin.router.snapshot();
    let mut list: Vec<ListedRoute> = snapshot
        .table
        .iter()
        .map(|live| ListedRoute {
            route: live.route.id.to_string(),
            host: live.route.host.to_string(),
            path: live.route.path.to_string(),
            action: live.route.describe_action(),
            source: live.route.source.as_str(),
        })
        .collect();
    list.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
    Json(serde_json::json!({ "revision": snapshot.revision, "routes": list })).into_response()
}

#[derive(Deserialize)]
struct ExplainQuery {
    url: Option<String>,
}

async fn explain(
    State(admin): State<Admin>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(ExplainQuery { url }) = query?;
    let url = url.ok_or_else(|| Problem::bad_request("say which URL: /routes/explain?url=https://host/path"))?;
    let (host, path) = split_url(&url).map_err(|what| Problem::bad_request(&what))?;
    Ok(Json(admin.router.snapshot().explain(&host, &path)).into_response())
}

/// Host and path of a URL in the form the table compares. The scheme may be missing.
pub fn split_url(url: &str) -> Result<(String, String), String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = normalize_host(&rest[..end]).map_err(|_| format!("`{}` is no host", &rest[..end]))?;
    let path = rest[end..].split(['?', '#']).next().unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    let path = path::normalize(path).map_err(|error| format!("`{path}`: {}", error.explain()))?;
    Ok((host.into_owned(), path.into_owned()))
}

async fn ports(State(admin): State<Admin>) -> Response {
    Json(serde_json::json!({ "ports": admin.ports.report() })).into_response()
}

async fn certs(State(admin): State<Admin>) -> Response {
    Json(serde_json::json!({ "certificates": admin.certs.list() })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_as_requests_are() {
        let check = |url: &str, host: &str, path: &str| {
            assert_eq!(split_url(url), Ok((host.to_owned(), path.to_owned())), "{url}");
        };
        check("https://A.example:8443/x/../y?z#f", "a.example", "/y");
        check("a.example", "a.example", "/");
        check("http://a?x=/b", "a", "/");
        assert!(split_url("http:///x").is_err());
        assert!(split_url("http://a/%zz").is_err());
    }
}
