//! `ssh -J`: bytes between a client and the SSH port of one of its containers, where the client logs in by itself.

use std::sync::Arc;

use russh::ChannelOpenFailure;
use russh::server::{self, ChannelOpenHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ssh::admission::{Entrance, Refusal, Target};
use crate::ssh::channel::{ClientEnd, Meter, Taken};
use crate::ssh::inbox::{Item, Stream};
use crate::ssh::session::Session;
use crate::ssh::session_events::{ChannelKind, Direction};
use crate::ssh::upstream;
use crate::ssh::window::Windows;

/// Bytes that are read from a container at once.
const PIECE_BYTES: usize = 32 * 1024;
/// The port that clients name, whichever the container's sshd listens on.
const SSH_PORT: u32 = 22;

/// Opens a way to the container that a client names, and serves it.
pub async fn serve(
    session: Arc<Session>,
    channel: russh::Channel<server::Msg>,
    host: String,
    port: u32,
    reply: ChannelOpenHandle,
) {
    let place = match session.enter(Some(channel.id())) {
        Ok(place) => place,
        Err(failure) => return reply.reject(failure).await,
    };
    let found = session.kill.token().run_until_cancelled(find(&session, &host, port)).await;
    let (entrance, stream) = match found {
        Some(Ok(found)) => found,
        Some(Err(refusal)) => {
            let code = ChannelOpenFailure::AdministrativelyProhibited.code();
            return reply.reject(ChannelOpenFailure::Other { code, reason: refusal.message }).await;
        }
        None => return,
    };
    let client = session.end(channel);
    reply.accept().await;
    let meter = Meter::new(session.log.opened(ChannelKind::Jump { container: entrance.container.to_string() }));
    // Failing means that one of the connections is over, and the channel with it.
    tokio::select! {
        _ = relay(&client, stream, &session.service.windows, &meter) => {}
        () = entrance.retired.cancelled() => {}
        () = session.kill.token().cancelled() => {}
    }
    if !session.kill.is_asked() {
        let _ = client.half.close().await;
    }
    if let Some(visit) = &entrance.visit {
        visit.count(meter.usage());
    }
    drop(place);
}

async fn find(session: &Session, host: &str, port: u32) -> Result<(Entrance, TcpStream), Refusal> {
    if port != SSH_PORT {
        return Err(Refusal::new("jump_port", format!("a jump leads to port {SSH_PORT} of a container alone")));
    }
    let look = || session.service.admitter.jump(&session.admission, host);
    let entrance = session.awake(look()?, look).await?;
    match &entrance.target {
        Target::Sshd { address, .. } => {
            let (stream, _) = tokio::join!(upstream::dial(address), session.announce(&entrance));
            Ok((entrance, stream?))
        }
        Target::Exec => {
            let id = entrance.container;
            let message = format!("{id} has no SSH server of its own to jump to; log in with {id} as the user instead");
            Err(Refusal::new("no_sshd", message))
        }
        Target::Down(refusal) => Err(refusal.clone()),
        Target::Asleep => Err(Refusal::new("wake_failed", "the container fell asleep again")),
    }
}

async fn relay(client: &ClientEnd, stream: TcpStream, windows: &Windows, meter: &Meter) -> Result<(), russh::Error> {
    let (mut from_container, mut to_container) = stream.into_split();
    let up = async {
        let mut taken = Taken::new(client, windows);
        loop {
            match client.inbox.next().await {
                Item::Bytes(_, bytes) => {
                    meter.passed(Direction::ToContainer, &bytes);
                    to_container.write_all(&bytes).await?;
                    taken.add(bytes.len()).await?;
                }
                Item::Eof => to_container.shutdown().await?,
                Item::Note(_) => {}
                Item::Closed => return Ok(()),
            }
        }
    };
    let down = async {
        loop {
            let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
            if from_container.read_buf(&mut piece).await? == 0 {
                return client.half.eof().await;
            }
            meter.passed(Direction::ToClient { is_stderr: false }, &piece);
            client.send(Stream::Main, piece.freeze()).await?;
        }
    };
    // The container says the last word in SSH; what a client has to say after it goes to nobody.
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}
