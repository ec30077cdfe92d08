//! `/storage/status`

use axum::extract::State;
use serde::Serialize;

use super::actor_of_all;
use crate::caller::Caller;
use crate::error::Error;
use crate::extract::Json;
use crate::sfs::service::Service;

/// That the share serves, and as whom it knows the caller.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    status: &'static str,
    user_id: String,
    username: String,
}

pub(super) async fn show(caller: Caller) -> Json<Status> {
    Json(Status { status: "ok", user_id: caller.user.to_string(), username: caller.username.to_string() })
}

/// What the caller has, and may have.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    used_bytes: u64,
    /// Of uploads that have begun.
    reserved_bytes: u64,
    quota_bytes: u64,
    used_entries: u64,
    quota_entries: u64,
}

pub(super) async fn usage(caller: Caller, State(service): State<Service>) -> Result<Json<Usage>, Error> {
    let usage = service.usage(&actor_of_all(&caller, "read")?).await?;
    Ok(Json(Usage {
        used_bytes: usage.used_bytes,
        reserved_bytes: usage.reserved_bytes,
        quota_bytes: usage.most_bytes,
        used_entries: usage.used_entries,
        quota_entries: usage.most_entries,
    }))
}
