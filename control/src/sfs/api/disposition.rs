//! `Content-Disposition` (RFC 6266): under which name a browser saves what it gets.

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::media::Treatment;

/// What stands for itself in `filename*`: `attr-char` of RFC 8187, 3.2.1.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The header of a file called `name`. Names that are not plain ASCII come twice: as near as ASCII gets for old
/// clients, which ignore `filename*`, and exactly for all others.
pub(crate) fn header(treatment: Treatment, name: &str) -> HeaderValue {
    let kind = match treatment {
        Treatment::Inline => "inline",
        Treatment::Attachment => "attachment",
    };
    let fallback: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let mut text = format!("{kind}; filename=\"{fallback}\"");
    if fallback != name {
        text += &format!("; filename*=UTF-8''{}", utf8_percent_encode(name, ENCODED));
    }
    // Nothing but printable ASCII is left.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

/// What every client reads alike between quotes: not `%`, which some decode, nor what has to be escaped.
fn is_plain(c: char) -> bool {
    (c == ' ' || c.is_ascii_graphic()) && !matches!(c, '"' | '\\' | '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(name: &str) -> String {
        header(Treatment::Attachment, name).to_str().unwrap().to_owned()
    }

    #[test]
    fn plain_names_are_said_once() {
        assert_eq!(attachment("a b-1.txt"), "attachment; filename=\"a b-1.txt\"");
        assert_eq!(header(Treatment::Inline, "x.png"), "inline; filename=\"x.png\"");
    }

    #[test]
    fn other_names_are_said_exactly_and_near() {
        assert_eq!(
            attachment("naïve plän.txt"),
            "attachment; filename=\"na_ve pl_n.txt\"; filename*=UTF-8''na%C3%AFve%20pl%C3%A4n.txt"
        );
        assert_eq!(
            attachment("100%25 \"q\" \\ (1);*'.txt"),
            "attachment; filename=\"100_25 _q_ _ (1);*'.txt\"; \
             filename*=UTF-8''100%2525%20%22q%22%20%5C%20%281%29%3B%2A%27.txt"
        );
        assert_eq!(attachment("📄"), "attachment; filename=\"_\"; filename*=UTF-8''%F0%9F%93%84");
    }

    /// Whatever a name holds, it stays one parameter of one header.
    #[test]
    fn no_name_says_more_than_itself() {
        for name in ["a\r\nSet-Cookie: x=1", "a\"; filename=\"evil.exe", "\0\u{7f}\u{85}", ""] {
            let text = attachment(name);
            let quoted = text.strip_prefix("attachment; filename=\"").unwrap().split('"').count();
            assert_eq!(quoted, 2, "{text}");
            assert!(text.bytes().all(|b| (b' '..0x7f).contains(&b)), "{text}");
        }
    }
}
