//! Conditional requests (RFC 9110, 13): whether a request is still about the file that its sender knows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edd_events::clock::Micros;
use headers::{ETag, HeaderMapExt, IfMatch, IfModifiedSince, IfNoneMatch, IfRange, IfUnmodifiedSince};
use http::HeaderMap;
use http::header::IF_MATCH;

use crate::error::Error;
use crate::sfs::model::Checksum;

/// What tells one state of a file from every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Validators {
    checksum: Checksum,
    modified: SystemTime,
}

impl Validators {
    /// Of a file with this content; `modified_at` counts from 1970.
    pub(crate) fn new(checksum: Checksum, modified_at: Micros) -> Self {
        let since_1970 = Duration::from_micros(u64::try_from(modified_at).unwrap_or_default());
        Self { checksum, modified: UNIX_EPOCH + since_1970 }
    }

    /// Strong: equal bytes, and only those, have the same.
    ///
    /// # Errors
    /// None that can happen: hexadecimal digits are always a tag.
    pub(crate) fn etag(&self) -> Result<ETag, Error> {
        format!("\"{}\"", self.checksum).parse().map_err(Error::internal)
    }

    pub(crate) fn modified(&self) -> SystemTime {
        self.modified
    }
}

/// What becomes of a request by its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// 304: the sender has it already.
    NotModified,
    /// 412
    Failed,
}

/// Evaluates the conditions in the order of RFC 9110, 13.2.2, on what is there now. `is_read`: GET and HEAD.
pub(crate) fn evaluate(headers: &HeaderMap, is_read: bool, current: Option<&Validators>) -> Result<Verdict, Error> {
    let etag = current.map(Validators::etag).transpose()?;
    // A header that is there and says nothing that can be understood matches nothing.
    if headers.contains_key(IF_MATCH) {
        let wanted: Option<IfMatch> = headers.typed_get();
        let holds = |wanted: IfMatch| etag.as_ref().is_some_and(|etag| wanted.precondition_passes(etag));
        if !wanted.is_some_and(holds) {
            return Ok(Verdict::Failed);
        }
    } else if let Some(wanted) = headers.typed_get::<IfUnmodifiedSince>()
        && !current.is_some_and(|it| wanted.precondition_passes(it.modified))
    {
        return Ok(Verdict::Failed);
    }
    if let Some(known) = headers.typed_get::<IfNoneMatch>() {
        let is_known = etag.as_ref().is_some_and(|etag| !known.precondition_passes(etag));
        return Ok(match (is_known, is_read) {
            (false, _) => Verdict::Go,
            (true, true) => Verdict::NotModified,
            (true, false) => Verdict::Failed,
        });
    }
    let is_old = |since: IfModifiedSince| current.is_some_and(|it| !since.is_modified(it.modified));
    if is_read && headers.typed_get().is_some_and(is_old) {
        return Ok(Verdict::NotModified);
    }
    Ok(Verdict::Go)
}

/// Whether a `Range` counts: not if the sender has parts of another state of the file. A date in `If-Range` tells no
/// two writes of one second apart, so that only tags are taken.
pub(crate) fn range_counts(headers: &HeaderMap, current: &Validators) -> Result<bool, Error> {
    if !headers.contains_key(http::header::IF_RANGE) {
        return Ok(true);
    }
    let etag = current.etag()?;
    Ok(headers.typed_get::<IfRange>().is_some_and(|condition| !condition.is_modified(Some(&etag), None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"0101010101010101010101010101010101010101010101010101010101010101\"";

    fn current() -> Validators {
        // Sun, 06 Nov 1994 08:49:37.5 GMT
        Validators::new(Checksum([1; 32]), 784_111_777_500_000)
    }

    type Line<'v> = (&'static str, &'v str);

    fn map(lines: &[Line]) -> HeaderMap {
        lines.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn conditions_are_weighed_in_their_order() {
        let weak = format!("W/{TAG}");
        let several = format!("\"a\", {TAG}");
        let (at, before, after) =
            ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:38 GMT");
        use Verdict::{Failed, Go, NotModified};
        // The conditions, and what becomes of a read and of a write.
        let table: [(&[Line], Verdict, Verdict); 18] = [
            (&[], Go, Go),
            (&[("if-match", TAG)], Go, Go),
            (&[("if-match", "*")], Go, Go),
            (&[("if-match", &several)], Go, Go),
            (&[("if-match", &weak)], Failed, Failed),
            (&[("if-match", "\"other\"")], Failed, Failed),
            (&[("if-match", "nonsense")], Failed, Failed),
            (&[("if-none-match", TAG)], NotModified, Failed),
            (&[("if-none-match", &weak)], NotModified, Failed),
            (&[("if-none-match", "*")], NotModified, Failed),
            (&[("if-none-match", "\"other\"")], Go, Go),
            (&[("if-none-match", "\"other\""), ("if-modified-since", after)], Go, Go),
            (&[("if-modified-since", at)], NotModified, Go),
            (&[("if-modified-since", before)], Go, Go),
            (&[("if-unmodified-since", before)], Failed, Failed),
            (&[("if-unmodified-since", at)], Go, Go),
            (&[("if-match", TAG), ("if-unmodified-since", before)], Go, Go),
            (&[("if-match", TAG), ("if-none-match", TAG)], NotModified, Failed),
        ];
        for (lines, read, write) in table {
            let headers = map(lines);
            assert_eq!(evaluate(&headers, true, Some(&current())).unwrap(), read, "{lines:?}");
            assert_eq!(evaluate(&headers, false, Some(&current())).unwrap(), write, "{lines:?}");
        }
    }

    #[test]
    fn where_nothing_is_only_its_absence_can_be_asked_for() {
        let failed = |lines: &[Line]| evaluate(&map(lines), false, None).unwrap() == Verdict::Failed;
        assert!(failed(&[("if-match", "*")]) && failed(&[("if-match", TAG)]));
        assert!(failed(&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")]));
        assert!(!failed(&[("if-none-match", "*")]) && !failed(&[("if-none-match", TAG)]) && !failed(&[]));
    }

    #[test]
    fn ranges_count_for_the_state_that_their_sender_has() {
        let counts = |value: &str| range_counts(&map(&[("if-range", value)]), &current()).unwrap();
        assert!(range_counts(&HeaderMap::new(), &current()).unwrap());
        assert!(counts(TAG));
        for other in [format!("W/{TAG}"), "\"other\"".into(), "Sun, 06 Nov 1994 08:49:37 GMT".into(), "x".into()] {
            assert!(!counts(&other), "{other}");
        }
    }
}
