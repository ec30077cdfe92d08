//! Headers that concern one connection alone and end with it (RFC 9110 §7.6.1).
//!
//! pingora takes them off the requests that it sends; here is what it takes off, for the lane, and what both take off
//! answers.

use http::{HeaderMap, HeaderName, header};

use crate::decision::{HeaderOp, HeaderOps};

/// Taken off requests that ask for no upgrade.
pub const OF_REQUESTS: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    crate::policy::forwarding::HTTP2_SETTINGS,
];

/// Taken off answers.
pub const OF_ANSWERS: [HeaderName; 5] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::UPGRADE,
    header::CONNECTION,
];

/// Whether the body of an upstream's answer is delimited in a way that every client reads alike:
/// by `chunked` and nothing else, or not by a transfer coding at all.
pub fn is_delimited(answer: &HeaderMap) -> bool {
    let mut codings = answer.get_all(header::TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

/// Changes that leave the end-to-end headers of an upstream's answer.
pub fn strip(answer: &HeaderMap, ops: &mut HeaderOps) {
    for value in answer.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            // Framing is the engine's business, whatever the upstream calls it.
            if let Ok(name) = HeaderName::from_bytes(token.trim_ascii())
                && name != header::CONTENT_LENGTH
                && name != header::TRANSFER_ENCODING
                && answer.contains_key(&name)
            {
                ops.push(HeaderOp::Remove(name));
            }
        }
    }
    ops.extend(OF_ANSWERS.into_iter().filter(|name| answer.contains_key(name)).map(HeaderOp::Remove));
    let mut lengths = answer.get_all(header::CONTENT_LENGTH).iter();
    if let (Some(first), Some(_)) = (lengths.next(), lengths.next()) {
        // The engine has checked that they agree.
        ops.push(HeaderOp::Set(header::CONTENT_LENGTH, first.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_what_is_meant_for_the_client() {
        let lines = [
            ("connection", "keep-alive, X-Hop, content-length"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("x-end", "2"),
            ("content-length", "3"),
            ("content-length", "3"),
        ];
        let mut answer = HeaderMap::new();
        for (name, value) in lines {
            answer.append(name, value.parse().unwrap());
        }
        let mut ops = HeaderOps::new();
        strip(&answer, &mut ops);
        for op in ops {
            match op {
                HeaderOp::Remove(name) => drop(answer.remove(name)),
                HeaderOp::Set(name, value) => drop(answer.insert(name, value)),
                HeaderOp::Append(..) => panic!("nothing is added"),
            }
        }
        let left: Vec<_> = answer.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&("x-end", "2")) && left.contains(&("content-length", "3")), "{left:?}");
    }
}
