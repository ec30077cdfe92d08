//! The strict rules for an HTTP/1 request head, applied to its raw bytes before any engine sees it.
//!
//! A request that two readers could cut at different places is refused, not repaired (RFC 9112
//! §2.2, §3.2, §5.1, §6). This is the one place that decides where a request ends.

use http::Method;

use crate::decision::BodyLength;
use crate::path::{PathError, is_path_byte};
use crate::reason::Reason;
use crate::table::normalize_host;

/// Most header lines in one head.
pub const MAX_HEADER_LINES: usize = 100;

/// What the framing rules learn from a valid head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    pub body: BodyLength,
    /// The target is a URL; the engine is to see its path, see [`origin_form`].
    pub absolute: bool,
    /// A WebSocket handshake: what follows the head belongs to the new protocol, after its 101.
    pub websocket: bool,
}

/// A refused head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: Reason,
    pub detail: &'static str,
}

const fn bad(detail: &'static str) -> Violation {
    Violation { reason: Reason::BadFraming, detail }
}

const fn bad_target(detail: &'static str) -> Violation {
    Violation { reason: Reason::BadTarget, detail }
}

/// Finds the end of a head as its bytes arrive, looking at each byte once.
#[derive(Debug, Default)]
pub struct HeadScanner {
    scanned: usize,
    line_start: usize,
    lines: usize,
}

impl HeadScanner {
    /// The length of the head that `buf` begins with, its empty line included; none while it is
    /// incomplete. `buf` may only grow between calls.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, Violation> {
        while let Some(at) = memchr::memchr(b'\n', &buf[self.scanned..]) {
            let newline = self.scanned + at;
            if newline == 0 || buf[newline - 1] != b'\r' {
                return Err(bad("a line ends with a bare LF"));
            }
            let line = &buf[self.line_start..newline - 1];
            self.scanned = newline + 1;
            self.line_start = newline + 1;
            if line.is_empty() {
                return Ok(Some(newline + 1));
            }
            self.lines += 1;
            if self.lines > MAX_HEADER_LINES + 1 {
                return Err(Violation {
                    reason: Reason::HeadersTooLarge,
                    detail: "there are more than 100 header lines",
                });
            }
        }
        self.scanned = buf.len();
        Ok(None)
    }
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_token_byte(byte as u8);
        byte += 1;
    }
    table
};

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// What the header lines say, as far as framing cares.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    upgrade_websocket: bool,
    connection_upgrade: bool,
}

/// Checks a whole head, as [`HeadScanner`] delimits it.
pub fn check(head: &[u8]) -> Result<Framing, Violation> {
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().unwrap_or_default();
    if request_line.contains(&b'\r') {
        return Err(bad("the request line holds a bare CR"));
    }
    let mut words = request_line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("the request line is not `method target version`"));
    };
    if !is_token(method) {
        return Err(bad("the method is not a token"));
    }
    let one_one = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ if version.starts_with(b"HTTP/") => {
            return Err(Violation {
                reason: Reason::BadVersion,
                detail: "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here",
            });
        }
        _ => return Err(bad("the request line does not end in an HTTP version")),
    };
    let mut fields = Fields::default();
    for line in lines {
        if line.is_empty() {
            break;
        }
        read_field(line, &mut fields)?;
    }
    let absolute = check_target(method, target, fields.host, one_one)?;
    if fields.chunked {
        if !one_one {
            return Err(bad("Transfer-Encoding has no meaning in HTTP/1.0"));
        }
        if fields.content_length.is_some() {
            return Err(bad("both Content-Length and Transfer-Encoding are given"));
        }
    }
    let websocket = one_one && fields.upgrade_websocket && fields.connection_upgrade && method == b"GET";
    let body = match (fields.chunked, fields.content_length) {
        (true, _) => BodyLength::Chunked,
        (false, None | Some(0)) => BodyLength::None,
        (false, Some(length)) => BodyLength::Bytes(length),
    };
    if websocket && body != BodyLength::None {
        return Err(bad("a WebSocket handshake has no body"));
    }
    Ok(Framing { body, absolute, websocket })
}

