//! `/compute/ws`: all containers of whoever asks at once, and then what changes about them.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::Message;
use axum::response::Response;
use edd_proto::UserId;
use serde::Serialize;
use tokio::time::Instant;

use super::Api;
use super::container::Container;
use super::sockets::{End, Opening, Outgoing, Wire, changed, pings};
use crate::caller::UrlCaller;
use crate::compute::service::Service;
use crate::error::Error;

/// Between two looks, besides those that changes in this process cause.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Changes that follow closer upon each other are looked at together.
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Said<'a> {
    Containers(&'a [Container]),
    ContainerStatus(Changed<'a>),
}

/// A container that changed, also by the name that old clients look for.
#[derive(Serialize)]
struct Changed<'a> {
    container_id: &'a str,
    #[serde(flatten)]
    container: &'a Container,
}

impl Said<'_> {
    fn message(&self) -> Result<Message, End> {
        let text = serde_json::to_string(self).map_err(|error| {
            tracing::error!(%error, "containers could not be written as JSON");
            End::Failed
        })?;
        Ok(Message::Text(text.into()))
    }
}

pub(super) async fn open(
    UrlCaller(caller): UrlCaller,
    State(Api { service, verifier, sockets, .. }): State<Api>,
    opening: Opening,
) -> Result<Response, Error> {
    let user = caller.may("compute", "read", &["containers"])?.owner();
    let seat = sockets.take(caller.user)?;
    Ok(opening.serve(seat, verifier, &caller, move |wire| show(wire, service, user)))
}

async fn show(wire: Wire, service: Service, user: UserId) -> (Outgoing, End) {
    let Wire { mut outgoing, mut incoming, standing } = wire;
    let end = tokio::select! {
        end = write(&mut outgoing, &service, user) => match end {
            Ok(never) => match never {},
            Err(end) => end,
        },
        end = incoming.end() => end,
        end = standing.end() => end,
    };
    (outgoing, end)
}

async fn write(outgoing: &mut Outgoing, service: &Service, user: UserId) -> Result<std::convert::Infallible, End> {
    let mut changes = service.changes();
    let mut known = containers(service, user).await?;
    outgoing.send(Said::Containers(&known).message()?).await?;
    let (mut pings, mut look_at) = (pings(), Instant::now() + LOOK_EVERY);
    loop {
        tokio::select! {
            () = changed(&mut changes, user) => look_at = look_at.min(Instant::now() + SETTLE),
            _ = pings.tick() => outgoing.send(Message::Ping(Bytes::new())).await?,
            () = tokio::time::sleep_until(look_at) => {
                let now = containers(service, user).await?;
                tell(outgoing, &known, &now).await?;
                (known, look_at) = (now, Instant::now() + LOOK_EVERY);
            }
        }
    }
}

/// Tells what differs: containers one by one, or all of them if there are others.
async fn tell(outgoing: &mut Outgoing, known: &[Container], now: &[Container]) -> Result<(), End> {
    let ids = |containers: &[Container]| containers.iter().map(|it| it.id.clone()).collect::<Vec<_>>();
    if ids(known) != ids(now) {
        return outgoing.send(Said::Containers(now).message()?).await;
    }
    for (_, container) in known.iter().zip(now).filter(|(known, now)| known != now) {
        let changed = Changed { container_id: &container.id, container };
        outgoing.send(Said::ContainerStatus(changed).message()?).await?;
    }
    Ok(())
}

async fn containers(service: &Service, user: UserId) -> Result<Vec<Container>, End> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "the status of containers could not be told");
        End::Failed
    };
    let containers = service.containers_of(user).await.map_err(|error| failed(&error))?;
    let shown = containers.into_iter().map(|it| Container::of(it, service.config())).collect::<Result<_, _>>();
    shown.map_err(|error: Error| failed(&error))
}
