//! What a client says that the bytes add up to: `Content-Digest` and `Repr-Digest` (RFC 9530), `X-Checksum-Sha256`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::error::Error;
use crate::sfs::model::Checksum;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const X_CHECKSUM: HeaderName = HeaderName::from_static("x-checksum-sha256");
/// The one of RFC 9530's algorithms that is looked at.
const SHA_256: &str = "sha-256";

/// What of a request is the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// All of the body.
    File,
    /// A part of it: the digests of RFC 9530 are about the whole, and say nothing of the file.
    Form,
}

/// The SHA-256 that a request says its file has.
///
/// # Errors
/// One of the headers cannot be read, or two of them contradict each other: 400.
pub(crate) fn expected(headers: &HeaderMap, body: Body) -> Result<Option<Checksum>, Error> {
    let mut found: Option<(HeaderName, Checksum)> = None;
    let structured = if body == Body::File { &[CONTENT_DIGEST, REPR_DIGEST][..] } else { &[] };
    let mut told = Vec::new();
    for name in structured {
        told.push((name.clone(), in_dictionary(headers, name)?));
    }
    told.push((X_CHECKSUM, in_hex(headers)?));
    for (name, digest) in told {
        let Some(digest) = digest else { continue };
        match &found {
            Some((other, known)) if *known != digest => {
                return Err(Error::bad_request(format!("`{other}` and `{name}` name different digests")));
            }
            _ => found = Some((name, digest)),
        }
    }
    Ok(found.map(|(_, digest)| digest))
}

fn in_hex(headers: &HeaderMap) -> Result<Option<Checksum>, Error> {
    let Some(value) = headers.get(X_CHECKSUM) else { return Ok(None) };
    let digest = value.to_str().ok().and_then(|text| text.parse().ok());
    digest.map(Some).ok_or_else(|| Error::bad_request("`X-Checksum-Sha256` is not 64 hexadecimal digits"))
}

/// The member `sha-256` of a dictionary (RFC 9651, 3.2), whose values here are byte sequences. The last counts.
fn in_dictionary(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Checksum>, Error> {
    let wrong = || Error::bad_request(format!("`{name}`: write it as `sha-256=:<base64 of 32 bytes>:`"));
    let mut found = None;
    for value in headers.get_all(name) {
        // No byte sequence holds a comma.
        for member in value.to_str().map_err(|_| wrong())?.split(',') {
            let Some((key, value)) = member.split_once('=') else { continue };
            if key.trim() != SHA_256 {
                continue;
            }
            let bare = value.split(';').next().unwrap_or_default().trim();
            let encoded = bare.strip_prefix(':').and_then(|bare| bare.strip_suffix(':')).ok_or_else(wrong)?;
            let bytes = STANDARD.decode(encoded).map_err(|_| wrong())?;
            found = Some(Checksum(bytes.try_into().map_err(|_| wrong())?));
        }
    }
    Ok(found)
}

/// `Repr-Digest` of a file.
pub(crate) fn write(checksum: Checksum, headers: &mut HeaderMap) {
    let text = format!("{SHA_256}=:{}:", STANDARD.encode(checksum.0));
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(REPR_DIGEST, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const BASE64: &str = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=";

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn told(lines: &[(&'static str, &str)]) -> Result<Option<String>, u16> {
        let expected = expected(&map(lines), Body::File).map_err(|error| error.status().as_u16())?;
        Ok(expected.map(|digest| digest.to_string()))
    }

    #[test]
    fn each_header_names_the_digest() {
        let sequence = format!("sha-256=:{BASE64}:");
        for lines in [
            &[("content-digest", sequence.as_str())][..],
            &[("repr-digest", &format!("sha-512=:AAAA:, {sequence}"))],
            &[("repr-digest", "md5=:AAAA:"), ("repr-digest", &format!("{sequence};a=1"))],
            &[("x-checksum-sha256", HEX)],
            &[("x-checksum-sha256", &HEX.to_uppercase())],
            &[("content-digest", &sequence), ("repr-digest", &sequence), ("x-checksum-sha256", HEX)],
        ] {
            assert_eq!(told(lines), Ok(Some(HEX.to_owned())), "{lines:?}");
        }
        assert_eq!(told(&[]), Ok(None));
        assert_eq!(told(&[("content-digest", "sha-512=:AAAA:, unixsum=1")]), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_or_contradicts_is_refused() {
        for lines in [
            &[("content-digest", "sha-256=AAAA")][..],
            &[("content-digest", "sha-256=:AAAA:")],
            &[("content-digest", "sha-256=:no base64:")],
            &[("x-checksum-sha256", &HEX[1..])],
            &[("x-checksum-sha256", &HEX.replace('9', "x"))],
            &[("x-checksum-sha256", BASE64)],
            &[("x-checksum-sha256", HEX), ("repr-digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:")],
        ] {
            assert_eq!(told(lines), Err(400), "{lines:?}");
        }
    }

    #[test]
    fn the_digest_of_a_form_is_not_that_of_its_file() {
        let lines =
            [("content-digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"), ("x-checksum-sha256", HEX)];
        let digest = expected(&map(&lines), Body::Form).unwrap().unwrap();
        assert_eq!(digest.to_string(), HEX);
    }

    #[test]
    fn answers_say_it_in_the_same_form() {
        let mut headers = HeaderMap::new();
        write(HEX.parse().unwrap(), &mut headers);
        assert_eq!(headers[REPR_DIGEST], format!("sha-256=:{BASE64}:"));
        assert_eq!(expected(&headers, Body::File).unwrap().map(|digest| digest.to_string()).unwrap(), HEX);
    }
}
