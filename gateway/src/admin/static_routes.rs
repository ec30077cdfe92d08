//! Routes by API: taken in and out.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;

use crate::admin::problem::Problem;
use crate::admin::{Admin, browser};
use crate::static_routes::{RouteApiError, StaticRoutes};

/// Largest route, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// `POST /routes`: an entry of routes.yaml, in JSON.
pub async fn add(
    State(admin): State<Admin>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    browser::refuse(&headers)?;
    let body = body.map_err(|rejection| Problem::bad_request(&rejection.body_text()))?;
    if body.len() > MAX_BODY_BYTES {
        return Err(Problem::bad_request("a route has at most 64 KiB"));
    }
    let form = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(&format!("the body is not JSON: {error}")))?;
    let registered = registry(&admin)?.add(&form).await?;
    Ok((StatusCode::CREATED, Json(registered)).into_response())
}

#[derive(Deserialize)]
pub struct Which {
    host: Option<String>,
    path: Option<String>,
}

/// `DELETE /routes?host=&path=`
pub async fn remove(
    State(admin): State<Admin>,
    headers: HeaderMap,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Problem> {
    browser::refuse(&headers)?;
    let Query(Which { host, path }) = query?;
    let host = host.ok_or_else(|| Problem::bad_request("say which route: /routes?host=example.com&path=/"))?;
    registry(&admin)?.remove(&host, path.as_deref().unwrap_or("/")).await?;
    Ok(Json(serde_json::json!({ "status": "ok" })).into_response())
}

fn registry(admin: &Admin) -> Result<StaticRoutes, Problem> {
    let registry = admin.static_routes.borrow().clone();
    registry.ok_or_else(|| {
        Problem::unavailable("this gateway has no database (yet), which routes by API need; write routes.yaml instead")
    })
}

impl From<RouteApiError> for Problem {
    fn from(error: RouteApiError) -> Self {
        match &error {
            RouteApiError::Invalid(why) => Self::bad_request(why),
            RouteApiError::Full => Self::bad_request(&error.to_string()),
            RouteApiError::Unknown { .. } => Self::not_found(&error.to_string()),
            RouteApiError::Publish(publish) => Self::bad_request(&publish.to_string()),
            RouteApiError::Database(_) | RouteApiError::Event(_) => {
                tracing::warn!(%error, "a route by API was not changed");
                Self::unavailable("the database is away; nothing was changed, try again")
            }
        }
    }
}
