//! The file share over HTTP: one file per noun. Paths and shapes are what edd-cloud's clients rely on.
//!
//! Creating answers 200 with the object itself (a PUT that makes a file 201), other actions `{"status": "ok"}`; moments
//! are RFC 3339. API tokens need the scope `storage.<user>[.namespaces[.<name>]]` with `read`, `write` or `delete`.

mod admin;
mod body;
mod condition;
mod content;
mod dav;
mod digests;
mod disposition;
mod download;
mod entries;
mod entry;
mod form;
mod media;
mod namespaces;
mod progress;
mod range;
mod refusal;
mod shares;
mod sse;
mod status;
mod tus;
mod upload;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};

use crate::caller::{Caller, Verifier};
use crate::error::Error;
use crate::extract::Json;
use crate::sfs::model::{Actor, FilePath, NamespaceName, Visitor};
use crate::sfs::service::{Service, Shares};

use self::progress::Transfers;
use self::sse::Streams;

/// What a list gives when it is not told how much, and at most.
const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 1000;
/// Where a list that is a bare array says how it goes on; absent at its end.
const NEXT_CURSOR: &str = "x-next-cursor";

/// What handlers stand on.
#[derive(Clone, Debug)]
struct Api {
    service: Service,
    shares: Shares,
    verifier: Verifier,
    transfers: Transfers,
    streams: Streams,
}

/// Lets handlers take a part of it.
macro_rules! parts {
    ($($field:ident: $part:ty),+ $(,)?) => {$(
        impl FromRef<Api> for $part {
            fn from_ref(api: &Api) -> Self {
                api.$field.clone()
            }
        }
    )+};
}

parts! { service: Service, shares: Shares, verifier: Verifier, transfers: Transfers, streams: Streams }

/// All routes, to be put behind [`tracked`](crate::request::tracked).
pub(super) fn router(service: Service, shares: Shares, verifier: Verifier) -> Router {
    let file = put(upload::put).post(upload::post).get(download::show).delete(entries::delete);
    Router::new()
        .route("/storage/status", get(status::show))
        .route("/storage/status/usage", get(status::usage))
        .route("/storage/namespaces", get(namespaces::list).post(namespaces::create))
        .route("/storage/namespaces/{name}", get(namespaces::show).put(namespaces::change).delete(namespaces::delete))
        .route("/storage/files", get(entries::list))
        .route("/storage/files/move", post(entries::move_to))
        .route("/storage/files/copy", post(entries::copy_to))
        .route("/storage/files/folders", post(entries::make_folder))
        .route("/storage/download/{namespace}/{*path}", get(download::save))
        .route("/storage/shares", get(shares::list).post(shares::create))
        .route("/storage/shares/{token}", get(shares::open).delete(shares::revoke))
        .route("/storage/shares/{token}/{*path}", get(shares::open_below))
        .merge(tus::routes())
        .merge(dav::routes())
        .merge(admin_routes(""))
        .merge(admin_routes("/storage"))
        .route("/sse/progress", get(sse::open))
        .route("/storage/sse/progress", get(sse::open))
        .route("/storage/{namespace}/{*path}", file)
        // Bodies of files have no limit but quotas; those of JSON have their own.
        .layer(DefaultBodyLimit::disable())
        .with_state(Api { service, shares, verifier, transfers: Transfers::default(), streams: Streams::default() })
}

/// What administrators ask: on the API's own host as old clients do, and where the dashboard's host leads here.
fn admin_routes(at: &str) -> Router<Api> {
    Router::new()
        .route(&format!("{at}/admin/namespaces"), get(admin::list))
        .route(&format!("{at}/admin/namespaces/{{name}}"), put(admin::change).delete(admin::purge))
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
    cursor: Option<String>,
    limit: Option<u32>,
}

impl Paging {
    fn limit(&self) -> Result<u32, Error> {
        limit(self.limit)
    }
}

fn limit(wanted: Option<u32>) -> Result<u32, Error> {
    match wanted.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(Error::bad_request(format!("limit: 1 to {MAX_LIMIT}"))),
    }
}

/// The namespace that a path names: what is no name is nobody's.
fn namespace(text: &str) -> Result<NamespaceName, Error> {
    text.parse().map_err(|_| Error::not_found("there is no such namespace"))
}

/// A file or folder that a path names.
fn place(namespace: &str, path: &str) -> Result<(NamespaceName, FilePath), Error> {
    Ok((self::namespace(namespace)?, path.parse()?))
}

/// Asks whether `caller` may do `action` to a namespace, as far as their token goes; whose it is the service asks.
fn actor(caller: &Caller, action: &str, namespace: &NamespaceName) -> Result<Actor, Error> {
    Ok(Actor::new(caller, caller.may("storage", action, &["namespaces", namespace.as_str()])?))
}

/// The same of all namespaces.
fn actor_of_all(caller: &Caller, action: &str) -> Result<Actor, Error> {
    Ok(Actor::new(caller, caller.may("storage", action, &["namespaces"])?))
}

/// Who reads: anybody may come. What they may not see does not exist for them, and without credentials they are told to
/// sign in.
fn visitor(caller: Option<&Caller>, namespace: &NamespaceName) -> Result<Visitor, Error> {
    caller.map_or(Ok(Visitor::Anybody), |caller| Ok(actor(caller, "read", namespace)?.into()))
}