fn read_field<'a>(line: &'a [u8], fields: &mut Fields<'a>) -> Result<(), Violation> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(bad("a header line is folded"));
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err(bad("a header line has no colon"));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(bad("a header name is empty or holds a byte that may not stand in one"));
    }
    if value.iter().any(|&byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
        return Err(bad("a header value holds a control character"));
    }
    let value = value.trim_ascii();
    // The length tells most other headers apart before a comparison.
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        4 if is("host") => once(fields.host.replace(value).is_none(), "there is more than one Host header")?,
        7 if is("upgrade") => fields.upgrade_websocket |= list_has(value, b"websocket"),
        10 if is("connection") => fields.connection_upgrade |= list_has(value, b"upgrade"),
        14 if is("content-length") => {
            let length = parse_length(value).ok_or(bad("Content-Length is not a number of bytes"))?;
            let first = fields.content_length.replace(length).is_none();
            once(first, "there is more than one Content-Length header")?;
        }
        17 if is("transfer-encoding") => {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(bad("the only transfer coding taken is `chunked`"));
            }
            let first = !std::mem::replace(&mut fields.chunked, true);
            once(first, "there is more than one Transfer-Encoding header")?;
        }
        _ => {}
    }
    Ok(())
}

fn once(first: bool, detail: &'static str) -> Result<(), Violation> {
    if first { Ok(()) } else { Err(bad(detail)) }
}

fn list_has(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// `1*DIGIT` and nothing else: no sign, no list (RFC 9110 §8.6).
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Checks the target against the host, and tells whether it is in absolute form.
fn check_target(method: &[u8], target: &[u8], host: Option<&[u8]>, one_one: bool) -> Result<bool, Violation> {
    if host.is_none() && one_one {
        return Err(bad("there is no Host header"));
    }
    let host = match host {
        None => None,
        Some(host) => {
            let text = std::str::from_utf8(host).ok();
            Some(text.and_then(|h| normalize_host(h).ok()).ok_or(bad("the Host header is no host"))?)
        }
    };
    if method == Method::CONNECT.as_str().as_bytes() {
        return Err(Violation { reason: Reason::MethodNotAllowed, detail: "CONNECT is not forwarded" });
    }
    if !target.iter().all(|byte| (0x21..=0x7e).contains(byte)) {
        return Err(bad_target("the target holds a byte that must be percent-encoded"));
    }
    if target.contains(&b'#') {
        return Err(bad_target("the target holds a fragment"));
    }
    if target == b"*" {
        if method == b"OPTIONS" {
            return Ok(false);
        }
        return Err(bad_target("`*` is a target of OPTIONS alone"));
    }
    // The bytes are visible ASCII.
    let text = std::str::from_utf8(target).unwrap_or_default();
    if text.starts_with('/') {
        return check_path(text).map(|()| false);
    }
    let Some((authority, rest)) = split_absolute(text) else {
        return Err(bad_target("the target is neither a path nor an http URL"));
    };
    match (normalize_host(authority), host) {
        (Ok(in_target), Some(in_header)) if in_target == in_header => {}
        (Ok(_), None) => {}
        (Ok(_), Some(_)) => return Err(bad_target("the target names another host than the Host header")),
        (Err(_), _) => return Err(bad_target("the target names no valid host")),
    }
    check_path(rest).map(|()| true)
}

/// The engine would percent-encode such bytes, or answer for itself.
fn check_path(target: &str) -> Result<(), Violation> {
    let path = target.split('?').next().unwrap_or_default();
    match path.bytes().all(|byte| byte == b'%' || is_path_byte(byte)) {
        true => Ok(()),
        false => Err(Violation { reason: Reason::BadPath, detail: PathError::BadByte.explain() }),
    }
}

/// Authority and the rest of an http URL.
fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    is_http.then(|| rest.split_at(end))
}

