//! `/admin/namespaces` and `/storage/admin/namespaces`: all namespaces, for administrators.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use edd_proto::UserId;
use serde::{Deserialize, Deserializer, Serialize};

use super::namespaces::{Namespace, page};
use super::{Done, done};
use crate::caller::Caller;
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::request::Context;
use crate::sfs::model::NamespaceName;
use crate::sfs::service::{Service, Which};

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// Those alone that are nobody's.
    #[serde(default)]
    orphaned: bool,
    cursor: Option<String>,
    limit: Option<u32>,
}

/// A namespace with the name of its owner.
#[derive(Debug, Serialize)]
struct Owned {
    owner_username: Option<String>,
    #[serde(flatten)]
    namespace: Namespace,
}

pub(super) async fn list(
    caller: Caller,
    State(service): State<Service>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Error> {
    let (admin, limit) = (caller.require_admin()?, super::limit(wanted.limit)?);
    let after = wanted.cursor.as_deref().map(str::parse::<NamespaceName>).transpose()?;
    let which = if wanted.orphaned { Which::Orphaned } else { Which::All };
    let found = service.all_namespaces(admin, which, after.as_ref(), limit).await?;
    let owners: Vec<UserId> = found.iter().filter_map(|it| it.owner.map(|owner| owner.user)).collect();
    let names: HashMap<UserId, String> = service.usernames(admin, &owners).await?.into_iter().collect();
    let owned = |it: &crate::sfs::model::Namespace| {
        let owner_username = it.owner.and_then(|owner| names.get(&owner.user).cloned());
        Ok(Owned { owner_username, namespace: Namespace::of(it)? })
    };
    let shown = found.iter().map(owned).collect::<Result<_, Error>>()?;
    page(&found, limit, shown)
}

/// What is to be other than it is.
#[derive(Debug, Deserialize)]
pub(super) struct Change {
    /// The user who it goes to.
    owner: Option<UserId>,
    /// Null: no quota but its owner's. Absent: it stays.
    #[serde(default, deserialize_with = "present")]
    quota_bytes: Option<Option<u64>>,
}

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

pub(super) async fn change(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(name): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<Namespace>, Error> {
    let (admin, name) = (caller.require_admin()?, super::namespace(&name)?);
    let mut changed = None;
    if let Some(user) = change.owner {
        changed = Some(service.reassign_to(admin, &name, user, &context.cause()).await?);
    }
    if let Some(quota_bytes) = change.quota_bytes {
        if quota_bytes.is_some_and(|bytes| i64::try_from(bytes).is_err()) {
            return Err(Error::bad_request("quota_bytes: at most 9223372036854775807"));
        }
        changed = Some(service.set_quota(admin, &name, quota_bytes).await?);
    }
    let changed = changed.ok_or_else(|| Error::bad_request("say what to change: `owner`, `quota_bytes` or both"))?;
    Namespace::of(&changed).map(Json)
}

pub(super) async fn purge(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(name): Path<String>,
) -> Result<Json<Done>, Error> {
    let admin = caller.require_admin()?;
    service.purge(admin, &super::namespace(&name)?, &context.cause()).await?;
    Ok(done())
}
