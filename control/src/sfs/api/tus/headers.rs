//! The headers of tus 1.0.0 (<https://tus.io/protocols/resumable-upload>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::error::Error;

/// The one version that is spoken.
pub(super) const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
pub(super) const EXTENSIONS: HeaderValue =
    HeaderValue::from_static("creation,creation-with-upload,termination,checksum,expiration");
pub(super) const ALGORITHMS: HeaderValue = HeaderValue::from_static("sha1,sha256");
/// What a PATCH must be.
pub(super) const CHUNK_TYPE: &str = "application/offset+octet-stream";

pub(super) const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
pub(super) const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
pub(super) const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
pub(super) const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
pub(super) const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub(super) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
pub(super) const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");

/// Longest `Upload-Metadata`, bytes, and most pairs in it.
const MAX_METADATA_BYTES: usize = 8 * 1024;
const MAX_PAIRS: usize = 32;

/// What the bytes of one request add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksum {
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

/// What is told of a file when its upload is created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) namespace: Option<String>,
    /// Where the file goes: `path`, or else `filename` or `name`.
    pub(super) path: Option<String>,
    pub(super) media_type: Option<String>,
    pub(super) overwrite: bool,
}

/// The value of a header that there is at most one of.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| wrong(name, "it is no text")),
        (Some(_), Some(_)) => Err(wrong(name, "it is there more than once")),
    }
}

fn wrong(name: &HeaderName, why: &str) -> Error {
    Error::bad_request(format!("`{name}`: {why}"))
}

/// Refuses another version than ours, with 412.
pub(super) fn check_version(headers: &HeaderMap) -> Result<(), Error> {
    match single(headers, &TUS_RESUMABLE)? {
        Some(version) if version == VERSION => Ok(()),
        _ => Err(Error::new(StatusCode::PRECONDITION_FAILED, "send `Tus-Resumable: 1.0.0`, the one version here")),
    }
}

fn bytes(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Error> {
    let Some(text) = single(headers, name)? else { return Ok(None) };
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    // Sizes are BIGINT in the database.
    number.filter(|it| i64::try_from(*it).is_ok()).map(Some).ok_or_else(|| wrong(name, "it is no number of bytes"))
}

/// How long the file will be.
pub(super) fn length(headers: &HeaderMap) -> Result<u64, Error> {
    if headers.contains_key(UPLOAD_DEFER_LENGTH) {
        let message = "`Upload-Defer-Length` is not supported: send `Upload-Length`, which the quota is checked by";
        return Err(Error::bad_request(message));
    }
    bytes(headers, &UPLOAD_LENGTH)?.ok_or_else(|| Error::bad_request("`Upload-Length` is missing"))
}

/// Where a PATCH goes on.
pub(super) fn offset(headers: &HeaderMap) -> Result<u64, Error> {
    bytes(headers, &UPLOAD_OFFSET)?.ok_or_else(|| Error::bad_request("`Upload-Offset` is missing"))
}

/// Reads `Upload-Checksum`.
pub(super) fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Error> {
    let Some(text) = single(headers, &UPLOAD_CHECKSUM)? else { return Ok(None) };
    let (algorithm, encoded) = text.split_once(' ').ok_or_else(|| wrong(&UPLOAD_CHECKSUM, "`<algorithm> <base64>`"))?;
    let not = |what| move || wrong(&UPLOAD_CHECKSUM, what);
    let bytes = STANDARD.decode(encoded).map_err(|_| not("what follows the algorithm is no base64")())?;
    let checksum = match algorithm {
        "sha1" => bytes.try_into().ok().map(Checksum::Sha1),
        "sha256" => bytes.try_into().ok().map(Checksum::Sha256),
        _ => return Err(not("the algorithms here are sha1 and sha256")()),
    };
    checksum.map(Some).ok_or_else(not("the checksum has not as many bytes as the algorithm gives"))
}

/// Reads `Upload-Metadata`; keys that mean nothing here are skipped.
pub(super) fn metadata(headers: &HeaderMap) -> Result<Metadata, Error> {
    let Some(text) = single(headers, &UPLOAD_METADATA)? else { return Ok(Metadata::default()) };
    if text.len() > MAX_METADATA_BYTES || text.split(',').count() > MAX_PAIRS {
        let message = format!("at most {MAX_PAIRS} pairs in {MAX_METADATA_BYTES} bytes");
        return Err(wrong(&UPLOAD_METADATA, &message));
    }
    let (mut found, mut name, mut seen) = (Metadata::default(), None, Vec::new());
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, encoded) = pair.split_once(' ').unwrap_or((pair, ""));
        if seen.contains(&key) {
            return Err(wrong(&UPLOAD_METADATA, "a key is there more than once"));
        }
        seen.push(key);
        if !matches!(key, "namespace" | "path" | "filename" | "name" | "filetype" | "type" | "overwrite") {
            continue;
        }
        let bytes = STANDARD.decode(encoded.trim()).map_err(|_| wrong(&UPLOAD_METADATA, "a value is no base64"))?;
        let value = String::from_utf8(bytes).map_err(|_| wrong(&UPLOAD_METADATA, "a value is no UTF-8"))?;
        match key {
            "namespace" => found.namespace = Some(value),
            "path" => found.path = Some(value),
            "filename" => name = Some(value),
            "name" => name = name.or(Some(value)),
            "overwrite" => found.overwrite = matches!(value.as_str(), "" | "true" | "1"),
            _ => found.media_type = found.media_type.or(Some(value)).filter(|value| !value.is_empty()),
        }
    }
    found.path = found.path.filter(|path| !path.is_empty()).or(name);
    Ok(found)
}

