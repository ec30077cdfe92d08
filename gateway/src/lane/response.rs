//! A target's answer: where its head ends, where its body ends, and what the client gets of it.
//!
//! Strict: an answer that two readers could cut at different places is refused (RFC 9112 §6.3), and what it holds past
//! its end belongs to nobody.

use std::ops::Range;

use http::{Method, StatusCode, header};

use crate::clock;
use crate::lane::fields::{self, Changes, Field, Fields};
use crate::policy::hop_by_hop;
use crate::proxy::framing::{HeadScanner, is_token, parse_length};

/// An answer that is not HTTP/1, or not by the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// How the body of an answer is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Bytes(u64),
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What the head of an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: StatusCode,
    reason: Range<usize>,
    pub body: Body,
    /// The target takes another request on the connection behind the body.
    pub keeps_alive: bool,
    /// As it was told, which without a body says nothing of where the answer ends.
    content_length: Option<u64>,
    is_chunked: bool,
}

/// The length of the head that `bytes` begin with; none while it is incomplete.
pub fn head_length(scanner: &mut HeadScanner, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    scanner.scan(bytes).map_err(|violation| Malformed(violation.detail))
}

/// Reads a whole head, the answer to a `method`.
pub fn parse(head: &[u8], method: &Method) -> Result<Response, Malformed> {
    let (line, lines) = fields::split(head);
    let is_one_one = match line.get(..9) {
        Some(b"HTTP/1.1 ") => true,
        Some(b"HTTP/1.0 ") => false,
        _ => return Err(Malformed("the status line begins with no version of HTTP/1")),
    };
    let code = line.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok());
    let status = code.ok_or(Malformed("the status is no number from 100 to 999"))?;
    let reason = match line.get(12) {
        None => 12..12,
        Some(b' ') if line[13..].iter().copied().all(is_text) => 13..line.len(),
        Some(_) => return Err(Malformed("the status line does not end in a reason")),
    };
    let said = read_fields(lines)?;
    if said.is_chunked && (said.content_length.is_some() || !is_one_one) {
        return Err(Malformed("there is a Transfer-Encoding where none may be"));
    }
    let has_body = *method != Method::HEAD
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && !status.is_informational();
    let body = match (said.is_chunked, said.content_length) {
        _ if !has_body => Body::Bytes(0),
        (true, _) => Body::Chunked,
        (false, Some(length)) => Body::Bytes(length),
        (false, None) => Body::UntilClose,
    };
    let keeps_alive = !said.closes && (is_one_one || said.keeps_alive) && body != Body::UntilClose;
    let Said { content_length, is_chunked, .. } = said;
    Ok(Response { status, reason, body, keeps_alive, content_length, is_chunked })
}

/// What the fields say, as far as it matters where the answer ends.
#[derive(Default)]
struct Said {
    content_length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps_alive: bool,
}

fn read_fields(mut lines: Fields<'_>) -> Result<Said, Malformed> {
    let mut said = Said::default();
    while let Some(line) = lines.line() {
        let Some(colon) = memchr::memchr(b':', line) else {
            return Err(Malformed("a header line has no colon"));
        };
        // A folded line, too, begins with what is no name.
        if !is_token(&line[..colon]) {
            return Err(Malformed("a header name is empty or holds a byte that may not stand in one"));
        }
        if !line[colon + 1..].iter().copied().all(is_text) {
            return Err(Malformed("a header value holds a control character"));
        }
        let field = Field { name: &line[..colon], value: line[colon + 1..].trim_ascii() };
        match field.name.len() {
            10 if field.is(&header::CONNECTION) => {
                said.closes |= field.members().any(|member| member.eq_ignore_ascii_case(b"close"));
                said.keeps_alive |= field.members().any(|member| member.eq_ignore_ascii_case(b"keep-alive"));
            }
            14 if field.is(&header::CONTENT_LENGTH) => {
                // Several that agree are one (RFC 9110 §8.6).
                for number in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    let length = parse_length(number).ok_or(Malformed("Content-Length is not a number of bytes"))?;
                    if said.content_length.replace(length).is_some_and(|before| before != length) {
                        return Err(Malformed("two Content-Lengths disagree"));
                    }
                }
            }
            17 if field.is(&header::TRANSFER_ENCODING) => {
                let is_second = std::mem::replace(&mut said.is_chunked, true);
                if is_second || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed("the transfer coding is not `chunked` alone"));
                }
            }
            _ => {}
        }
    }
    Ok(said)
}

const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

impl Response {
    /// The head that the client gets, which closes the connection behind the answer if it `is_last`.
    pub fn for_client(&self, head: &[u8], changes: &Changes<'_>, is_last: bool) -> Vec<u8> {
        let mut out = self.end_to_end(head, changes);
        changes.write_new(&mut out);
        if let Some(length) = self.content_length {
            fields::write(&mut out, b"Content-Length", length.to_string().as_bytes());
        }
        if self.is_chunked || self.body == Body::UntilClose {
            fields::write(&mut out, b"Transfer-Encoding", b"chunked");
        }
        let (_, mut lines) = fields::split(head);
        if !lines.any(|field| field.is(&header::DATE)) && !changes.bring(&header::DATE) {
            fields::write(&mut out, b"Date", clock::http_now().as_bytes());
        }
        fields::write(&mut out, b"Connection", if is_last { b"close" } else { b"keep-alive" });
        out.extend_from_slice(b"\r\n");
        out
    }

    /// The head of an interim answer that the client gets.
    pub fn interim(&self, head: &[u8]) -> Vec<u8> {
        let mut out = self.end_to_end(head, &Changes::default());
        out.extend_from_slice(b"\r\n");
        out
    }

    /// The status line, and the fields that are meant for the client and stay.
    fn end_to_end(&self, head: &[u8], changes: &Changes<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(head.len() + 256);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(&head[self.reason.clone()]);
        out.extend_from_slice(b"\r\n");
        let (_, lines) = fields::split(head);
        let named: Vec<&[u8]> = lines
            .filter(|field| field.is(&header::CONNECTION))
            .flat_map(|field| field.value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .collect();
        for field in lines.filter(|field| changes.keep(field)) {
            let is_framing = field.is(&header::CONTENT_LENGTH) || field.is(&header::TRANSFER_ENCODING);
            let is_hop = hop_by_hop::OF_ANSWERS.iter().any(|name| field.is(name))
                || named.iter().any(|name| field.name.eq_ignore_ascii_case(name));
            if !is_framing && !is_hop {
                fields::write(&mut out, field.name, field.value);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
