//! The file share over HTTP. Paths and shapes are what edd-cloud's clients rely on.

use axum::Router;
use axum::routing::get;
use serde::Serialize;

use crate::caller::{Caller, Verifier};
use crate::extract::Json;

/// All routes, to be put behind [`tracked`](crate::request::tracked).
pub fn router(verifier: Verifier) -> Router {
    Router::new().route("/storage/status", get(status)).with_state(verifier)
}

/// That the share serves, and as whom it knows the caller.
#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
    user_id: String,
    username: String,
}

async fn status(caller: Caller) -> Json<Status> {
    Json(Status { status: "ok", user_id: caller.user.to_string(), username: caller.username.to_string() })
}