/// As `Upload-Metadata` says it back.
pub(super) fn write_metadata(pairs: &[(&str, &str)]) -> Option<HeaderValue> {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} {}", STANDARD.encode(value))).collect();
    HeaderValue::from_str(&pairs.join(",")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn status<T>(result: Result<T, Error>) -> u16 {
        result.map(drop).expect_err("a refusal").status().as_u16()
    }

    #[test]
    fn the_one_version() {
        assert!(check_version(&map(&[("tus-resumable", "1.0.0")])).is_ok());
        for lines in [&[][..], &[("tus-resumable", "0.2.2")], &[("tus-resumable", "")]] {
            assert_eq!(status(check_version(&map(lines))), 412, "{lines:?}");
        }
    }

    #[test]
    fn lengths_are_whole_numbers_that_a_file_may_have() {
        assert_eq!(length(&map(&[("upload-length", "0")])).unwrap(), 0);
        assert_eq!(length(&map(&[("upload-length", "9223372036854775807")])).unwrap(), i64::MAX as u64);
        for value in ["", "-1", "+1", "1.5", "9223372036854775808", "99999999999999999999", "0x10", " 1"] {
            assert_eq!(status(length(&map(&[("upload-length", value)]))), 400, "{value:?}");
            assert_eq!(status(offset(&map(&[("upload-offset", value)]))), 400, "{value:?}");
        }
        assert_eq!(status(length(&map(&[("upload-length", "1"), ("upload-length", "2")]))), 400);
        assert_eq!(status(length(&map(&[("upload-defer-length", "1")]))), 400);
        assert_eq!(status(length(&HeaderMap::new())), 400);
    }

    #[test]
    fn checksums_have_the_size_of_their_algorithm() {
        let read = |value: &str| checksum(&map(&[("upload-checksum", value)]));
        // Of `hello world`, as in the protocol's own example.
        let sha1 = read("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").unwrap().unwrap();
        assert!(matches!(sha1, Checksum::Sha1([0x2a, 0xae, ..])), "{sha1:?}");
        let sha256 = read("sha256 uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=").unwrap().unwrap();
        assert!(matches!(sha256, Checksum::Sha256([0xb9, ..])), "{sha256:?}");
        assert_eq!(checksum(&HeaderMap::new()).unwrap(), None);
        for value in ["", "sha1", "sha1 !", "sha1 AAAA", "md5 AAAA", "sha256 Kq5sNclPz7QV2+lfQIuc6R7oRu0="] {
            assert_eq!(status(read(value)), 400, "{value:?}");
        }
    }

    #[test]
    fn metadata_says_where_the_file_goes() {
        let read = |value: &str| metadata(&map(&[("upload-metadata", value)]));
        // media, holidays/1.png, 1.png, image/png, true
        let all =
            "namespace bWVkaWE=,path aG9saWRheXMvMS5wbmc=,filename MS5wbmc=,filetype aW1hZ2UvcG5n,overwrite dHJ1ZQ==";
        let expected = Metadata {
            namespace: Some("media".into()),
            path: Some("holidays/1.png".into()),
            media_type: Some("image/png".into()),
            overwrite: true,
        };
        assert_eq!(read(all).unwrap(), expected);
        assert_eq!(read("filename MS5wbmc=, is_confidential").unwrap().path.unwrap(), "1.png");
        assert_eq!(read("name MS5wbmc=").unwrap().path.unwrap(), "1.png", "as Uppy says it");
        assert!(!read("overwrite ZmFsc2U=").unwrap().overwrite, "false");
        assert_eq!(metadata(&HeaderMap::new()).unwrap(), Metadata::default());
        for value in [
            "filename !",
            "filename /w==",
            "filename MS5wbmc=,filename MS5wbmc=",
            &vec!["a AA=="; 33].join(","),
            &format!("filename {}", "A".repeat(MAX_METADATA_BYTES)),
        ] {
            assert_eq!(status(read(value)), 400, "{value:?}");
        }
        let back = write_metadata(&[("namespace", "media"), ("filename", "ü")]).unwrap();
        assert_eq!(read(back.to_str().unwrap()).unwrap().path.unwrap(), "ü");
    }
}
