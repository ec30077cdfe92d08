//! A request as an upstream saw it.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::record::Record;

/// Most of a body that is kept to be looked at, in bytes; the rest is only counted.
const KEPT_BODY_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head came; the body is still on its way.
    Receiving,
    /// The request came whole.
    Received,
    /// The request ended before its body did.
    Truncated,
    /// The request came whole, but its connection ended before the answer was ready.
    Abandoned,
}

#[derive(Clone, Debug)]
pub struct Seen {
    /// Counts the requests of one upstream from 0.
    pub number: u64,
    /// Counts the connections of one upstream from 0.
    pub connection: u64,
    pub method: Method,
    /// Path and query as they stood on the request line.
    pub target: String,
    pub headers: HeaderMap,
    /// The first 64 KiB of the body.
    pub body: Vec<u8>,
    pub body_bytes: u64,
    pub trailers: HeaderMap,
    pub progress: Progress,
}

impl Seen {
    pub fn new(number: u64, connection: u64, method: Method, target: &str, headers: HeaderMap) -> Self {
        Self {
            number,
            connection,
            method,
            target: target.to_owned(),
            headers,
            body: Vec::new(),
            body_bytes: 0,
            trailers: HeaderMap::new(),
            progress: Progress::Receiving,
        }
    }

    /// Whether the request came whole.
    pub fn is_whole(&self) -> bool {
        matches!(self.progress, Progress::Received | Progress::Abandoned)
    }

    /// Whether nothing more of it will come.
    pub fn is_over(&self) -> bool {
        self.progress != Progress::Receiving
    }

    /// All values of a header, joined as RFC 9110 §5.3 allows; empty when it is absent.
    pub fn header(&self, name: &str) -> String {
        join(&self.headers, name)
    }

    pub fn trailer(&self, name: &str) -> String {
        join(&self.trailers, name)
    }
}

fn join(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
    values.join(", ")
}

impl Record<Seen> {
    /// Applies `change` to request `number`, unless a test took it away already.
    pub fn update(&self, number: u64, change: impl Fn(&mut Seen)) {
        self.edit(|seen| {
            if seen.number == number {
                change(seen);
            }
        });
    }

    pub fn add_body(&self, number: u64, data: &Bytes) {
        self.update(number, |seen| {
            seen.body_bytes += data.len() as u64;
            let room = KEPT_BODY_BYTES - seen.body.len();
            seen.body.extend_from_slice(&data[..data.len().min(room)]);
        });
    }
}
