//! A file as an answer: whole or in part, or that the client has it already.

use std::ops::Range;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use headers::{AcceptRanges, ContentLength, ContentRange, HeaderMapExt, LastModified};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::condition::{Validators, Verdict, evaluate, range_counts};
use super::media::{Embedding, Served, Treatment};
use super::progress::Transfer;
use super::range::{Requested, requested};
use super::{digests, disposition};
use crate::error::Error;
use crate::sfs::error::SfsError;
use crate::sfs::model::Visibility;
use crate::sfs::service::Opened;

/// What a request for a file says about the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'r> {
    method: &'r Method,
    headers: &'r HeaderMap,
}

/// How much of a file is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
    NotModified,
    Failed,
}

impl<'r> Asked<'r> {
    pub(super) fn new(method: &'r Method, headers: &'r HeaderMap) -> Self {
        Self { method, headers }
    }

    pub(super) fn headers(self) -> &'r HeaderMap {
        self.headers
    }

    /// Whether the bytes are asked for, and not only what is known of them.
    pub(super) fn is_get(self) -> bool {
        *self.method == Method::GET
    }

    /// What of `opened` is asked for.
    pub(super) fn extent(self, opened: &Opened) -> Result<Extent, Error> {
        let validators = validators(opened);
        match evaluate(self.headers, true, Some(&validators))? {
            Verdict::Failed => return Ok(Extent::Failed),
            Verdict::NotModified => return Ok(Extent::NotModified),
            Verdict::Go => {}
        }
        // Of a HEAD there is no part (RFC 9110, 14.2).
        if !self.is_get() || !range_counts(self.headers, &validators)? {
            return Ok(Extent::Whole);
        }
        Ok(match requested(self.headers, opened.file.size) {
            Requested::Whole => Extent::Whole,
            Requested::Part(range) => Extent::Part(range),
            Requested::Unsatisfiable => Extent::Unsatisfiable,
        })
    }
}

impl Extent {
    /// Whether it has the first byte of the file: a download begins, and does not go on.
    pub(super) fn is_beginning(&self) -> bool {
        matches!(self, Self::Whole | Self::Part(Range { start: 0, .. }))
    }
}

/// How a file is given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    /// It is saved, whatever it is.
    pub(super) is_saved: bool,
    pub(super) embedding: Embedding,
}

impl Manner {
    /// As the namespace that it is in has it.
    pub(super) fn of(opened: &Opened, is_saved: bool) -> Self {
        let is_public = opened.namespace.visibility == Visibility::Public;
        Self { is_saved, embedding: if is_public { Embedding::Anywhere } else { Embedding::SameOrigin } }
    }
}

fn validators(opened: &Opened) -> Validators {
    Validators::new(opened.file.checksum, opened.entry.modified_at)
}

/// The answer; its bytes are read while they are sent. `transfer` is told of them.
pub(super) fn answer(
    opened: &Opened,
    extent: Extent,
    manner: Manner,
    transfer: Option<Transfer>,
) -> Result<Response, Error> {
    let mut response = match &extent {
        Extent::Failed => {
            return Err(Error::new(StatusCode::PRECONDITION_FAILED, SfsError::NotAsExpected.to_string()));
        }
        Extent::Unsatisfiable => {
            let message = format!("the file has {} bytes, none of which is in the range", opened.file.size);
            let mut refused = Error::new(StatusCode::RANGE_NOT_SATISFIABLE, message).into_response();
            refused.headers_mut().typed_insert(ContentRange::unsatisfied_bytes(opened.file.size));
            return Ok(refused);
        }
        Extent::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Extent::Whole => StatusCode::OK.into_response(),
        Extent::Part(_) => StatusCode::PARTIAL_CONTENT.into_response(),
    };
    write_head(opened, &extent, manner, response.headers_mut())?;
    let range = match extent {
        Extent::Whole => 0..opened.file.size,
        Extent::Part(range) => range,
        _ => return Ok(response),
    };
    response.headers_mut().typed_insert(ContentLength(range.end - range.start));
    let left = range.end - range.start;
    *response.body_mut() = Body::from_stream(told(opened.stream(range), left, transfer));
    Ok(response)
}

fn write_head(opened: &Opened, extent: &Extent, manner: Manner, headers: &mut HeaderMap) -> Result<(), Error> {
    let validators = validators(opened);
    headers.typed_insert(validators.etag()?);
    headers.typed_insert(LastModified::from(validators.modified()));
    let cached = match manner.embedding {
        Embedding::Anywhere => "no-cache",
        Embedding::SameOrigin => "private, no-cache",
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cached));
    if *extent == Extent::NotModified {
        return Ok(());
    }
    let served = Served::of(opened.file.media_type.as_str());
    served.write(manner.embedding, headers);
    let treatment = if manner.is_saved { Treatment::Attachment } else { served.treatment };
    headers.insert(CONTENT_DISPOSITION, disposition::header(treatment, opened.entry.path.name()));
    headers.typed_insert(AcceptRanges::bytes());
    digests::write(opened.file.checksum, headers);
    if let Extent::Part(range) = extent {
        let of = ContentRange::bytes(range.clone(), opened.file.size).map_err(Error::internal)?;
        headers.typed_insert(of);
    }
    Ok(())
}

/// The same bytes, `left` of them; `transfer` is told of them, and the log of why there are no more.
fn told(
    bytes: impl Stream<Item = Result<Bytes, SfsError>> + Send + 'static,
    left: u64,
    transfer: Option<Transfer>,
) -> impl Stream<Item = Result<Bytes, SfsError>> + Send + 'static {
    let mut sending = Sending { left, transfer };
    // Of an empty file nobody asks for a byte.
    sending.sent(0);
    bytes.inspect(move |next| match next {
        Ok(bytes) => sending.sent(bytes.len() as u64),
        Err(error) => sending.failed(error),
    })
}

/// A download that goes on.
struct Sending {
    left: u64,
    transfer: Option<Transfer>,
}

impl Sending {
    fn sent(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        if let Some(transfer) = &self.transfer {
            transfer.add(bytes);
        }
        // Whoever sends them does not ask for more than there is, not even for the end.
        if self.left == 0
            && let Some(transfer) = self.transfer.take()
        {
            transfer.done();
        }
    }

    fn failed(&mut self, error: &SfsError) {
        tracing::error!(%error, "a download breaks off");
        if let Some(transfer) = self.transfer.take() {
            transfer.failed("the file cannot be read any further");
        }
    }
}
