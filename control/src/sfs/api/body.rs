//! The body of an upload, piece by piece: constant memory, no limit of its own, and nobody who may stand still for ever.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, StatusCode};

use crate::error::Error;

/// Longest wait for the next piece of a body.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What is still to come of a body.
pub(super) struct Pieces {
    stream: BodyDataStream,
    stall_timeout: Duration,
}

impl Pieces {
    pub(super) fn new(body: Body) -> Self {
        Self { stream: body.into_data_stream(), stall_timeout: STALL_TIMEOUT }
    }

    /// The next bytes; none at the end that the sender meant.
    ///
    /// # Errors
    /// It ended before, or stands still.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let next = tokio::time::timeout(self.stall_timeout, self.stream.next()).await;
        let next = next.map_err(|_| Error::new(StatusCode::REQUEST_TIMEOUT, "the body stopped arriving"))?;
        let bytes = next.transpose();
        bytes.map_err(|error| Error::bad_request("the body ended before its end").with_cause(error))
    }
}

/// Refuses bodies that are not the file as it is: compressed, or a part of it.
pub(super) fn check_whole(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(CONTENT_RANGE) {
        let message = "a file is written whole: leave `Content-Range` out, or upload with tus at /storage/tus";
        return Err(Error::bad_request(message));
    }
    let is_identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        let message = "the body has a `Content-Encoding`: send the file as it is";
        return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    Ok(())
}

/// How long a body says it is.
///
/// # Errors
/// What is said is no number of bytes.
pub(super) fn declared_bytes(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    number(headers, CONTENT_LENGTH.as_str())
}

/// A header that is a number of bytes, and fits into a database.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let parsed = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let parsed = parsed.filter(|bytes| i64::try_from(*bytes).is_ok());
    parsed.map(Some).ok_or_else(|| Error::bad_request(format!("`{name}` is no number of bytes")))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up() {
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
        let mut pieces = Pieces::new(Body::from_stream(first.chain(stream::pending())));
        assert_eq!(pieces.next().await.unwrap().unwrap(), "abc");
        assert_eq!(pieces.next().await.unwrap_err().status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_whole_one() {
        let broken = stream::iter([Ok(Bytes::from_static(b"abc")), Err(std::io::Error::other("reset"))]);
        let mut pieces = Pieces::new(Body::from_stream(broken));
        assert!(pieces.next().await.unwrap().is_some());
        assert_eq!(pieces.next().await.unwrap_err().status(), StatusCode::BAD_REQUEST);
        let mut whole = Pieces::new(Body::from("x"));
        assert_eq!(whole.next().await.unwrap().unwrap(), "x");
        assert_eq!(whole.next().await.unwrap(), None);
    }

    #[test]
    fn parts_and_compressed_bodies_are_refused() {
        let of =
            |name: &'static str, value: &str| HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        let status = |headers: HeaderMap| check_whole(&headers).map_err(|error| error.status().as_u16());
        assert_eq!(status(HeaderMap::new()), Ok(()));
        assert_eq!(status(of("content-encoding", "Identity")), Ok(()));
        assert_eq!(status(of("content-encoding", "gzip")), Err(415));
        assert_eq!(status(of("content-range", "bytes 0-1/2")), Err(400));
        assert_eq!(number(&of("x-file-size", "12"), "x-file-size").unwrap(), Some(12));
        for value in ["", "-1", "+1", "1e3", "9223372036854775808"] {
            assert!(number(&of("x-file-size", value), "x-file-size").is_err(), "{value}");
        }
    }
}
