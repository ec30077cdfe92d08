//! The lane: an engine for plain relays, beside pingora, which serves everything else.
//!
//! A plain relay is a request without a body that came over HTTP/1.1 and goes to a target that speaks HTTP/1.1 in the
//! clear. Its answer only has to be passed on: the lane reads no more of it than where it ends, and of a long body not
//! a byte. What is decided is decided where it is for pingora, and accounted for where it is for pingora.

mod block;
pub mod client;
mod fields;
mod pass;
mod pipe;
mod pool;
mod request;
mod response;
mod target;
mod transfer;

use std::borrow::Cow;
use std::sync::Arc;

use crate::decision::{BodyLength, Decision, Forward};
use crate::exchange::Exchange;
use crate::lane::client::Interruption;
use crate::lane::pool::Pool;
use crate::lane::request::Request;
use crate::live::Shape;
use crate::proxy::context::{Decided, Engine};
use crate::proxy::framing::Framing;
use crate::proxy::scope::ConnInfo;
use crate::reason::Reason;
use crate::route::{Action, Protocol};

/// The engine. Clones share its connections.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    pool: Arc<Pool>,
}

/// Whether a request takes the lane.
#[derive(Debug)]
pub enum Admission {
    Granted(Box<Passage>),
    /// It was decided about, and the decision is for pingora.
    Decided(Box<Decided>),
    /// Its head is for pingora to read.
    Unread,
}

/// A request that takes the lane.
#[derive(Debug)]
pub struct Passage {
    request: Request,
    forward: Forward,
    exchange: Exchange,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request.
    Next,
    /// It is closed in order.
    Goodbye,
    /// It ends where it stands.
    Nothing,
}

/// Why there is no answer, or no whole one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    reason: Reason,
    detail: Cow<'static, str>,
}

impl Failure {
    fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The client was to take something.
impl From<Interruption> for Failure {
    fn from(interruption: Interruption) -> Self {
        match interruption {
            Interruption::Gone => Self::new(Reason::ClientClosed, "the client left"),
            Interruption::Late => Self::new(Reason::ClientClosed, "the client took nothing in time"),
        }
    }
}

impl Lane {
    /// Decides about a request, whose head `framing::check` has passed, if it may take the lane, and whether it does.
    /// The one place that says which requests are plain relays.
    pub fn admit(&self, head: &[u8], framing: &Framing, engine: &Engine, conn: &ConnInfo) -> Admission {
        if framing.body != BodyLength::None || framing.websocket {
            return Admission::Unread;
        }
        let Some(request) = Request::read(head) else { return Admission::Unread };
        let mut exchange = Exchange::new(conn.listener, conn.ip);
        let decision = engine.decide(&request.for_decision(), http::Version::HTTP_11, conn, &mut exchange);
        match decision {
            Decision::Forward(forward) if is_plain(&forward) => {
                Admission::Granted(Box::new(Passage { request, forward, exchange }))
            }
            decision => Admission::Decided(Box::new(Decided { exchange, decision })),
        }
    }

    /// Closes pooled connections that nobody will use any more. Runs until dropped.
    pub async fn sweep(self) {
        self.pool.sweep().await;
    }
}

fn is_plain(forward: &Forward) -> bool {
    forward.shape == Shape::Plain && matches!(forward.route.route.action, Action::Proxy { protocol: Protocol::H1, .. })
}
