//! A request's head, read for the decision and written for its target.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::decision::{BodyLength, Forward, RequestHead};
use crate::lane::fields::{self, Changes, Field};
use crate::policy::hop_by_hop;

/// A request that may take the lane: HTTP/1.1, a path as target, no body, and a connection that serves plain HTTP.
#[derive(Debug)]
pub struct Request {
    head: Bytes,
    pub method: Method,
    target: Bytes,
    pub headers: HeaderMap,
    /// The client will not send another one.
    pub is_last: bool,
}

impl Request {
    /// Reads a head that `framing::check` has passed; none if the request needs more than the lane has.
    pub fn read(head: &[u8]) -> Option<Self> {
        let head = Bytes::copy_from_slice(head);
        let (line, lines) = fields::split(&head);
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if version != b"HTTP/1.1" || target.first() != Some(&b'/') {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(16);
        let mut is_last = false;
        for field in lines {
            let name = HeaderName::from_bytes(field.name).ok()?;
            if [header::UPGRADE, header::EXPECT, header::TRANSFER_ENCODING].contains(&name) {
                return None;
            }
            if name == header::CONNECTION {
                is_last |= ends(&field)?;
            }
            headers.append(name, HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?);
        }
        let method = Method::from_bytes(method).ok()?;
        let target = head.slice_ref(target);
        Some(Self { method, target, headers, is_last, head })
    }

    /// What the rules are asked about.
    pub fn for_decision(&self) -> RequestHead<'_> {
        // `framing::check` takes visible ASCII alone.
        let target = std::str::from_utf8(&self.target).unwrap_or("/");
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        RequestHead {
            method: &self.method,
            authority: self.headers.get(header::HOST).and_then(|host| host.to_str().ok()),
            path,
            query,
            headers: &self.headers,
            body: BodyLength::None,
            http1: true,
            websocket: false,
        }
    }

    /// Whether sending it twice does no more than sending it once (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// The head that the target gets.
    pub fn for_target(&self, forward: &Forward) -> Vec<u8> {
        let changes = Changes::of(&forward.headers);
        let mut out = Vec::with_capacity(self.head.len() + 512);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(forward.target.as_ref().map_or(&self.target[..], |target| target.as_bytes()));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let mut has_host = changes.bring(&header::HOST);
        let (_, lines) = fields::split(&self.head);
        for field in lines.filter(|field| changes.keep(field)) {
            if hop_by_hop::OF_REQUESTS.iter().any(|name| field.is(name)) {
                continue;
            }
            has_host |= field.is(&header::HOST);
            fields::write(&mut out, field.name, field.value);
        }
        if !has_host {
            // Without one it would be no request (RFC 9112 §3.2).
            fields::write(&mut out, b"host", b"");
        }
        changes.write_new(&mut out);
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// Whether a Connection field says `close`; none if it names anything that the lane would have to take off.
fn ends(connection: &Field<'_>) -> Option<bool> {
    let mut ends = false;
    for member in connection.members() {
        match member {
            _ if member.eq_ignore_ascii_case(b"close") => ends = true,
            _ if member.eq_ignore_ascii_case(b"keep-alive") => {}
            _ => return None,
        }
    }
    Some(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Option<Request> {
        Request::read(format!("{lines}\r\n\r\n").as_bytes())
    }

    #[test]
    fn what_is_plain_is_read() {
        let request =
            read("GET /a%20b?c=d?e HTTP/1.1\r\nHost: a.test\r\nConnection: Keep-Alive\r\nX:\r\nx: \u{fc}").unwrap();
        let head = request.for_decision();
        assert_eq!((head.path, head.query, head.authority), ("/a%20b", Some("c=d?e"), Some("a.test")));
        assert_eq!(head.headers.get_all("x").iter().count(), 2);
        assert!(!request.is_last && request.is_idempotent());
        let post = read("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nconnection: x,close").is_none();
        assert!(post, "a field named by Connection is pingora's to take off");
        assert!(read("POST / HTTP/1.1\r\nHost: a\r\nconnection: close,").unwrap().is_last);
    }

    #[test]
    fn what_is_not_plain_is_left_to_pingora() {
        for head in [
            "GET / HTTP/1.0\r\nHost: a",
            "OPTIONS * HTTP/1.1\r\nHost: a",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue",
        ] {
            assert!(read(head).is_none(), "{head}");
        }
    }
}
