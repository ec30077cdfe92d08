//! What all WebSockets here have in common: there are so many and no more, they end when whoever opened them may no
//! longer, and a client that does not read is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use edd_proto::UserId;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::request::Parts;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::caller::{Caller, Verifier};
use crate::compute::error::ComputeError;
use crate::error::Error;

/// Sockets of all users, and of one.
const MOST: usize = 1024;
const MOST_PER_USER: usize = 32;
/// Largest message of a client.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// How long a message may wait for its client to take it.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pings.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a client may be silent: it answers pings.
const SILENCE: Duration = Duration::from_secs(100);
/// Between two looks whether the caller is still one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many sockets are open, and whose; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets(Arc<Mutex<HashMap<UserId, usize>>>);

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more socket of `user`: taken before anything is done for it.
    pub(super) fn take(&self, user: UserId) -> Result<Seat, ComputeError> {
        let mut open = self.lock();
        if open.values().sum::<usize>() >= MOST || open.get(&user).is_some_and(|count| *count >= MOST_PER_USER) {
            return Err(ComputeError::Busy);
        }
        *open.entry(user).or_default() += 1;
        Ok(Seat { sockets: self.clone(), user })
    }
}

/// The place of one socket, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    sockets: Sockets,
    user: UserId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.sockets.lock();
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

/// A request to open a socket.
pub(super) struct Opening(WebSocketUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Opening {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let opening = WebSocketUpgrade::from_request_parts(parts, state).await;
        let opening = opening.map_err(|rejection| Error::new(rejection.status(), rejection.body_text()))?;
        Ok(Self(opening.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES)))
    }
}

/// Why a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// What it showed is over.
    Over,
    /// The client went.
    Gone,
    /// The caller's token was revoked.
    Revoked,
    /// The container is deleted.
    Deleted,
    /// Something failed here.
    Failed,
}

impl End {
    fn frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::Over => (close_code::NORMAL, ""),
            Self::Revoked => (close_code::POLICY, "the session has ended: sign in again"),
            Self::Deleted => (close_code::AWAY, "the container is deleted"),
            Self::Failed => (close_code::ERROR, "an internal error: try again"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

/// An open socket.
pub(super) struct Wire {
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) standing: Standing,
}

/// The way to the client.
pub(super) struct Outgoing(SplitSink<WebSocket, Message>);

impl Outgoing {
    /// Sends a message. An error: the client is gone, or does not read.
    pub(super) async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND_TIMEOUT, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}

/// The way from the client.
pub(super) struct Incoming(SplitStream<WebSocket>);

impl Incoming {
    /// What the client says next, be it that it is there; none once it is gone.
    pub(super) async fn next(&mut self) -> Option<Message> {
        match tokio::time::timeout(SILENCE, self.0.next()).await {
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => None,
            Ok(Some(Ok(message))) => Some(message),
        }
    }

    /// Reads until the client goes, and skips what it says.
    pub(super) async fn end(&mut self) -> End {
        while self.next().await.is_some() {}
        End::Gone
    }
}

/// Whether the caller is still one.
pub(super) struct Standing {
    verifier: Verifier,
    user: UserId,
    session: Arc<str>,
}

impl Standing {
    /// Returns when the caller's token is no longer good.
    pub(super) async fn end(&self) -> End {
        while !self.verifier.revocations().is_revoked(self.user, &self.session) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        End::Revoked
    }
}

impl Opening {
    /// Opens the socket for `caller`, has `serve` serve it, and tells the client why it ends.
    pub(super) fn serve<F>(
        self,
        seat: Seat,
        verifier: Verifier,
        caller: &Caller,
        serve: impl FnOnce(Wire) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = (Outgoing, End)> + Send,
    {
        let standing = Standing { verifier, user: caller.user, session: caller.session.clone() };
        self.0.on_upgrade(async move |socket| {
            let (outgoing, incoming) = socket.split();
            let (outgoing, incoming) = (Outgoing(outgoing), Incoming(incoming));
            let (mut outgoing, end) = serve(Wire { outgoing, incoming, standing }).await;
            if let Some(frame) = end.frame() {
                // Whether the client hears why is up to it.
                let _ = outgoing.send(Message::Close(Some(frame))).await;
            }
            drop(seat);
        })
    }
}

/// Ticks when a ping is due.
pub(super) fn pings() -> tokio::time::Interval {
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pings
}

/// Returns when something of the user's may have changed.
pub(super) async fn changed(changes: &mut Receiver<UserId>, user: UserId) {
    loop {
        match changes.recv().await {
            Ok(other) if other != user => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // The service ends.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
