//! `/compute/containers`, and what else is asked about them.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::ingress::WantedRule;
use super::{Done, Paging, done, permit};
use crate::caller::Caller;
use crate::compute::model::{Invalid, MountPaths, WantedContainer};
use crate::compute::service::Service;
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::request::Context;

const DEFAULT_MEMORY_MB: u32 = 512;
const DEFAULT_STORAGE_GB: u32 = 5;
const DEFAULT_MOUNT_PATH: &str = "/root";
/// Keys that a request names at most.
const MAX_KEYS: usize = 100;
/// Ports that a request asks for at most, besides the quota.
const MAX_RULES: usize = 1000;
/// Where a list that is a bare array says how it goes on; absent at its end.
const NEXT_CURSOR: &str = "x-next-cursor";

#[derive(Deserialize)]
pub(super) struct Wanted {
    name: String,
    memory_mb: Option<u32>,
    storage_gb: Option<u32>,
    instance_type: Option<String>,
    /// Absent or null: all of the owner's keys, also those to come.
    ssh_key_ids: Option<Vec<i64>>,
    #[serde(alias = "enable_ssh")]
    ssh_enabled: Option<bool>,
    mount_paths: Option<Vec<String>>,
    image: Option<String>,
    pull_policy: Option<String>,
    #[serde(default)]
    ingress_rules: Vec<WantedRule>,
}

impl Wanted {
    fn parse(self, service: &Service) -> Result<WantedContainer, Invalid> {
        let names_no_key = self.ssh_key_ids.as_ref().is_some_and(Vec::is_empty);
        let ssh_enabled = self.ssh_enabled.unwrap_or(!names_no_key);
        if ssh_enabled && names_no_key {
            let rule = "choose a key, or leave it out to let all of yours in";
            return Err(Invalid::new("ssh_key_ids", rule));
        }
        if self.ingress_rules.len() > MAX_RULES {
            return Err(Invalid::new("ingress_rules", format!("at most {MAX_RULES}")));
        }
        let ingress = self.ingress_rules.into_iter().map(|rule| rule.parse(service)).collect::<Result<_, _>>()?;
        Ok(WantedContainer {
            name: self.name.parse()?,
            memory_mb: self.memory_mb.unwrap_or(DEFAULT_MEMORY_MB),
            storage_gb: self.storage_gb.unwrap_or(DEFAULT_STORAGE_GB),
            instance_type: self.instance_type.map_or(Ok(Default::default()), |text| text.parse())?,
            image: self.image.filter(|image| !image.is_empty()),
            pull: self.pull_policy.map_or(Ok(Default::default()), |text| text.parse())?,
            mount_paths: MountPaths::parse(self.mount_paths.unwrap_or_else(|| vec![DEFAULT_MOUNT_PATH.to_owned()]))?,
            ssh_enabled,
            ssh_keys: chosen(self.ssh_key_ids.filter(|keys| !keys.is_empty()))?,
            ingress,
        })
    }
}

