//! Request paths in the one form that is matched, stripped and sent upstream.
//!
//! A prefix that guards something must not be slipped past by another spelling of the same path,
//! so matching and forwarding use the same normalized text (RFC 3986 §6.2.2): what was matched is
//! what the upstream sees.

use std::borrow::Cow;

/// Longest path accepted, in bytes.
pub const MAX_PATH_BYTES: usize = 16 * 1024;

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    NotAbsolute,
    TooLong,
    /// `%` without two hex digits.
    BadEncoding,
    /// A byte that may not stand in a path: a control character, a space, non-ASCII, or `\ < > " ^ | { }` among them.
    BadByte,
    /// An encoded NUL or other control character.
    EncodedControl,
    /// Dot segments that reach above the root.
    AboveRoot,
    /// Dot segments that only show once encoded slashes or backslashes are decoded.
    HiddenDots,
}

impl PathError {
    /// What is wrong, for people.
    pub fn explain(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path must begin with a slash",
            Self::TooLong => "the path is longer than 16 KiB",
            Self::BadEncoding => "a % in the path is not followed by two hex digits",
            Self::BadByte => "the path holds a byte that must be percent-encoded",
            Self::EncodedControl => "the path holds an encoded control character",
            Self::AboveRoot => "the path's dot segments lead above the root",
            Self::HiddenDots => "the path hides dot segments behind encoded slashes or backslashes",
        }
    }
}

/// Bytes that stand for themselves in a normalized path.
pub const fn is_path_byte(byte: u8) -> bool {
    // `|`, `^`, `[`, `]`, `{`, `}` are outside RFC 3986's pchar, but browsers send them bare.
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
        || matches!(byte, b'|' | b'^' | b'[' | b']' | b'{' | b'}' | b'`')
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|d| d as u8)
}

/// Brings `path` (no query) into the compared form, without allocating when it is in it already.
///
/// Unreserved characters are decoded, other escapes get upper-case hex, dot segments are resolved.
/// An encoded slash stays data inside its segment.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    if bytes.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    let mut plain = true;
    let mut before = 0u8;
    for &byte in bytes {
        if !is_path_byte(byte) {
            if byte != b'%' {
                return Err(PathError::BadByte);
            }
            plain = false;
        }
        // A dot behind a slash may begin a dot segment; the slow path decides.
        if byte == b'.' && before == b'/' {
            plain = false;
        }
        before = byte;
    }
    if plain {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(bytes)?;
    if hides_dots(&decoded) {
        return Err(PathError::HiddenDots);
    }
    let resolved = resolve_dots(&decoded)?;
    Ok(if resolved == path { Cow::Borrowed(path) } else { Cow::Owned(resolved) })
}

fn decode_unreserved(bytes: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            out.push(byte as char);
            continue;
        }
        let (Some(high), Some(low)) = (rest.next().copied().and_then(hex), rest.next().copied().and_then(hex)) else {
            return Err(PathError::BadEncoding);
        };
        let value = high << 4 | low;
        if value < 0x20 || value == 0x7f {
            return Err(PathError::EncodedControl);
        }
        if is_unreserved(value) {
            out.push(value as char);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(DIGITS[usize::from(high)] as char);
            out.push(DIGITS[usize::from(low)] as char);
        }
    }
    Ok(out)
}

/// Whether an upstream that decodes `%2F` or `%5C`, or cuts `;parameters` off, would see dot segments
/// that [`resolve_dots`] does not.
fn hides_dots(path: &str) -> bool {
    path.split('/').any(|segment| {
        let has_separator = segment.contains("%2F") || segment.contains("%5C");
        let dots = |piece: &str| matches!(piece.split(';').next(), Some("." | "..")) && piece != "." && piece != "..";
        if !has_separator {
            return dots(segment);
        }
        segment.replace("%5C", "%2F").split("%2F").any(|piece| matches!(piece.split(';').next(), Some("." | "..")))
    })
}

/// RFC 3986 §5.2.4, but a `..` at the root is an error: only an attack or a mistake writes one.
fn resolve_dots(path: &str) -> Result<String, PathError> {
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {
                if last {
                    out.push("");
                }
            }
            ".." => {
                if out.pop().is_none() {
                    return Err(PathError::AboveRoot);
                }
                if last {
                    out.push("");
                }
            }
            _ => out.push(segment),
        }
    }
    let mut path = String::with_capacity(path.len());
    for segment in out {
        path.push('/');
        path.push_str(segment);
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(path: &str, want: Result<&str, PathError>) {
        assert_eq!(normalize(path).as_deref().map_err(|e| *e), want, "{path}");
    }

    #[test]
    fn leaves_plain_paths_alone() {
        for path in [
            "/",
            "/a",
            "/a/b/",
            "/a//b",
            "/@scope/name",
            "/a;b=1/c",
            "/x.y/..z/z..",
            "/%7B",
            "/a%2Fb",
            "/.well-known/x",
            "/...",
        ] {
            check(path, Ok(path));
            assert!(matches!(normalize(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    #[test]
    fn brings_spellings_together() {
        check("/%61dmin", Ok("/admin"));
        check("/%41%2d%5F", Ok("/A-_"));
        check("/a%2fb", Ok("/a%2Fb"));
        check("/a/./b", Ok("/a/b"));
        check("/a/../b", Ok("/b"));
        check("/a/%2e%2E/b", Ok("/b"));
        check("/a/b/..", Ok("/a/"));
        check("/a/.", Ok("/a/"));
        check("/a/..", Ok("/"));
    }

    #[test]
    fn refuses_what_upstreams_read_differently() {
        check("a", Err(PathError::NotAbsolute));
        check("", Err(PathError::NotAbsolute));
        check("*", Err(PathError::NotAbsolute));
        check("/..", Err(PathError::AboveRoot));
        check("/a/../../b", Err(PathError::AboveRoot));
        check("/%2e%2e/b", Err(PathError::AboveRoot));
        check("/a/..%2fb", Err(PathError::HiddenDots));
        check("/a/%2e%2e%5cb", Err(PathError::HiddenDots));
        check("/a%2f..", Err(PathError::HiddenDots));
        check("/a/..;/b", Err(PathError::HiddenDots));
        check("/a/..;x=1%2fb", Err(PathError::HiddenDots));
        check("/a\\..\\b", Err(PathError::BadByte));
        check("/%", Err(PathError::BadEncoding));
        check("/%4", Err(PathError::BadEncoding));
        check("/%zz", Err(PathError::BadEncoding));
        check("/%00", Err(PathError::EncodedControl));
        check("/%0d%0a", Err(PathError::EncodedControl));
        check("/a b", Err(PathError::BadByte));
        check("/ä", Err(PathError::BadByte));
    }

    proptest! {
        #[test]
        fn is_idempotent_and_leaves_no_dot_segment(path in "/[a.%25eE2fF/;]{0,24}") {
            if let Ok(once) = normalize(&path) {
                prop_assert!(once.starts_with('/'));
                prop_assert!(!once.split('/').any(|s| s == "." || s == ".."), "{once}");
                let again = normalize(&once).map(Cow::into_owned);
                prop_assert_eq!(again, Ok(once.into_owned()));
            }
        }

        #[test]
        fn never_panics(path in "\\PC{0,40}") {
            let _ = normalize(&path);
        }
    }
}
