//! `/compute/containers/{id}/logs`: one text message a line, first the newest there are, then those that come.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::Message;
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::sockets::{End, Opening, Outgoing, Wire, pings};
use super::{Api, permit};
use crate::caller::UrlCaller;
use crate::compute::platform::LogQuery;
use crate::error::Error;
use crate::extract::{Path, Query};

const DEFAULT_TAIL: u32 = 100;
const MAX_TAIL: u32 = 10_000;

#[derive(Deserialize)]
pub(super) struct Which {
    tail: Option<u32>,
    follow: Option<bool>,
}

pub(super) async fn open(
    UrlCaller(caller): UrlCaller,
    State(Api { service, verifier, sockets, .. }): State<Api>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
    opening: Opening,
) -> Result<Response, Error> {
    let (permit, id) = permit(&caller, "read", &id)?;
    let tail = which.tail.unwrap_or(DEFAULT_TAIL);
    if tail > MAX_TAIL {
        return Err(Error::bad_request(format!("tail: 0 to {MAX_TAIL} lines")));
    }
    let query = LogQuery { tail, follow: which.follow.unwrap_or(true) };
    let seat = sockets.take(caller.user)?;
    let lines = service.logs(permit, id, query).await?;
    Ok(opening.serve(seat, verifier, &caller, move |wire| show(wire, lines)))
}

async fn show(wire: Wire, lines: mpsc::Receiver<Bytes>) -> (Outgoing, End) {
    let Wire { mut outgoing, mut incoming, standing } = wire;
    let end = tokio::select! {
        end = write(&mut outgoing, lines) => end,
        end = incoming.end() => end,
        end = standing.end() => end,
    };
    (outgoing, end)
}

async fn write(outgoing: &mut Outgoing, mut lines: mpsc::Receiver<Bytes>) -> End {
    let mut pings = pings();
    loop {
        let message = tokio::select! {
            line = lines.recv() => match line {
                Some(line) => Message::Text(String::from_utf8_lossy(&line).into_owned().into()),
                None => return End::Over,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        if let Err(end) = outgoing.send(message).await {
            return end;
        }
    }
}
