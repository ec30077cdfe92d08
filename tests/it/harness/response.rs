//! Answers, read as strictly as RFC 9112 lets a client be.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// Why no whole answer could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The peer closed, or reset, between two answers.
    Closed,
    /// The peer closed, or reset, within an answer.
    Truncated,
    /// Bytes that are no answer.
    Malformed(String),
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// Statuses of the interim (1xx) answers that came before.
    pub interim: Vec<u16>,
}

impl Response {
    /// The only value of a header, or empty; two lines of one name fail the test.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map_or("", |v| v.to_str().expect("headers are ASCII here"));
        assert!(values.next().is_none(), "two `{name}` lines in {:?}", self.headers);
        value
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in `{}`", self.text()))
    }
}

/// The first line and fields of an answer.
pub struct Head {
    pub status: u16,
    pub headers: HeaderMap,
}

/// How the end of a body is found (RFC 9112 §6.3).
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Head {
    /// Parses a head without its last empty line.
    pub fn parse(text: &[u8]) -> Result<Self, Broken> {
        let mut lines = split_lines(text)?.into_iter();
        let status = parse_status(lines.next().unwrap_or_default())?;
        let headers = parse_fields(lines)?;
        Ok(Self { status, headers })
    }

    /// Where the body of this answer to a `method` request ends.
    pub fn framing(&self, method: &str) -> Result<Framing, Broken> {
        let lengths: Vec<_> = self.headers.get_all("content-length").iter().collect();
        let codings: Vec<_> = self.headers.get_all("transfer-encoding").iter().collect();
        let no_body = method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304);
        match (lengths.as_slice(), codings.as_slice()) {
            (_, []) if no_body => Ok(Framing::None),
            ([], [coding]) if coding.as_bytes() == b"chunked" => {
                Ok(if no_body { Framing::None } else { Framing::Chunked })
            }
            ([length], []) => {
                let digits = length.to_str().ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
                let length = digits.and_then(|t| t.parse().ok());
                length
                    .map(Framing::Length)
                    .ok_or_else(|| malformed("content-length", length.unwrap_or(0).to_string().as_bytes()))
            }
            ([], []) => Ok(Framing::UntilClose),
            _ => Err(Broken::Malformed(format!("framing {lengths:?} {codings:?}"))),
        }
    }
}

pub fn malformed(what: &str, bytes: &[u8]) -> Broken {
    let shown = &bytes[..bytes.len().min(200)];
    Broken::Malformed(format!("{what}: `{}`", shown.escape_ascii()))
}

/// Lines end with CRLF; a CR or LF that stands alone is an error.
fn split_lines(text: &[u8]) -> Result<Vec<&[u8]>, Broken> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    match lines.iter().find(|line| line.contains(&b'\r') || line.contains(&b'\n')) {
        Some(line) => Err(malformed("bare CR or LF", line)),
        None => Ok(lines),
    }
}

fn parse_status(line: &[u8]) -> Result<u16, Broken> {
    let bad = || malformed("status line", line);
    let rest = line.strip_prefix(b"HTTP/1.1 ").ok_or_else(bad)?;
    let (digits, reason) = rest.split_at_checked(3).ok_or_else(bad)?;
    if !digits.iter().all(u8::is_ascii_digit) || reason.first() != Some(&b' ') {
        return Err(bad());
    }
    std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).filter(|s| (100..600).contains(s)).ok_or_else(bad)
}

/// Parses header or trailer lines.
pub fn parse_fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<HeaderMap, Broken> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let bad = || malformed("field", line);
        let colon = line.iter().position(|&b| b == b':').ok_or_else(bad)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| bad())?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).map_err(|_| bad())?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Parses trailer text: lines, each with its CRLF.
pub fn parse_trailers(text: &[u8]) -> Result<HeaderMap, Broken> {
    match text.strip_suffix(b"\r\n") {
        None => Ok(HeaderMap::new()),
        Some(text) => parse_fields(split_lines(text)?.into_iter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_heads_that_clients_read_differently() {
        for head in [
            "HTTP/1.1 200OK",
            "HTTP/1.1 20 OK",
            "HTTP/2 200 OK",
            "HTTP/1.1 200 OK\nA: b",
            "HTTP/1.1 200 OK\r\nA : b",
            "HTTP/1.1 200 OK\r\n b",
            "HTTP/1.1 200 OK\r\nA: b\rc",
        ] {
            assert!(Head::parse(head.as_bytes()).is_err(), "{head}");
        }
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: +1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
        ] {
            let head = Head::parse(format!("HTTP/1.1 200 OK\r\n{fields}").as_bytes()).expect("well-formed lines");
            assert!(head.framing("GET").is_err(), "{fields}");
        }
    }
}
