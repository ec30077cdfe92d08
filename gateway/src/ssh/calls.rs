//! Channels that a container opens: forwarded connections, agents, X11. Each is opened at the client, too.

use std::sync::{Arc, Weak};

use russh::client::ChannelOpenHandle;
use russh::{Channel, ChannelOpenFailure, client, server};

use crate::ssh::channel::{self, Meter, Pair};
use crate::ssh::leg::Leg;
use crate::ssh::session::Session;
use crate::ssh::session_events::ChannelKind;
use crate::ssh::upstream::{Callee, Origin, connect_failed};

/// Takes the calls for a session, as long as there is one.
#[derive(Debug)]
pub struct Calls(Weak<Session>);

impl Calls {
    pub fn of(session: &Arc<Session>) -> Self {
        Self(Arc::downgrade(session))
    }
}

impl Callee for Calls {
    fn called(&self, kind: ChannelKind, origin: Origin, channel: Channel<client::Msg>, reply: ChannelOpenHandle) {
        if let Some(session) = self.0.upgrade() {
            tokio::spawn(call(session, kind, origin, channel, reply));
        }
    }

    fn hung_up(&self, reason: &str) {
        if let Some(session) = self.0.upgrade() {
            session.hung_up(reason.to_owned());
        }
    }
}

/// Opens the same at the client, and serves it.
async fn call(
    session: Arc<Session>,
    kind: ChannelKind,
    origin: Origin,
    channel: Channel<client::Msg>,
    reply: ChannelOpenHandle,
) {
    let Ok(Leg::Sshd(upstream)) = session.leg().await else { return };
    let place = match session.enter(None) {
        Ok(place) => place,
        Err(failure) => return reply.reject(failure).await,
    };
    let container = upstream.end(channel);
    let opening = session.kill.token().run_until_cancelled(open_at_client(&session, &kind, origin)).await;
    let opened = opening.unwrap_or_else(|| Err(connect_failed("the session was ended")));
    let client = match opened {
        Ok(channel) => session.end(channel),
        Err(failure) => {
            upstream.forget(container.half.id());
            return reply.reject(failure).await;
        }
    };
    let _place = place.numbered(client.half.id());
    reply.accept().await;
    let meter = Meter::new(session.log.opened(kind));
    channel::relay(Pair { client: &client, container: &container }, &session, &meter, std::future::pending()).await;
    upstream.forget(container.half.id());
    session.count(meter.usage());
}

async fn open_at_client(
    session: &Session,
    kind: &ChannelKind,
    Origin { address, port }: Origin,
) -> Result<Channel<server::Msg>, ChannelOpenFailure> {
    let unasked = || ChannelOpenFailure::Other {
        code: ChannelOpenFailure::AdministrativelyProhibited.code(),
        reason: "the client did not ask for it".to_owned(),
    };
    if !session.asked_for().allows(kind) {
        return Err(unasked());
    }
    let to_client = &session.to_client;
    let opened = match kind {
        ChannelKind::ForwardedTcpIp { address: bound, port: bound_port } => {
            to_client.channel_open_forwarded_tcpip(bound, *bound_port, address, port).await
        }
        ChannelKind::ForwardedStreamLocal { path } => to_client.channel_open_forwarded_streamlocal(path).await,
        ChannelKind::Agent => to_client.channel_open_agent().await,
        ChannelKind::X11 => to_client.channel_open_x11(address, port).await,
        ChannelKind::Session
        | ChannelKind::DirectTcpIp { .. }
        | ChannelKind::DirectStreamLocal { .. }
        | ChannelKind::Jump { .. } => return Err(unasked()),
    };
    opened.map_err(|error| match error {
        russh::Error::ChannelOpenFailure(failure) => failure,
        error => connect_failed(error.to_string()),
    })
}
