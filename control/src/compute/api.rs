//! The compute service over HTTP: one file per resource. Paths and shapes are what edd-cloud's clients rely on.
//!
//! Creating answers 200 with the object itself, other actions `{"status": "ok"}`; moments are RFC 3339, but for those of
//! ingress rules, which are Unix seconds. API tokens need the scope `compute.<user>.containers[.<id>]` or
//! `compute.<user>.keys[.<id>]` with `create`, `read`, `update` or `delete`.

mod access;
mod container;
mod containers;
mod fleet;
mod ingress;
mod logs;
mod session;
mod sockets;
mod ssh_keys;
mod status;
mod terminal;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{delete, get, post};
use edd_proto::ContainerId;
use serde::{Deserialize, Serialize};

use crate::caller::{Caller, Permit, Verifier};
use crate::compute::error::ComputeError;
use crate::compute::model::Invalid;
use crate::compute::platform::PlatformError;
use crate::compute::service::Service;
use crate::error::Error;
use crate::extract::Json;
use crate::service_key::ServiceKey;

use self::session::Sessions;
use self::sockets::Sockets;

/// What a list gives when it is not told how much, and at most.
const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 5000;

/// What handlers stand on.
#[derive(Clone, Debug)]
struct Api {
    service: Service,
    verifier: Verifier,
    sockets: Sockets,
    sessions: Sessions,
}

impl FromRef<Api> for Service {
    fn from_ref(api: &Api) -> Self {
        api.service.clone()
    }
}

impl FromRef<Api> for Verifier {
    fn from_ref(api: &Api) -> Self {
        api.verifier.clone()
    }
}

impl FromRef<Api> for Sessions {
    fn from_ref(api: &Api) -> Self {
        api.sessions.clone()
    }
}

impl FromRef<Api> for Option<ServiceKey> {
    fn from_ref(api: &Api) -> Self {
        api.service.config().service_key.clone()
    }
}

/// All routes, to be put behind [`tracked`](crate::request::tracked).
pub(super) fn router(service: Service, verifier: Verifier) -> Router {
    Router::new()
        .route("/compute/containers", get(containers::list).post(containers::create))
        .route("/compute/containers/{id}", get(containers::show).delete(containers::delete))
        .route("/compute/containers/{id}/start", post(containers::start))
        .route("/compute/containers/{id}/stop", post(containers::stop))
        .route("/compute/containers/{id}/hibernate", post(containers::hibernate))
        .route("/compute/containers/{id}/wake", post(containers::wake))
        .route("/compute/containers/{id}/mounts", get(containers::mounts).put(containers::set_mounts))
        .route("/compute/containers/{id}/pull-policy", get(containers::pull_policy).put(containers::set_pull_policy))
        .route("/compute/containers/{id}/idle", get(containers::idle).put(containers::set_idle))
        .route("/compute/containers/{id}/ssh", get(access::ssh).put(access::set_ssh))
        .route("/compute/containers/{id}/https", get(access::https).put(access::set_https))
        .route("/compute/containers/{id}/ingress", get(ingress::list).post(ingress::create))
        .route("/compute/containers/{id}/ingress/{port}", delete(ingress::delete))
        .route("/compute/containers/{id}/logs", get(logs::open))
        .route("/compute/containers/{id}/terminal", get(terminal::open))
        .route("/compute/ws", get(status::open))
        .route("/compute/images", get(containers::images))
        .route("/compute/ssh-keys", get(ssh_keys::list).post(ssh_keys::create))
        .route("/compute/ssh-keys/{id}", delete(ssh_keys::delete))
        .route("/compute/admin/containers", get(containers::all))
        .merge(fleet_routes())
        .with_state(Api { service, verifier, sockets: Sockets::default(), sessions: Sessions::default() })
}

/// What other services ask.
fn fleet_routes() -> Router<Api> {
    Router::new()
        .route("/api/containers", get(fleet::containers))
        .route("/api/containers/digest", get(fleet::containers_digest))
        .route("/api/ssh-keys", get(fleet::ssh_keys))
        .route("/api/ssh-keys/digest", get(fleet::ssh_keys_digest))
        .route("/api/ingress-requests", get(fleet::ingress_requests))
        .route("/api/ingress-requests/digest", get(fleet::ingress_requests_digest))
        .route("/api/containers/{id}/wake", post(fleet::wake))
        .route("/api/containers/{id}/session", get(session::open))
        .route("/api/containers/activity", post(fleet::activity))
}

/// `{"status": "ok"}`
#[derive(Debug, Serialize)]
struct Done {
    status: &'static str,
}

fn done() -> Json<Done> {
    Json(Done { status: "ok" })
}

/// How much of a list, and from where.
#[derive(Debug, Default, Deserialize)]
struct Paging {
    after: Option<String>,
    limit: Option<u32>,
}

impl Paging {
    fn limit(&self) -> Result<u32, Error> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            _ => Err(Error::bad_request("limit: 1 to 5000")),
        }
    }
}

/// The container that a path names: what is no id is nobody's.
fn container_id(text: &str) -> Result<ContainerId, Error> {
    text.parse().map_err(|_| ComputeError::NotFound("container").into())
}

/// Asks whether `caller` may do `action` to the container that a path names.
fn permit(caller: &Caller, action: &str, id: &str) -> Result<(Permit, ContainerId), Error> {
    let id = container_id(id)?;
    Ok((caller.may("compute", action, &["containers", id.as_str()])?, id))
}

impl From<ComputeError> for Error {
    fn from(error: ComputeError) -> Self {
        let message = error.to_string();
        match error {
            ComputeError::Invalid(_) => Self::bad_request(message),
            ComputeError::NotFound(_) => Self::not_found(message),
            ComputeError::Conflict(_) | ComputeError::Quota { .. } => Self::conflict(message),
            ComputeError::OwnerGone => Self::forbidden(message),
            ComputeError::Busy => Self::too_many_requests(message, std::time::Duration::from_secs(1)),
            ComputeError::Platform(PlatformError::Impossible(_)) => Self::bad_request(message),
            ComputeError::Platform(PlatformError::NotFound(_) | PlatformError::WrongPhase(_)) => {
                Self::conflict(message).with_cause(error)
            }
            ComputeError::Platform(PlatformError::Unavailable(_)) | ComputeError::PlatformTimeout => {
                Self::unavailable(error)
            }
            ComputeError::Publish(error) => error.into(),
            ComputeError::Database(error) => error.into(),
        }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::bad_request(invalid.to_string())
    }
}
