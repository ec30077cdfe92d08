//! Channels that a client opens: each leads to the container, or to a reason why not.

use std::sync::Arc;

use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure, client};

use crate::ssh::channel::{self, Meter, Pair};
use crate::ssh::jump;
use crate::ssh::leg::Leg;
use crate::ssh::program::Stage;
use crate::ssh::requests::{self, Desk};
use crate::ssh::session::{Line, Session, Way};
use crate::ssh::session_events::ChannelKind;
use crate::ssh::upstream::{Origin, Upstream, connect_failed};

/// A channel that a client wants to open.
#[derive(Debug)]
pub enum Wish {
    Session,
    TcpIp { host: String, port: u32, origin: Origin },
    StreamLocal { path: String },
}

/// Opens it once the way to the container is there, answers, and serves it to its end.
pub async fn serve(session: Arc<Session>, wish: Wish, channel: Channel<Msg>, reply: ChannelOpenHandle) {
    let leg = match session.leg().await {
        Ok(leg) => leg,
        Err(refusal) => return reply.reject(connect_failed(refusal.message)).await,
    };
    match (leg, wish) {
        (Leg::Sshd(upstream), wish) => through(session, upstream, wish, channel, reply).await,
        (Leg::Programs, Wish::Session) => program(session, channel, reply).await,
        (Leg::Programs, _) => {
            let why = "the container has no SSH server, which forwarding needs; its ports can be published instead";
            reply.reject(prohibited(why)).await;
        }
        (Leg::Jump, Wish::TcpIp { host, port, .. }) => jump::serve(session, channel, host, port, reply).await,
        (Leg::Jump, _) => {
            let why = "this user is for ssh -J alone; log in with a container's id as the user for a shell in it";
            reply.reject(prohibited(why)).await;
        }
    }
}

async fn through(
    session: Arc<Session>,
    upstream: Upstream,
    wish: Wish,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
) {
    let id = channel.id();
    let _place = match session.enter(Some(id)) {
        Ok(place) => place,
        Err(failure) => return reply.reject(failure).await,
    };
    let opening = session.kill.token().run_until_cancelled(open(&upstream, &wish)).await;
    let opened = opening.unwrap_or(Err(russh::Error::Disconnect));
    let container = match opened {
        Ok(opened) => upstream.end(opened),
        Err(russh::Error::ChannelOpenFailure(failure)) => return reply.reject(failure).await,
        Err(error) => return reply.reject(connect_failed(error.to_string())).await,
    };
    let client = session.end(channel);
    let meter = Arc::new(Meter::new(session.log.opened(kind(wish))));
    // Before the answer: requests may follow it at once.
    let (desk, queue) = Desk::new(Arc::clone(&client.inbox));
    let line = Line { desk, way: Way::Sshd(container.clone()), meter: Arc::clone(&meter) };
    session.set_line(id, line.clone());
    reply.accept().await;
    let too_many = requests::serve(&session, id, &line, queue);
    channel::relay(Pair { client: &client, container: &container }, &session, &meter, too_many).await;
    upstream.forget(container.half.id());
    session.count(meter.usage());
}

async fn open(upstream: &Upstream, wish: &Wish) -> Result<Channel<client::Msg>, russh::Error> {
    let handle = upstream.handle();
    match wish {
        Wish::Session => handle.channel_open_session().await,
        Wish::TcpIp { host, port, origin } => {
            handle.channel_open_direct_tcpip(host, *port, &origin.address, origin.port).await
        }
        Wish::StreamLocal { path } => handle.channel_open_direct_streamlocal(path).await,
    }
}

fn kind(wish: Wish) -> ChannelKind {
    match wish {
        Wish::Session => ChannelKind::Session,
        Wish::TcpIp { host, port, .. } => ChannelKind::DirectTcpIp { host, port },
        Wish::StreamLocal { path } => ChannelKind::DirectStreamLocal { path },
    }
}

async fn program(session: Arc<Session>, channel: Channel<Msg>, reply: ChannelOpenHandle) {
    let id = channel.id();
    let _place = match session.enter(Some(id)) {
        Ok(place) => place,
        Err(failure) => return reply.reject(failure).await,
    };
    let client = session.end(channel);
    let meter = Arc::new(Meter::new(session.log.opened(ChannelKind::Session)));
    let stage = Arc::new(Stage::new(client.clone(), Arc::clone(&meter)));
    let (desk, queue) = Desk::new(Arc::clone(&client.inbox));
    let line = Line { desk, way: Way::Program(stage), meter: Arc::clone(&meter) };
    session.set_line(id, line.clone());
    reply.accept().await;
    // Closed by the client, or by the program that has ended.
    let closed = session.kill.token().run_until_cancelled(client.inbox.closed());
    tokio::select! {
        _ = closed => {}
        () = requests::serve(&session, id, &line, queue) => client.inbox.close(),
    }
    if !session.kill.is_asked() {
        // Failing means that the connection is over, and the channel with it.
        let _ = client.half.close().await;
    }
    session.count(meter.usage());
}

fn prohibited(why: &str) -> ChannelOpenFailure {
    let code = ChannelOpenFailure::AdministrativelyProhibited.code();
    ChannelOpenFailure::Other { code, reason: why.to_owned() }
}
