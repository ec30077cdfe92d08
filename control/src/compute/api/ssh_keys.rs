//! `/compute/ssh-keys`: the keys of whoever asks.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{Done, done};
use crate::caller::Caller;
use crate::compute::error::ComputeError;
use crate::compute::model;
use crate::compute::service::Service;
use crate::error::Error;
use crate::extract::{Json, Path};
use crate::moment::rfc3339;
use crate::request::Context;

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// Empty: the key's comment.
    #[serde(default)]
    name: String,
    public_key: String,
}

#[derive(Serialize)]
pub(super) struct SshKey {
    id: i64,
    name: String,
    public_key: String,
    fingerprint: String,
    created_at: String,
}

impl SshKey {
    fn of(key: model::SshKey) -> Result<Self, Error> {
        let (name, public_key, fingerprint) = (key.name, key.public_key, key.fingerprint);
        Ok(Self { id: key.number, name, public_key, fingerprint, created_at: rfc3339(key.created_at)? })
    }
}

#[derive(Serialize)]
pub(super) struct SshKeys {
    ssh_keys: Vec<SshKey>,
}

pub(super) async fn list(caller: Caller, State(service): State<Service>) -> Result<Json<SshKeys>, Error> {
    let permit = caller.may("compute", "read", &["keys"])?;
    let keys = service.ssh_keys(permit).await?;
    Ok(Json(SshKeys { ssh_keys: keys.into_iter().map(SshKey::of).collect::<Result<_, _>>()? }))
}

pub(super) async fn create(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Json(wanted): Json<Wanted>,
) -> Result<Json<SshKey>, Error> {
    let permit = caller.may("compute", "create", &["keys"])?;
    let key = wanted.public_key.parse::<model::PublicKey>()?;
    let key = service.add_ssh_key(&caller, permit, &wanted.name, key, &context.cause()).await?;
    SshKey::of(key).map(Json)
}

pub(super) async fn delete(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Done>, Error> {
    let permit = caller.may("compute", "delete", &["keys", &id])?;
    let number = id.parse().map_err(|_| ComputeError::NotFound("SSH key"))?;
    service.delete_ssh_key(permit, number, &context.cause()).await?;
    Ok(done())
}