/// The head with its absolute target in origin form (RFC 9112 §3.2.2), so that one spelling is left
/// to every reader behind this one. [`check`] has found the head valid, with the target absolute.
pub fn origin_form(head: &[u8]) -> Option<Vec<u8>> {
    let line_end = memchr::memchr(b'\r', head)?;
    let line = std::str::from_utf8(&head[..line_end]).ok()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let (authority, rest) = split_absolute(target)?;
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let mut out = format!("{method} {slash}{rest} {version}").into_bytes();
    let has_host =
        head.split(|byte| *byte == b'\n').any(|line| line.len() > 4 && line[..5].eq_ignore_ascii_case(b"host:"));
    if !has_host {
        out.extend_from_slice(b"\r\nHost: ");
        out.extend_from_slice(authority.as_bytes());
    }
    out.extend_from_slice(&head[line_end..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(text: &str) -> Result<Framing, Violation> {
        let bytes = text.as_bytes();
        let mut scanner = HeadScanner::default();
        match scanner.scan(bytes)? {
            Some(end) => check(&bytes[..end]),
            None => panic!("incomplete head: {text:?}"),
        }
    }

    fn ok(text: &str, body: BodyLength) {
        assert_eq!(run(text).map(|framing| framing.body), Ok(body), "{text:?}");
    }

    fn refused(text: &str, reason: Reason) {
        assert_eq!(run(text).map_err(|violation| violation.reason), Err(reason), "{text:?}");
    }

    #[test]
    fn takes_what_is_plain() {
        ok("GET / HTTP/1.1\r\nHost: a\r\n\r\n", BodyLength::None);
        ok("GET / HTTP/1.0\r\n\r\n", BodyLength::None);
        ok("GET http://a/x HTTP/1.1\r\nHost: A.:80\r\n\r\n", BodyLength::None);
        ok("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", BodyLength::None);
        ok("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", BodyLength::Bytes(12));
        ok("POST / HTTP/1.1\r\nHost: a\r\ncontent-length:0\r\n\r\n", BodyLength::None);
        ok("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", BodyLength::Chunked);
        ok("GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t ok \u{fc}\r\n\r\n", BodyLength::None);
        let upgrade = run("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n");
        assert!(upgrade.is_ok_and(|framing| framing.websocket));
        let h2c = run("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n");
        assert!(h2c.is_ok_and(|framing| !framing.websocket));
    }

    #[test]
    fn refuses_what_two_readers_cut_differently() {
        for lines in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding:",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "X: a\r\n chunked",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: +5",
            "Content-Length: -1",
            "Content-Length: 1, 1",
            "Content-Length: 0x5",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "X: a\rb",
            "X: a\0b",
            "X: a\u{7f}b",
            ": x",
            "no colon",
            "X\u{fc}: x",
            "Host: b",
            "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 3",
        ] {
            refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"), Reason::BadFraming);
        }
        refused("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::BadFraming);
        refused("GET / HTTP/1.1\r\n\r\n", Reason::BadFraming);
        refused("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Reason::BadFraming);
        refused("GET / HTTP/1.1\nHost: a\r\n\r\n", Reason::BadFraming);
        refused("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadFraming);
        refused("GET /\r\nHost: a\r\n\r\n", Reason::BadFraming);
        refused("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadFraming);
        refused("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Reason::BadVersion);
        refused("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Reason::BadVersion);
    }

    #[test]
    fn refuses_targets_that_name_something_else() {
        refused("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget);
        refused("GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", Reason::BadTarget);
        refused("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget);
        refused("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget);
        refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget);
        refused("GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadPath);
        refused("GET http://a/a\\b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadPath);
        refused("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget);
        refused("GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget);
        refused("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MethodNotAllowed);
    }

    #[test]
    fn absolute_targets_are_brought_into_origin_form() {
        for (head, want) in [
            ("GET HTTP://A:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("GET http://a?y HTTP/1.1\r\nhost: a\r\n\r\n", "GET /?y HTTP/1.1\r\nhost: a\r\n\r\n"),
            ("GET http://a HTTP/1.0\r\nX: y\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\nX: y\r\n\r\n"),
        ] {
            assert!(run(head).is_ok_and(|framing| framing.absolute), "{head}");
            assert_eq!(origin_form(head.as_bytes()).unwrap(), want.as_bytes());
        }
        assert!(run("GET /http://a/ HTTP/1.1\r\nHost: a\r\n\r\n").is_ok_and(|framing| !framing.absolute));
    }

    #[test]
    fn bounds_the_number_of_lines() {
        let head = |lines: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(lines));
        ok(&head(MAX_HEADER_LINES - 1), BodyLength::None);
        refused(&head(MAX_HEADER_LINES), Reason::HeadersTooLarge);
    }

    proptest! {
        #[test]
        fn scanning_in_pieces_finds_the_same_end(tail in "[a-z:\r\n ]{0,40}", cut in 0usize..60) {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{tail}\r\n\r\nrest");
            let bytes = text.as_bytes();
            let whole = HeadScanner::default().scan(bytes);
            let mut scanner = HeadScanner::default();
            let pieces = scanner.scan(&bytes[..cut.min(bytes.len())]).and_then(|found| match found {
                Some(end) => Ok(Some(end)),
                None => scanner.scan(bytes),
            });
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(end)) = HeadScanner::default().scan(&bytes) {
                let _ = check(&bytes[..end]);
            }
        }
    }
}
