//! Which part of a file a request is for (RFC 9110, 14). Several parts in one request get the whole file, as the RFC
//! allows: no client of files depends on `multipart/byteranges`, and overlapping ranges are a way to make a server send
//! more than it has.

use std::ops::Range;

use http::HeaderMap;
use http::header::RANGE;

/// What is to be sent of so many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    Whole,
    Part(Range<u64>),
    /// 416: no byte of it is there.
    Unsatisfiable,
}

/// Reads the `Range` of a GET for a file of `length` bytes. What is not understood is as if it were not there.
pub(crate) fn requested(headers: &HeaderMap, length: u64) -> Requested {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Requested::Whole };
    let Some((unit, spec)) = value.to_str().ok().and_then(|value| value.split_once('=')) else {
        return Requested::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Requested::Whole;
    }
    match spec.trim().split_once('-').map(|(first, last)| (number(first), number(last))) {
        Some((Some(Some(first)), Some(last))) if last.is_none_or(|last| last >= first) => {
            let end = last.map_or(length, |last| last.saturating_add(1).min(length));
            if first < length { Requested::Part(first..end) } else { Requested::Unsatisfiable }
        }
        // The last so many bytes.
        Some((Some(None), Some(Some(0)))) => Requested::Unsatisfiable,
        Some((Some(None), Some(Some(_)))) if length == 0 => Requested::Whole,
        Some((Some(None), Some(Some(suffix)))) => Requested::Part(length.saturating_sub(suffix)..length),
        _ => Requested::Whole,
    }
}

/// A number, or that there is none; None: something else. What is beyond 64 bits is beyond every file.
fn number(text: &str) -> Option<Option<u64>> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(length: u64, lines: &[&str]) -> Requested {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(RANGE, line.parse().unwrap());
        }
        requested(&headers, length)
    }

    #[test]
    fn one_range_is_cut_to_what_is_there() {
        let table: [(&str, Range<u64>); 10] = [
            ("bytes=0-0", 0..1),
            ("bytes=0-", 0..1000),
            ("bytes=999-", 999..1000),
            ("bytes=10-19", 10..20),
            ("bytes=10-5000", 10..1000),
            ("bytes=10-99999999999999999999999", 10..1000),
            ("bytes=-1", 999..1000),
            ("bytes=-5000", 0..1000),
            ("bytes=-99999999999999999999999", 0..1000),
            ("Bytes= 10-19 ", 10..20),
        ];
        for (line, expected) in table {
            assert_eq!(of(1000, &[line]), Requested::Part(expected), "{line}");
        }
    }

    #[test]
    fn nothing_of_what_is_beyond_the_end() {
        for line in ["bytes=1000-", "bytes=1000-1001", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(of(1000, &[line]), Requested::Unsatisfiable, "{line}");
        }
        assert_eq!(of(0, &["bytes=0-"]), Requested::Unsatisfiable);
        assert_eq!(of(0, &["bytes=-1"]), Requested::Whole);
    }

    #[test]
    fn what_is_not_understood_gets_all() {
        for line in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=1--2",
            "items=0-1",
            "bytes=0-1,5-6",
            "bytes=0-1,",
        ] {
            assert_eq!(of(1000, &[line]), Requested::Whole, "{line}");
        }
        assert_eq!(of(1000, &["bytes=0-1", "bytes=5-6"]), Requested::Whole);
        assert_eq!(requested(&HeaderMap::new(), 1000), Requested::Whole);
    }
}
