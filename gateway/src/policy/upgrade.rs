//! Which requests may leave HTTP, and which are expected to stream.

use http::header;

use crate::decision::BodyLength;
use crate::decision::{HeaderOp, HeaderOps, RequestHead};
use crate::live::Shape;
use crate::route::Route;

/// The kind of exchange that a request begins.
pub fn shape(route: &Route, head: &RequestHead<'_>) -> Shape {
    if head.websocket && route.websocket {
        return Shape::Upgrade;
    }
    let starts_with = |name, text: &str| {
        head.headers.get_all(name).iter().any(|value| {
            value.as_bytes().get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()))
        })
    };
    if starts_with(header::ACCEPT, "text/event-stream") || starts_with(header::CONTENT_TYPE, "application/grpc") {
        return Shape::Stream;
    }
    if head.http1 && head.body != BodyLength::None {
        return Shape::Upload;
    }
    Shape::Plain
}

/// Takes the upgrade off a request that will not get one: WebSocket is the only protocol let
/// through, `Upgrade: h2c` in particular would be a tunnel past every rule.
pub fn strip(shape: Shape, head: &RequestHead<'_>, ops: &mut HeaderOps) {
    if shape != Shape::Upgrade && head.headers.contains_key(header::UPGRADE) {
        ops.push(HeaderOp::Remove(header::UPGRADE));
        ops.push(HeaderOp::Remove(crate::policy::forwarding::HTTP2_SETTINGS));
    }
}
