//! pingora as the HTTP engine: it moves the bytes, [`crate::decision`] says where to.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::decision::{Answer, BodyLength, Decision, HeaderOp, HeaderOps};
use crate::live::{Backend, CLIENT_PAUSE, Hop, Shape};
use crate::policy::forwarding::X_REQUEST_ID;
use crate::policy::{hop_by_hop, limits};
use crate::proxy::context::{Context, Engine, h2_body, request_head};
use crate::proxy::failure;
use crate::proxy::respond::{apply, edit, respond};
use crate::proxy::scope::Scope;
use crate::proxy::waking::{self, X_EDD_COLD_START};
use crate::reason::Reason;

/// Targets tried for one request, the first included.
pub const MAX_CONNECT_ATTEMPTS: u32 = 3;
/// Longest wait for a client to take a piece of its answer.
pub const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The implementation of pingora's trait; one for all connections.
#[derive(Clone, Debug)]
pub struct Proxy(pub Arc<Engine>);

impl Proxy {
    /// Decides from the current snapshot, and notes what was asked by whom.
    fn decide(
        &self,
        session: &Session,
        context: &mut Context,
        scope: &Scope,
        body: BodyLength,
        websocket: bool,
    ) -> Decision {
        let request = session.req_header();
        let head = request_head(request, body, websocket);
        self.0.decide(&head, request.version, &scope.conn, &mut context.exchange)
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(Arc::clone(&self.0))
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora_error::Result<bool> {
        let Some(scope) = context.scope.clone() else {
            return Err(Error::explain(ErrorType::InternalError, "a request outside of its scope"));
        };
        session.set_write_timeout(Some(CLIENT_WRITE_TIMEOUT));
        session.set_read_timeout(Some(CLIENT_PAUSE));
        let body = match scope.framing {
            Some(framing) => framing.body,
            None => h2_body(session),
        };
        let websocket = scope.framing.is_some_and(|framing| framing.websocket);
        if websocket {
            // Behind a handshake come frames; if it is refused they must not be read as requests.
            session.set_keepalive(None);
        }
        let mut decision = match scope.take_decided() {
            Some(decided) => {
                context.exchange = decided.exchange;
                decided.decision
            }
            None => self.decide(session, context, &scope, body, websocket),
        };
        if let Decision::Wake(live) = &decision {
            let live = Arc::clone(live);
            decision = match &self.0.wakes {
                None => Decision::Answer(Answer::new(Reason::Internal, "nobody wakes containers").on(&live)),
                Some(wakes) => match waking::hold(wakes, &live, session.req_header(), websocket).await {
                    Err(answer) => Decision::Answer(answer.on(&live)),
                    Ok(held) => {
                        context.held = Some(held);
                        // What was decided before is of the past: this is another snapshot.
                        self.decide(session, context, &scope, body, websocket)
                    }
                },
            };
        }
        match decision {
            Decision::Forward(forward) => {
                context.exchange.route = Some(Arc::clone(&forward.route));
                context.visit = forward.route.backend().map(Backend::visit);
                if forward.shape == Shape::Upload {
                    scope.upload_began(forward.route.route.timeouts.read);
                }
                if forward.shape != Shape::Upgrade {
                    // Otherwise pingora would take a 101 for this request.
                    session.req_header_mut().remove_header(&header::UPGRADE);
                }
                context.forward = Some(forward);
                Ok(false)
            }
            Decision::Answer(answer) => {
                respond(session, context, answer).await?;
                Ok(true)
            }
            Decision::Wake(live) => {
                let answer = Answer::new(Reason::ContainerWaking, "it fell asleep again as it woke up").on(&live);
                respond(session, context, answer).await?;
                Ok(true)
            }
        }
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        if end_of_stream && let Some(scope) = &context.scope {
            scope.upload_ended();
        }
        let Some(bytes) = body.as_ref().map(Bytes::len).filter(|length| *length > 0) else { return Ok(()) };
        context.exchange.bytes_in += bytes as u64;
        if let Some(scope) = &context.scope {
            scope.moved();
        }
        match context.forward.as_ref().and_then(|forward| forward.max_body_bytes) {
            Some(limit) if context.exchange.bytes_in > limit => {
                context.refusal = Some(limits::too_large(limit));
                Err(Error::explain(ErrorType::HTTPStatus(413), "request body over the route's limit"))
            }
            _ => Ok(()),
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        context: &mut Context,
    ) -> pingora_error::Result<Box<HttpPeer>> {
        let refused = |context: &mut Context, reason: Reason, detail: Cow<'static, str>| {
            context.refusal = Some(Answer::new(reason, detail));
            Err(Error::explain(ErrorType::HTTPStatus(reason.status().as_u16()), reason.as_str()))
        };
        if let Some((wakes, id)) = self.0.wakes.as_ref().zip(context.awaits.take())
            && let Err(answer) = waking::join(wakes, id).await
        {
            return refused(context, answer.reason, answer.detail);
        }
        let now_ms = self.0.upstreams.now_ms();
        let picked = context.forward.as_ref().and_then(|forward| {
            let hop = forward.route.pick(context.tried, now_ms)?;
            Some((Arc::clone(&forward.route), forward.shape, hop))
        });
        let Some((live, shape, hop)) = picked else {
            return refused(context, Reason::NoTarget, "every target of the route is out of rotation".into());
        };
        context.exchange.upstream = Some(hop.clone());
        let address = match hop.address() {
            Ok(address) => address,
            Err(reason) => return refused(context, reason, format!("{hop} does not resolve").into()),
        };
        context.tried |= 1 << hop.index();
        context.upstream_since = Some(Instant::now());
        let peer = live.peer(&hop, address, shape);
        context.hop = Some(hop);
        peer.map_or_else(|| refused(context, Reason::Internal, "the route has no targets".into()), Ok)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        context.connect_attempts += 1;
        if let Some(upstream) = context.hop.as_ref().and_then(Hop::upstream) {
            self.0.upstreams.connect_failed(upstream);
        }
        let now_ms = self.0.upstreams.now_ms();
        let left = context.live().is_some_and(|forward| forward.route.pick(context.tried, now_ms).is_some());
        context.awaits = context.waking();
        if context.awaits.is_some() {
            context.tried = 0;
        }
        // Nothing has been sent, so any request may go to another target.
        let left = left || context.awaits.is_some();
        error.set_retry(left && context.connect_attempts < MAX_CONNECT_ATTEMPTS);
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&pingora_core::protocols::Digest>,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        if let Some(upstream) = context.hop.as_ref().and_then(Hop::upstream) {
            upstream.connected();
        }
        // A pooled connection that turns out to be stale may be tried again at the same target.
        context.tried = 0;
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        let Some(forward) = &mut context.forward else { return Ok(()) };
        if let Some(target) = &forward.target {
            let mut parts = request.uri.clone().into_parts();
            let target = target
                .parse()
                .map_err(|error| Error::because(ErrorType::InternalError, "a rewritten target is no path", error))?;
            parts.path_and_query = Some(target);
            let uri = http::Uri::from_parts(parts)
                .map_err(|error| Error::because(ErrorType::InternalError, "a rewritten target is no URI", error))?;
            request.set_uri(uri);
        }
        for op in &forward.headers {
            match op {
                HeaderOp::Remove(name) => {
                    request.remove_header(name);
                }
                HeaderOp::Set(name, value) => request.insert_header(name.clone(), value.clone())?,
                HeaderOp::Append(name, value) => {
                    request.append_header(name.clone(), value.clone())?;
                }
            }
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        let switched = response.status == StatusCode::SWITCHING_PROTOCOLS;
        if response.status.is_informational() && !switched {
            return Ok(());
        }
        let asked = context.live().is_some_and(|forward| forward.shape == Shape::Upgrade);
        if (switched && !asked) || !hop_by_hop::is_delimited(&response.headers) {
            let error = Error::explain(ErrorType::InvalidHTTPHeader, "an unasked 101, or a strange transfer coding");
            return Err(error.into_up());
        }
        if !switched {
            let mut ops = HeaderOps::new();
            hop_by_hop::strip(&response.headers, &mut ops);
            apply(response, ops)?;
        }
        context.exchange.status = Some(response.status);
        if let Some(since) = context.upstream_since {
            context.exchange.upstream_seconds = Some(since.elapsed().as_secs_f64());
        }
        let Some(forward) = &context.forward else { return Ok(()) };
        if let Some(scope) = &context.scope {
            scope.answer_began(&forward.route);
            if switched {
                scope.conn.upgraded.store(true, Ordering::Release);
                // The stream's own idle timer watches both directions from here on.
                session.set_read_timeout(None);
            }
        }
        if self.0.drain.is_draining() {
            // The engine has looked when the request came, which may be long ago.
            session.set_keepalive(None);
        }
        edit(response, &forward.route.route.response_headers)?;
        response.insert_header(X_REQUEST_ID, context.exchange.id.as_str())?;
        if let Some(held) = context.held {
            response.insert_header(X_EDD_COLD_START, held.as_millis().to_string())?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        context: &mut Context,
    ) -> pingora_error::Result<Option<Duration>> {
        if let Some(bytes) = body {
            context.exchange.bytes_out += bytes.len() as u64;
            if let Some(scope) = &context.scope {
                scope.moved();
            }
        }
        Ok(None)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        if context.scope.as_ref().is_some_and(|scope| scope.gave_up()) && context.refusal.is_none() {
            context.refusal = Some(Answer::new(Reason::UpstreamTimeout, "the target had the whole request"));
        }
        let malformed = context.scope.as_ref().is_some_and(|scope| scope.conn.bad_body.load(Ordering::Acquire));
        if malformed && context.refusal.is_none() {
            context.refusal = Some(Answer::new(Reason::BadBody, "a chunk of the body is malformed"));
        }
        let refusal = context.refusal.take();
        let reason = refusal.as_ref().map_or_else(|| failure::reason(error), |answer| answer.reason);
        let begun = session
            .response_written()
            .is_some_and(|head| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS);
        let streams = context.live().is_some_and(|forward| forward.shape == Shape::Stream);
        // The engine's own timer on a stream, which may fire before that of the scope.
        let idle = begun && streams && reason == Reason::UpstreamTimeout;
        let reason = if idle { Reason::StreamIdle } else { reason };
        context.note_failure(reason);
        let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
        if begun || reason == Reason::ClientClosed {
            if !begun {
                context.exchange.status = Some(Reason::ClientClosed.status());
            }
            return gone;
        }
        if reason == Reason::Internal {
            tracing::error!(request_id = context.exchange.id.as_str(), %error, "the engine failed");
        } else {
            tracing::debug!(request_id = context.exchange.id.as_str(), %error, reason = reason.as_str(), "no answer");
        }
        session.set_keepalive(None);
        let answer = refusal.unwrap_or_else(|| {
            let hop = context.hop.as_ref();
            Answer::new(
                reason,
                hop.map_or(Cow::Borrowed("no target was reached"), |hop| format!("target {hop}").into()),
            )
        });
        let status = answer.status.as_u16();
        match respond(session, context, answer).await {
            Ok(()) => FailToProxy { error_code: status, can_reuse_downstream: false },
            Err(_) => gone,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        // What passed, exactly; an exchange that was cut off keeps what the filters saw.
        context.exchange.bytes_in = session.body_bytes_read() as u64;
        context.exchange.bytes_out = session.body_bytes_sent() as u64;
        if let Some(error) = error {
            // `fail_to_proxy` has been here with better knowledge, unless it was never asked.
            context.note_failure(failure::reason(error));
        }
    }

    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _context: &Context,
        _error: &Error,
        _kind: pingora_proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }

    /// No downstream modules: the default one would make every answer pass a compressor.
    fn init_downstream_modules(&self, _modules: &mut pingora_core::modules::http::HttpModules) {}
}
