//! `/compute/containers/{id}/terminal`: a shell. Binary messages are bytes, both ways. A text message
//! `{"type": "resize", "cols": …, "rows": …}` sets the terminal's size; any other is input, as old clients send it.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::Message;
use axum::response::Response;
use edd_proto::ContainerId;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::sockets::{End, Incoming, Opening, Outgoing, Wire, changed, pings};
use super::{Api, permit};
use crate::caller::{Permit, UrlCaller};
use crate::compute::error::ComputeError;
use crate::compute::platform::{Control, Input, MAX_PIECE_BYTES, Output, Session, Size};
use crate::compute::service::Service;
use crate::error::Error;
use crate::extract::{Path, Query};
use crate::request::Context;

/// What the terminal is until its client says otherwise, and at most.
const DEFAULT_SIZE: Size = Size { columns: 80, rows: 24 };
const MAX_SIDE: u16 = 1000;
/// Between two looks at the container, which an open terminal keeps awake.
const LOOK_EVERY: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
pub(super) struct Wanted {
    cols: Option<u16>,
    rows: Option<u16>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Command {
    Resize { cols: u16, rows: u16 },
}

/// Of what clients claim, what a terminal can be.
fn size(columns: u16, rows: u16) -> Size {
    Size { columns: columns.clamp(1, MAX_SIDE), rows: rows.clamp(1, MAX_SIDE) }
}

pub(super) async fn open(
    UrlCaller(caller): UrlCaller,
    State(Api { service, verifier, sockets, .. }): State<Api>,
    context: Context,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
    opening: Opening,
) -> Result<Response, Error> {
    let (permit, id) = permit(&caller, "update", &id)?;
    let Size { columns, rows } = DEFAULT_SIZE;
    let size = size(wanted.cols.unwrap_or(columns), wanted.rows.unwrap_or(rows));
    let seat = sockets.take(caller.user)?;
    let session = service.terminal(permit, id, size, &context.cause()).await?;
    let inside = Inside { service, permit, id };
    Ok(opening.serve(seat, verifier, &caller, move |wire| show(wire, session, inside)))
}

/// The container that a terminal is in.
struct Inside {
    service: Service,
    permit: Permit,
    id: ContainerId,
}

impl Inside {
    /// Keeps the container awake, and returns when it is deleted.
    async fn end(&self) -> End {
        let mut changes = self.service.changes();
        loop {
            match self.service.container(self.permit, self.id).await {
                Err(ComputeError::NotFound(_)) => return End::Deleted,
                Err(error) => tracing::debug!(container = %self.id, %error, "an open terminal is not looked after"),
                Ok(_) => {
                    if let Err(error) = self.service.active(&[self.id]).await {
                        tracing::debug!(container = %self.id, %error, "an open terminal does not count as use");
                    }
                }
            }
            // A deletion in this process is seen at once.
            let _ = tokio::time::timeout(LOOK_EVERY, changed(&mut changes, self.permit.owner())).await;
        }
    }
}

async fn show(wire: Wire, session: Session, inside: Inside) -> (Outgoing, End) {
    let Wire { mut outgoing, mut incoming, standing } = wire;
    let Session { input, control, output } = session;
    let end = tokio::select! {
        end = write(&mut outgoing, output) => end,
        end = read(&mut incoming, input, control) => end,
        end = standing.end() => end,
        end = inside.end() => end,
    };
    (outgoing, end)
}

async fn write(outgoing: &mut Outgoing, mut output: mpsc::Receiver<Output>) -> End {
    let mut pings = pings();
    loop {
        let message = tokio::select! {
            piece = output.recv() => match piece {
                Some(Output::Stdout(bytes) | Output::Stderr(bytes)) => Message::Binary(bytes),
                Some(Output::Exit(_)) | None => return End::Over,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        if let Err(end) = outgoing.send(message).await {
            return end;
        }
    }
}

/// A shell that does not read keeps its client from being read.
async fn read(incoming: &mut Incoming, input: mpsc::Sender<Input>, control: mpsc::Sender<Control>) -> End {
    while let Some(message) = incoming.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(Command::Resize { cols, rows }) => {
                    // One that has ended has no size; that it has is told by its output.
                    let _ = control.send(Control::Resize(size(cols, rows))).await;
                    continue;
                }
                Err(_) => Bytes::from(text),
            },
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        for piece in bytes.chunks(MAX_PIECE_BYTES) {
            let _ = input.send(Input::Bytes(bytes.slice_ref(piece))).await;
        }
    }
    End::Gone
}
