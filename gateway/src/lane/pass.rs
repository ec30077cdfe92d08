//! One request's way through the lane.

use std::sync::Arc;
use std::task;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::decision::{Answer, HeaderOp, HeaderOps};
use crate::exchange::RequestId;
use crate::lane::block::Block;
use crate::lane::client::Client;
use crate::lane::fields::Changes;
use crate::lane::request::Request;
use crate::lane::response::{self, Malformed, Response};
use crate::lane::target::{Target, place};
use crate::lane::transfer::{Transfer, target_failure};
use crate::lane::{After, Failure, Lane, Passage};
use crate::live::{Backend, LiveRoute};
use crate::policy::forwarding::X_REQUEST_ID;
use crate::policy::header_edits;
use crate::proxy::answer;
use crate::proxy::conn::Conn;
use crate::proxy::context::{Context, Engine};
use crate::proxy::framing::HeadScanner;
use crate::proxy::scope::Scope;
use crate::reason::Reason;
use crate::route::Timeouts;

/// Tries of one request, those at connections that turned out to be stale included.
const MAX_TRIES: usize = 4;
/// Interim answers before the final one.
const MAX_INTERIM_ANSWERS: usize = 16;

/// What is asked, and of whom.
struct Asked {
    request: Request,
    live: Arc<LiveRoute>,
}

/// A target's answer as far as its head.
struct Begun {
    target: Target,
    response: Response,
    /// The head, and what came with it.
    block: Block,
    head_bytes: usize,
}

impl Lane {
    /// Serves a request. Dropped, it ends both connections where they stand.
    pub async fn pass(
        &self,
        passage: Box<Passage>,
        engine: &Arc<Engine>,
        scope: &Arc<Scope>,
        mut client: Client<'_>,
    ) -> After {
        let Passage { request, forward, exchange } = *passage;
        let mut context = Context::of(Arc::clone(engine), Some(Arc::clone(scope)), exchange);
        context.exchange.route = Some(Arc::clone(&forward.route));
        context.visit = forward.route.backend().map(Backend::visit);
        let (head, live) = (request.for_target(&forward), Arc::clone(&forward.route));
        context.forward = Some(forward);
        let asked = Asked { request, live };
        let served = match self.ask(&head, &asked, &mut context, engine, &mut client).await {
            Ok(begun) => self.answer(begun, &asked, &mut context, engine, &mut client).await,
            Err(failure) => Err(failure),
        };
        match served {
            Ok(after) => after,
            Err(failure) => refuse(failure, &asked.request, &mut context, &mut client).await,
        }
    }

