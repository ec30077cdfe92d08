//! Files in forms: `multipart/form-data` (RFC 7578), read in constant memory. The first field with a file in it is the
//! file; what is before and after it is skipped, as far as that is little.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use futures_util::{Stream, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use multer::{Field, Multipart};

use super::body::Pieces;
use crate::error::Error;

/// Bytes before the file: boundaries, headers, other fields with their values. As many may come after it.
const MAX_BESIDES_BYTES: u64 = 64 * 1024;
/// Longest boundary (RFC 2046, 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;
/// Fields of a form.
const MAX_FIELDS: usize = 32;

/// Whether a body is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let essence = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("multipart/form-data"))
}

/// A form that is being sent.
pub(super) struct Form {
    multipart: Multipart<'static>,
    allowance: Allowance,
}

/// The file of a form, which is read before the rest of it.
pub(super) struct FormFile {
    field: Field<'static>,
    pub(super) media_type: Option<String>,
}

impl Form {
    /// # Errors
    /// Its boundary is missing, or too long.
    pub(super) fn new(headers: &HeaderMap, pieces: Pieces) -> Result<Self, Error> {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(content_type).map_err(refused)?;
        if !(1..=MAX_BOUNDARY_BYTES).contains(&boundary.len()) {
            return Err(Error::bad_request(format!("a form's boundary has 1 to {MAX_BOUNDARY_BYTES} bytes")));
        }
        let allowance = Allowance::default();
        let pieces = Box::pin(stream::try_unfold(pieces, async |mut pieces| {
            Ok(pieces.next().await?.map(|bytes| (bytes, pieces)))
        }));
        let source = Rationed { pieces, allowance: allowance.clone(), has_given: false };
        Ok(Self { multipart: Multipart::new(source, boundary), allowance })
    }

    /// Goes on to the file.
    ///
    /// # Errors
    /// There is none among what a form may begin with.
    pub(super) async fn file(&mut self) -> Result<FormFile, Error> {
        self.allowance.set(MAX_BESIDES_BYTES);
        for _ in 0..MAX_FIELDS {
            let Some(field) = self.multipart.next_field().await.map_err(refused)? else { break };
            if field.file_name().is_some() {
                self.allowance.set(u64::MAX);
                let media_type = field.content_type().map(ToString::to_string);
                return Ok(FormFile { field, media_type });
            }
        }
        Err(Error::bad_request("the form has no file: give one of its fields a `filename`"))
    }

    /// Reads what is after the file, to see that the form is whole.
    ///
    /// # Errors
    /// It is not, or there is too much.
    pub(super) async fn end(mut self) -> Result<(), Error> {
        self.allowance.set(MAX_BESIDES_BYTES);
        for _ in 0..MAX_FIELDS {
            if self.multipart.next_field().await.map_err(refused)?.is_none() {
                return Ok(());
            }
        }
        Err(Error::bad_request(format!("a form has at most {MAX_FIELDS} fields")))
    }
}

impl FormFile {
    /// The next bytes of the file.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.field.chunk().await.map_err(refused)
    }
}

/// What multer says, or what reading the body did.
fn refused(error: multer::Error) -> Error {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast::<Error>() {
            Ok(error) => *error,
            Err(cause) => Error::internal(cause),
        },
        error @ (multer::Error::IncompleteStream
        | multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders) => Error::bad_request("the form ended before its end").with_cause(error),
        error => Error::bad_request(format!("the form cannot be read: {error}")),
    }
}

/// How much more may be taken from the body.
#[derive(Clone, Debug, Default)]
struct Allowance(Arc<AtomicU64>);

impl Allowance {
    fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Takes as much; false if nothing was left.
    fn take(&self, bytes: u64) -> bool {
        // Nobody else takes from it: the one stream does.
        let left = self.0.load(Ordering::Relaxed);
        self.set(left.saturating_sub(bytes));
        left > 0
    }
}

/// The body as multer may see it. multer takes all that a stream has ready, and keeps what it looks for a boundary in:
/// so it is given one piece at a time, and no more of what is not the file than it is allowed.
struct Rationed<S> {
    pieces: Pin<Box<S>>,
    allowance: Allowance,
    has_given: bool,
}

