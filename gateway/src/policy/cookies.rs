//! Cookies that HTTP/2 sends in pieces.

use http::{HeaderMap, HeaderValue, header};

use crate::decision::{HeaderOp, HeaderOps};

/// Puts several Cookie fields into one: HTTP/2 clients split them to compress them better, and few
/// servers read more than the first (RFC 9113 §8.2.3).
pub fn join(headers: &HeaderMap, ops: &mut HeaderOps) {
    let mut fields = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (fields.next(), fields.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for field in std::iter::once(second).chain(fields) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(field.as_bytes());
    }
    // Joined valid values are a valid value.
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        ops.push(HeaderOp::Set(header::COOKIE, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(fields: &[&'static str]) -> HeaderOps {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::COOKIE, HeaderValue::from_static(field));
        }
        let mut ops = HeaderOps::new();
        join(&headers, &mut ops);
        ops
    }

    #[test]
    fn pieces_become_one_field() {
        assert!(joined(&[]).is_empty());
        assert!(joined(&["a=1; b=2"]).is_empty());
        let value = HeaderValue::from_static("a=1; b=2; c=3");
        assert_eq!(joined(&["a=1", "b=2; c=3"]), [HeaderOp::Set(header::COOKIE, value)]);
    }
}