    /// Sends the request until a target has begun to answer it.
    async fn ask(
        &self,
        head: &[u8],
        asked: &Asked,
        context: &mut Context,
        engine: &Engine,
        client: &mut Client<'_>,
    ) -> Result<Begun, Failure> {
        let mut tries = 1;
        loop {
            let mut target = self.reach(&asked.live, context, engine, client, tries > 1).await?;
            let may_be_stale = target.is_used && asked.request.is_idempotent() && tries < MAX_TRIES;
            let timeouts = &asked.live.route.timeouts;
            let mut began = false;
            let heard = async {
                target.send(head, timeouts, client).await?;
                hear(&mut target, &asked.request.method, timeouts, client, &mut began).await
            };
            match heard.await {
                Ok((block, head_bytes, response)) => return Ok(Begun { target, response, block, head_bytes }),
                // Nothing of an answer came: the target closed the connection before the request was there.
                Err(failure) if failure.reason == Reason::UpstreamClosed && may_be_stale && !began => tries += 1,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Passes the answer on, and says what becomes of the client's connection. Fails as long as the client can be told.
    async fn answer(
        &self,
        begun: Begun,
        asked: &Asked,
        context: &mut Context,
        engine: &Engine,
        client: &mut Client<'_>,
    ) -> Result<After, Failure> {
        let Begun { mut target, response, mut block, head_bytes } = begun;
        context.exchange.status = Some(response.status);
        context.exchange.upstream_seconds = context.upstream_since.map(|since| since.elapsed().as_secs_f64());
        if let Some(scope) = &context.scope {
            scope.answer_began(&asked.live);
        }
        let is_last = asked.request.is_last || engine.drain.is_draining();
        let ops = edits(&asked.live, &context.exchange.id);
        let head = response.for_client(&block.filled()[..head_bytes], &Changes::of(&ops), is_last);
        block.consume(head_bytes);
        let patience = asked.live.route.timeouts.read;
        let mut transfer = Transfer { client, target: &mut target.stream, patience, context, has_begun: false };
        match transfer.run(head, block, response.body).await {
            Ok(is_clean) => {
                if is_clean && response.keeps_alive {
                    target.keep(&self.pool);
                }
                Ok(if is_last { After::Goodbye } else { After::Next })
            }
            Err(failure) if transfer.has_begun => {
                context.note_failure(failure.reason);
                Ok(After::Nothing)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// The changes to the head of an answer.
fn edits(live: &LiveRoute, id: &RequestId) -> HeaderOps {
    let mut ops = HeaderOps::new();
    header_edits::apply(&live.route.response_headers, &mut ops);
    // Ids are made of visible ASCII, see `RequestId`.
    if let Ok(id) = id.as_str().parse() {
        ops.push(HeaderOp::Set(X_REQUEST_ID, id));
    }
    ops
}

/// Waits for the head of the final answer; notes when anything came at all.
async fn hear(
    target: &mut Target,
    method: &Method,
    timeouts: &Timeouts,
    client: &mut Client<'_>,
    began: &mut bool,
) -> Result<(Block, usize, Response), Failure> {
    let mut block = Block::default();
    let mut interim_answers = 0;
    loop {
        let mut scanner = HeadScanner::default();
        let head_bytes = loop {
            if let Some(length) = response::head_length(&mut scanner, block.filled()).map_err(invalid)? {
                break length;
            }
            if block.is_full() {
                return Err(invalid(Malformed("the head has more bytes than the gateway takes")));
            }
            more(&mut block, target, timeouts, client).await?;
            *began = true;
        };
        let head = &block.filled()[..head_bytes];
        let response = response::parse(head, method).map_err(invalid)?;
        if !response.status.is_informational() {
            return Ok((block, head_bytes, response));
        }
        interim_answers += 1;
        if response.status == StatusCode::SWITCHING_PROTOCOLS || interim_answers > MAX_INTERIM_ANSWERS {
            return Err(invalid(Malformed("there is an interim answer that nobody asked for")));
        }
        // Without a body there is nothing to continue with.
        if response.status != StatusCode::CONTINUE {
            client.send(&[&response.interim(head)]).await?;
            client.flush().await?;
        }
        block.consume(head_bytes);
    }
}

fn invalid(malformed: Malformed) -> Failure {
    Failure::new(Reason::UpstreamInvalidResponse, malformed.0)
}

/// Receives more of the answer's head.
async fn more(
    block: &mut Block,
    target: &mut Target,
    timeouts: &Timeouts,
    client: &mut Client<'_>,
) -> Result<(), Failure> {
    let closed = || Failure::new(Reason::UpstreamClosed, "the target closed the connection before it answered");
    let receive =
        |_: &mut Conn, context: &mut task::Context<'_>| block.poll_receive(&mut target.stream, u64::MAX, context);
    let received = client.attend(timeouts.read, receive);
    match received.await {
        Ok(Ok(1..)) => Ok(()),
        Ok(Ok(0) | Err(_)) => Err(closed()),
        Err(interruption) => Err(target_failure(interruption)),
    }
}

/// Answers in place of the targets, and closes.
async fn refuse(failure: Failure, request: &Request, context: &mut Context, client: &mut Client<'_>) -> After {
    context.note_failure(failure.reason);
    if failure.reason == Reason::ClientClosed {
        context.exchange.status = Some(Reason::ClientClosed.status());
        return After::Nothing;
    }
    let id = context.exchange.id.clone();
    tracing::debug!(request_id = id.as_str(), reason = failure.reason.as_str(), detail = %failure.detail, "no answer");
    let detail = match failure.reason {
        Reason::UpstreamRefused
        | Reason::UpstreamUnreachable
        | Reason::UpstreamConnectTimeout
        | Reason::UpstreamClosed
        | Reason::UpstreamInvalidResponse
        | Reason::UpstreamTimeout => place(context.hop.as_ref()).into(),
        _ => failure.detail,
    };
    let mut rendered = answer::render(&Answer::new(failure.reason, detail), &request.headers, &id);
    if request.method == Method::HEAD {
        rendered.body = Bytes::new();
    }
    context.exchange.status = Some(rendered.status);
    let body_bytes = rendered.body.len() as u64;
    match client.send(&[&rendered.into_http1_close()]).await {
        Ok(()) => {
            context.exchange.bytes_out = body_bytes;
            After::Goodbye
        }
        Err(_) => After::Nothing,
    }
}
