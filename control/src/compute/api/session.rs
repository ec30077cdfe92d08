//! `/api/containers/{id}/session`: something that a gateway runs in a container, for whom it has let in. A WebSocket that
//! [`remote_session`] speaks.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use edd_proto::ContainerId;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::container_id;
use crate::compute::error::ComputeError;
use crate::compute::remote_session::{self, Beat, MAX_FRAME_BYTES, Socket};
use crate::compute::service::Service;
use crate::error::Error;
use crate::extract::Path;
use crate::service_key::AnotherService;

/// Sessions of all gateways together: fewer than there may be connections, so that something can still be asked.
const MOST: usize = 512;

/// How many sessions there may still be; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Sessions(Arc<Semaphore>);

impl Default for Sessions {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

pub(super) async fn open(
    _: AnotherService,
    State(service): State<Service>,
    State(Sessions(sessions)): State<Sessions>,
    Path(id): Path<String>,
    opening: WebSocketUpgrade,
) -> Result<Response, Error> {
    let id = container_id(&id)?;
    let seat = sessions.try_acquire_owned().map_err(|_| ComputeError::Busy)?;
    let opening = opening.max_message_size(MAX_FRAME_BYTES).max_frame_size(MAX_FRAME_BYTES);
    Ok(opening.on_upgrade(async move |socket| {
        run(socket, service, id).await;
        drop(seat);
    }))
}

async fn run(socket: WebSocket, service: Service, id: ContainerId) {
    let mut socket = beats(socket);
    if let Some(exec) = remote_session::asked(&mut socket).await {
        let session = service.session(id, exec).await;
        remote_session::answer(socket, session).await;
    }
}

/// The socket's messages as beats.
fn beats(socket: WebSocket) -> impl Socket {
    let heard = socket.take_while(|message| std::future::ready(!matches!(message, Ok(Message::Close(_)))));
    let heard = heard.map_ok(|message| match message {
        Message::Binary(bytes) => Some(bytes),
        // No frame is empty.
        Message::Text(_) => Some(Bytes::new()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
    });
    heard.with(|beat: Beat| std::future::ready(Ok(beat.map_or(Message::Ping(Bytes::new()), Message::Binary))))
}
