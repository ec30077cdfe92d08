//! What gateways need, shown for the services' key: the tables that they keep copies of, and a way to say what they see.
//!
//! A snapshot's rows carry the version that their last event had. A reader notes where the stream is, reads all pages,
//! and follows the events from there: what changes while it reads comes as an event.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use edd_events::projection::{Owner, OwnerError};
use edd_proto::ContainerId;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Done, Paging, container_id, done};
use crate::compute::owner::Table;
use crate::compute::service::{MAX_ACTIVE, Service};
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::request::Context;
use crate::service_key::AnotherService;

/// Longest report of use, bytes: [`MAX_ACTIVE`] ids of ten characters, with quotes, commas and some blanks.
const MAX_ACTIVITY_BYTES: usize = 256 * 1024;

/// What a table comes down to: a copy with the same digest is complete.
#[derive(Serialize)]
pub(super) struct Digest {
    digest: String,
}

fn away(error: OwnerError) -> Error {
    Error::unavailable(error.to_string())
}

async fn page(service: &Service, table: Table, paging: Paging) -> Result<Response, Error> {
    let limit = paging.limit()?;
    let page = table.of(service.database().clone()).page(paging.after, limit).await.map_err(away)?;
    Ok(axum::Json(page.to_json(table.shape())).into_response())
}

async fn digest(service: &Service, table: Table) -> Result<Json<Digest>, Error> {
    let digest = table.of(service.database().clone()).digest().await.map_err(away)?;
    Ok(Json(Digest { digest: digest.to_string() }))
}

/// Makes the two handlers of each table.
macro_rules! tables {
    ($($page:ident, $digest:ident: $table:ident);+ $(;)?) => {$(
        pub(super) async fn $page(
            _: AnotherService,
            State(service): State<Service>,
            Query(paging): Query<Paging>,
        ) -> Result<Response, Error> {
            page(&service, Table::$table, paging).await
        }

        pub(super) async fn $digest(_: AnotherService, State(service): State<Service>) -> Result<Json<Digest>, Error> {
            digest(&service, Table::$table).await
        }
    )+};
}

tables! {
    containers, containers_digest: Containers;
    ssh_keys, ssh_keys_digest: SshKeys;
    ingress_requests, ingress_requests_digest: IngressRequests;
}

/// 202: that it runs comes as an event.
pub(super) async fn wake(
    _: AnotherService,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Done>), Error> {
    service.wake(container_id(&id)?, &context.cause()).await?;
    Ok((StatusCode::ACCEPTED, done()))
}

#[derive(Deserialize)]
pub(super) struct Activity {
    container_ids: Vec<ContainerId>,
}

/// The answer to a report of use.
#[derive(Serialize)]
pub(super) struct Noted {
    #[serde(flatten)]
    done: Done,
    /// Those that were being put to sleep, and are woken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    woken: Vec<ContainerId>,
}

pub(super) async fn activity(
    _: AnotherService,
    State(service): State<Service>,
    Json(activity): Json<Activity, MAX_ACTIVITY_BYTES>,
) -> Result<Json<Noted>, Error> {
    if activity.container_ids.len() > MAX_ACTIVE {
        return Err(Error::bad_request(format!("container_ids: at most {MAX_ACTIVE} in one report")));
    }
    let woken = service.active(&activity.container_ids).await?;
    let Json(done) = done();
    Ok(Json(Noted { done, woken }))
}