/// Keys as they were chosen, each once.
pub(super) fn chosen(keys: Option<Vec<i64>>) -> Result<Option<Vec<i64>>, Invalid> {
    let Some(mut keys) = keys else { return Ok(None) };
    if keys.len() > MAX_KEYS {
        return Err(Invalid::new("ssh_key_ids", format!("at most {MAX_KEYS}")));
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(Some(keys))
}

pub(super) async fn create(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Container>, Error> {
    let permit = caller.may("compute", "create", &["containers"])?;
    let container = service.create(&caller, permit, wanted.parse(&service)?, &context.cause()).await?;
    Container::of(container, service.config()).map(Json)
}

#[derive(Serialize)]
pub(super) struct Containers {
    containers: Vec<Container>,
}

pub(super) async fn list(caller: Caller, State(service): State<Service>) -> Result<Json<Containers>, Error> {
    let permit = caller.may("compute", "read", &["containers"])?;
    let containers = service.containers(permit).await?;
    let containers = containers.into_iter().map(|it| Container::of(it, service.config())).collect::<Result<_, _>>()?;
    Ok(Json(Containers { containers }))
}

pub(super) async fn show(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Container>, Error> {
    let (permit, id) = permit(&caller, "read", &id)?;
    Container::of(service.container(permit, id).await?, service.config()).map(Json)
}

pub(super) async fn delete(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Done>, Error> {
    let (permit, id) = permit(&caller, "delete", &id)?;
    service.delete(permit, id, &context.cause()).await?;
    Ok(done())
}

/// Makes the handlers that want a container in another state, without a body.
macro_rules! wants {
    ($($name:ident by $method:ident),+ $(,)?) => {$(
        pub(super) async fn $name(
            caller: Caller,
            State(service): State<Service>,
            context: Context,
            Path(id): Path<String>,
        ) -> Result<Json<Done>, Error> {
            let (permit, id) = permit(&caller, "update", &id)?;
            service.$method(permit, id, &context.cause()).await?;
            Ok(done())
        }
    )+};
}

wants![start by start, stop by stop, hibernate by hibernate, wake by wake_own];

#[derive(Deserialize, Serialize)]
pub(super) struct Mounts {
    mount_paths: Vec<String>,
}

pub(super) async fn mounts(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Mounts>, Error> {
    let (permit, id) = permit(&caller, "read", &id)?;
    let container = service.container(permit, id).await?;
    Ok(Json(Mounts { mount_paths: container.mount_paths.as_slice().to_vec() }))
}

pub(super) async fn set_mounts(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
    Json(mounts): Json<Mounts>,
) -> Result<Json<Done>, Error> {
    let (permit, id) = permit(&caller, "update", &id)?;
    service.set_mounts(permit, id, MountPaths::parse(mounts.mount_paths)?).await?;
    Ok(done())
}

#[derive(Deserialize, Serialize)]
pub(super) struct Pull {
    pull_policy: String,
}

pub(super) async fn pull_policy(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Pull>, Error> {
    let (permit, id) = permit(&caller, "read", &id)?;
    Ok(Json(Pull { pull_policy: service.container(permit, id).await?.pull.as_str().to_owned() }))
}

pub(super) async fn set_pull_policy(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
    Json(pull): Json<Pull>,
) -> Result<Json<Done>, Error> {
    let (permit, id) = permit(&caller, "update", &id)?;
    service.set_pull(permit, id, pull.pull_policy.parse()?).await?;
    Ok(done())
}

#[derive(Deserialize, Serialize)]
pub(super) struct Idle {
    /// 0: never
    idle_timeout_s: u32,
}

pub(super) async fn idle(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Idle>, Error> {
    let (permit, id) = permit(&caller, "read", &id)?;
    Ok(Json(Idle { idle_timeout_s: service.container(permit, id).await?.idle_timeout_s }))
}

pub(super) async fn set_idle(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
    Json(idle): Json<Idle>,
) -> Result<Json<Done>, Error> {
    let (permit, id) = permit(&caller, "update", &id)?;
    service.set_idle_timeout(permit, id, idle.idle_timeout_s).await?;
    Ok(done())
}

#[derive(Serialize)]
struct Image {
    name: String,
    description: String,
    is_default: bool,
}

#[derive(Serialize)]
pub(super) struct Images {
    images: Vec<Image>,
}

pub(super) async fn images(caller: Caller, State(service): State<Service>) -> Result<Json<Images>, Error> {
    caller.may("compute", "read", &["containers"])?;
    let images = service.images().await?.into_iter();
    let images =
        images.map(|image| Image { name: image.name, description: image.description, is_default: image.is_default });
    Ok(Json(Images { images: images.collect() }))
}

/// A container with whose it is.
#[derive(Serialize)]
struct Owned {
    user_id: String,
    username: String,
    #[serde(flatten)]
    container: Container,
}

pub(super) async fn all(
    caller: Caller,
    State(service): State<Service>,
    Query(paging): Query<Paging>,
) -> Result<Response, Error> {
    let (admin, limit) = (caller.require_admin()?, paging.limit()?);
    let containers = service.all_containers(admin, paging.after.as_deref(), limit).await?;
    let next = containers.last().filter(|_| containers.len() == limit as usize).map(|last| last.id.to_string());
    let owned = |container: crate::compute::model::Container| {
        let (user_id, username) = (container.owner.to_string(), container.owner_name.clone());
        Ok(Owned { user_id, username, container: Container::of(container, service.config())? })
    };
    let list = containers.into_iter().map(owned).collect::<Result<Vec<_>, Error>>()?;
    let next = next.and_then(|next| HeaderValue::from_str(&next).ok()).map(|next| [(NEXT_CURSOR, next)]);
    Ok((next, Json(list)).into_response())
}
