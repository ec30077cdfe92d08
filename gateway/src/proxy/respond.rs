//! Answers of our own, and changes to the heads of others', in the engine's terms.

use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::decision::{Answer, HeaderOp, HeaderOps};
use crate::policy::header_edits;
use crate::proxy::answer;
use crate::proxy::context::Context;
use crate::reason::Reason;
use crate::route::HeaderEdits;

/// Writes `answer` and notes it.
pub async fn respond(session: &mut Session, context: &mut Context, answer: Answer) -> pingora_error::Result<()> {
    let rendered = answer::render(&answer, &session.req_header().headers, &context.exchange.id);
    context.exchange.status = Some(rendered.status);
    context.note_failure(answer.reason);
    if let Some(live) = answer.route {
        context.exchange.route = Some(live);
    }
    let mut head = ResponseHeader::build(rendered.status, Some(rendered.headers.len()))?;
    for (name, value) in rendered.headers {
        head.append_header(name, value)?;
    }
    // A redirect is the route's own answer; an error is not.
    if answer.reason == Reason::Redirected
        && let Some(live) = &context.exchange.route
    {
        edit(&mut head, &live.route.response_headers)?;
    }
    let no_body = rendered.body.is_empty() || session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), no_body).await?;
    if !no_body {
        session.write_response_body(Some(rendered.body), true).await?;
    } else if session.req_header().version == http::Version::HTTP_2 {
        // A stream that is let go of before its end is reset, and the client discards the answer.
        session.downstream_session.finish_body().await?;
    }
    Ok(())
}

/// Applies a route's changes to the head of an answer.
pub fn edit(head: &mut ResponseHeader, edits: &HeaderEdits) -> pingora_error::Result<()> {
    let mut ops = HeaderOps::new();
    header_edits::apply(edits, &mut ops);
    apply(head, ops)
}

/// Applies the decision's changes.
pub fn apply(head: &mut ResponseHeader, ops: HeaderOps) -> pingora_error::Result<()> {
    for op in ops {
        match op {
            HeaderOp::Remove(name) => {
                head.remove_header(&name);
            }
            HeaderOp::Set(name, value) => head.insert_header(name, value)?,
            HeaderOp::Append(name, value) => {
                head.append_header(name, value)?;
            }
        }
    }
    Ok(())
}
