//! `/compute/containers/{id}/ssh` and `/https`: who may come in.

use axum::extract::State;
use serde::{Deserialize, Deserializer, Serialize};

use super::containers::chosen;
use super::{Done, done, permit};
use crate::caller::Caller;
use crate::compute::service::{HttpsAccess, Service, SshAccess};
use crate::error::Error;
use crate::extract::{Json, Path};
use crate::request::Context;

#[derive(Serialize)]
pub(super) struct Ssh {
    ssh_enabled: bool,
    /// null: all of the owner's keys
    ssh_key_ids: Option<Vec<i64>>,
    ssh_command: String,
}

pub(super) async fn ssh(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Ssh>, Error> {
    let (permit, id) = permit(&caller, "read", &id)?;
    let access = service.container(permit, id).await?.access;
    let ssh_command = service.config().ssh_command(id.as_str());
    Ok(Json(Ssh { ssh_enabled: access.ssh_enabled, ssh_key_ids: access.ssh_keys, ssh_command }))
}

#[derive(Deserialize)]
pub(super) struct SshChange {
    ssh_enabled: Option<bool>,
    /// Absent: as it is; null: all of the owner's keys.
    #[serde(default, deserialize_with = "present")]
    ssh_key_ids: Option<Option<Vec<i64>>>,
}

/// Tells null from what is absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

pub(super) async fn set_ssh(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
    Json(change): Json<SshChange>,
) -> Result<Json<Done>, Error> {
    let (permit, id) = permit(&caller, "update", &id)?;
    let ssh_keys = change.ssh_key_ids.map(chosen).transpose()?;
    if change.ssh_enabled.is_none() && ssh_keys.is_none() {
        return Err(Error::bad_request("ssh_enabled: true or false; or ssh_key_ids: a list, or null for all of yours"));
    }
    let change = SshAccess { ssh_enabled: change.ssh_enabled, ssh_keys };
    service.set_ssh(permit, id, change, &context.cause()).await?;
    Ok(done())
}

#[derive(Serialize)]
pub(super) struct Https {
    https_enabled: bool,
    redirect_to_https: bool,
}

pub(super) async fn https(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Https>, Error> {
    let (permit, id) = permit(&caller, "read", &id)?;
    let access = service.container(permit, id).await?.access;
    Ok(Json(Https { https_enabled: access.https_enabled, redirect_to_https: access.redirect_to_https }))
}

#[derive(Deserialize)]
pub(super) struct HttpsChange {
    https_enabled: Option<bool>,
    redirect_to_https: Option<bool>,
}

pub(super) async fn set_https(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
    Json(change): Json<HttpsChange>,
) -> Result<Json<Done>, Error> {
    let (permit, id) = permit(&caller, "update", &id)?;
    let HttpsChange { https_enabled, redirect_to_https } = change;
    if https_enabled.is_none() && redirect_to_https.is_none() {
        return Err(Error::bad_request("https_enabled, redirect_to_https: true or false, one of them or both"));
    }
    service.set_https(permit, id, HttpsAccess { https_enabled, redirect_to_https }, &context.cause()).await?;
    Ok(done())
}
