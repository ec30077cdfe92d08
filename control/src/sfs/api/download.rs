//! `GET` and `HEAD` of `/storage/{namespace}/{path}`, and `/storage/download/…`, which is always saved.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Method};
use serde::Deserialize;

use super::content::{Asked, Extent, Manner, answer};
use super::progress::{Direction, Transfers};
use super::{place, visitor};
use crate::caller::Caller;
use crate::error::Error;
use crate::extract::{Path, Query};
use crate::sfs::service::Service;

#[derive(Debug, Deserialize)]
pub(super) struct How {
    /// What the client calls the transfer.
    id: Option<String>,
    /// It is saved, whatever it is.
    #[serde(default)]
    download: bool,
}

/// What both take.
type File = Path<(String, String)>;

pub(super) async fn show(
    caller: Option<Caller>,
    State(service): State<Service>,
    State(transfers): State<Transfers>,
    Path(file): File,
    Query(how): Query<How>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let asked = Asked::new(&method, &headers);
    send(caller, (&service, &transfers), &file, &how, asked).await
}

pub(super) async fn save(
    caller: Option<Caller>,
    State(service): State<Service>,
    State(transfers): State<Transfers>,
    Path(file): File,
    Query(how): Query<How>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let asked = Asked::new(&method, &headers);
    send(caller, (&service, &transfers), &file, &How { download: true, ..how }, asked).await
}

async fn send(
    caller: Option<Caller>,
    (service, transfers): (&Service, &Transfers),
    (namespace, path): &(String, String),
    how: &How,
    asked: Asked<'_>,
) -> Result<Response, Error> {
    let (namespace, path) = place(namespace, path)?;
    let opened = service.open(&visitor(caller.as_ref(), &namespace)?, &namespace, &path).await?;
    let extent = asked.extent(&opened)?;
    let total = match &extent {
        Extent::Whole => Some(opened.file.size),
        Extent::Part(range) => Some(range.end - range.start),
        _ => None,
    };
    let transfer = match (&caller, total) {
        (Some(caller), Some(_)) if asked.is_get() => {
            transfers.begin(caller.user, how.id.as_deref(), Direction::Download, total)?
        }
        _ => None,
    };
    answer(&opened, extent, Manner::of(&opened, how.download), transfer)
}
