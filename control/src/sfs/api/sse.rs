//! `/sse/progress?id=`: how far a transfer is, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::progress::{Progress, Transfers};
use crate::caller::Caller;
use crate::error::Error;
use crate::extract::Query;

/// Streams that are open at once: each holds a connection.
const MAX_STREAMS: usize = 256;
/// Shortest time between two events of one.
const EVENT_EVERY: Duration = Duration::from_millis(200);
/// How often a comment shows that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Longest wait for a transfer to begin.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);
/// When to come back where all streams are taken.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Keeps proxies from collecting events.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The streams that are open.
#[derive(Clone, Debug)]
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    id: String,
}

pub(super) async fn open(
    caller: Caller,
    State(transfers): State<Transfers>,
    State(Streams(places)): State<Streams>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Error> {
    let place = places.try_acquire_owned().map_err(|_| {
        Error::too_many_requests("too many transfers are being followed: try again later", BUSY_RETRY_AFTER)
    })?;
    let progress = transfers.watch(caller.user, &wanted.id)?;
    let following = Following { progress, is_new: true, has_ended: false, _place: place };
    let events = stream::unfold(following, Following::next);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Somebody who follows a transfer.
struct Following {
    progress: watch::Receiver<Progress>,
    is_new: bool,
    has_ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// The next event: what is known at first, then what changes, as often as makes sense, to the end of the transfer.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.has_ended {
            return None;
        }
        if std::mem::take(&mut self.is_new) {
            let begun = tokio::time::timeout(BEGIN_TIMEOUT, self.progress.wait_for(Progress::has_begun)).await;
            begun.ok()?.ok()?;
        } else {
            tokio::time::sleep(EVENT_EVERY).await;
            self.progress.changed().await.ok()?;
        }
        let progress = self.progress.borrow_and_update().clone();
        self.has_ended = progress.done;
        let event = Event::default().json_data(&progress).ok()?;
        Some((Ok(event), self))
    }
}