impl<S: Stream<Item = Result<Bytes, Error>>> Stream for Rationed<S> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.has_given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = ready!(self.pieces.as_mut().poll_next(context));
        self.has_given = true;
        let taken = next.as_ref().and_then(|next| next.as_ref().ok()).map_or(0, |bytes| bytes.len() as u64);
        if taken > 0 && !self.allowance.take(taken) {
            let message = format!("a form has at most {} KiB besides its file", MAX_BESIDES_BYTES / 1024);
            return Poll::Ready(Some(Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, message))));
        }
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use axum::body::Body;

    use super::*;

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())])
    }

    fn form(body: Body) -> Form {
        Form::new(&headers("multipart/form-data; boundary=XX"), Pieces::new(body)).unwrap()
    }

    /// A body that comes in pieces of `size` bytes.
    fn in_pieces(text: &str, size: usize) -> Body {
        let pieces: Vec<_> = text.as_bytes().chunks(size).map(|piece| Ok::<_, Error>(piece.to_vec())).collect();
        Body::from_stream(stream::iter(pieces))
    }

    async fn read(body: Body) -> Result<(Option<String>, String), u16> {
        let status = |error: Error| error.status().as_u16();
        let mut form = form(body);
        let mut file = form.file().await.map_err(status)?;
        let mut bytes = Vec::new();
        while let Some(piece) = file.next().await.map_err(status)? {
            bytes.extend(piece);
        }
        let media_type = file.media_type.clone();
        drop(file);
        form.end().await.map_err(status)?;
        Ok((media_type, String::from_utf8(bytes).unwrap()))
    }

    const FIELD: &str = "--XX\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n";
    const FILE: &str = "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.png\"\r\n\
                        Content-Type: image/png\r\n\r\n\r\n--X\r\n-XX\r\n";
    const OTHER: &str = "--XX\r\nContent-Disposition: form-data; name=\"g\"; filename=\"b\"\r\n\r\nother\r\n";

    #[tokio::test]
    async fn the_first_file_is_the_file_however_it_comes() {
        let text = format!("preamble\r\n{FIELD}{FILE}{OTHER}{FIELD}--XX--\r\nepilogue");
        for size in [1, 2, 3, 7, 50, 10_000] {
            let (media_type, bytes) = read(in_pieces(&text, size)).await.unwrap();
            assert_eq!((media_type.as_deref(), bytes.as_str()), (Some("image/png"), "\r\n--X\r\n-XX"), "{size}");
        }
        let empty = "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\"\r\n\r\n\r\n--XX--\r\n";
        assert_eq!(read(Body::from(empty)).await, Ok((None, String::new())));
    }

    #[tokio::test]
    async fn what_is_no_whole_form_is_refused() {
        for text in [
            String::new(),
            "--XX".into(),
            "--XX--\r\n".into(),
            format!("{FIELD}--XX--\r\n"),
            FILE.to_owned(),
            format!("{FILE}--XX"),
            format!("{FILE}--X"),
            FILE[..40].to_owned(),
            format!("--YY\r\n{}", &FILE[6..]),
        ] {
            assert_eq!(read(in_pieces(&text, 5)).await, Err(400), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_form_is_bounded_besides_its_file() {
        let much = "x".repeat(MAX_BESIDES_BYTES as usize + 200_000);
        let field = format!("--XX\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\n{much}\r\n");
        let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{much}\"; filename=\"a\"\r\n\r\n\r\n--XX--");
        for text in
            [format!("{much}{FILE}--XX--"), format!("{field}{FILE}--XX--"), head, format!("{FILE}{field}--XX--")]
        {
            assert_eq!(read(in_pieces(&text, 8192)).await, Err(413), "{}…", &text[..60]);
        }
        let fields = format!("{}{FILE}--XX--", FIELD.repeat(MAX_FIELDS));
        assert_eq!(read(Body::from(fields)).await, Err(400));
        for boundary in ["", &"b".repeat(MAX_BOUNDARY_BYTES + 1)] {
            let headers = headers(&format!("multipart/form-data; boundary={boundary}"));
            let refused = Form::new(&headers, Pieces::new(Body::empty())).err().expect("a refusal");
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        }
    }

    /// multer asks for as much as there is: it must not get it.
    #[tokio::test]
    async fn no_more_is_taken_than_is_asked_for() {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let begin = stream::iter([Ok::<_, Error>(Bytes::from(FILE.replace("\r\n--X\r\n-XX\r\n", "")))]);
        let endless = stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from(vec![b'x'; 16 * 1024]))
        });
        let mut form = form(Body::from_stream(futures_util::StreamExt::chain(begin, endless)));
        let mut file = form.file().await.unwrap();
        for round in 1..100 {
            assert!(file.next().await.unwrap().is_some());
            assert!(taken.load(Ordering::Relaxed) <= round + 2, "after {round} pieces {taken:?} were taken");
        }
    }

    #[test]
    fn forms_are_told_by_their_type() {
        assert!(is_form(&headers("Multipart/Form-Data; boundary=x")));
        for other in ["multipart/mixed; boundary=x", "application/json", "multipart/form-datax"] {
            assert!(!is_form(&headers(other)), "{other}");
        }
        assert!(!is_form(&HeaderMap::new()));
    }
}
