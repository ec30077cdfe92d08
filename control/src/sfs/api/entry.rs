//! A file or a folder as it is shown.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde::Serialize;

use super::NEXT_CURSOR;
use crate::error::Error;
use crate::moment::rfc3339;
use crate::sfs::model::FilePath;

#[derive(Debug, Serialize)]
pub(super) struct Entry {
    name: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    size: u64,
    is_folder: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    created_at: String,
    modified_at: String,
}

impl Entry {
    pub(super) fn of(entry: &crate::sfs::model::Entry, namespace: &str) -> Result<Self, Error> {
        Ok(Self { namespace: Some(namespace.to_owned()), ..Self::below(entry, entry.path.as_str())? })
    }

    /// As who has a link sees it: `path` is below what the link leads to.
    pub(super) fn below(entry: &crate::sfs::model::Entry, path: &str) -> Result<Self, Error> {
        Ok(Self {
            name: entry.path.name().to_owned(),
            path: path.to_owned(),
            namespace: None,
            size: entry.size(),
            is_folder: entry.is_folder(),
            media_type: entry.file.as_ref().map(|file| file.media_type.as_str().to_owned()),
            sha256: entry.file.as_ref().map(|file| file.checksum.to_string()),
            created_at: rfc3339(entry.created_at)?,
            modified_at: rfc3339(entry.modified_at)?,
        })
    }
}

/// Where a page ended, as a header: the path of its last entry, in an alphabet that no client encodes once more.
pub(super) fn cursor(last: Option<&FilePath>) -> Result<Option<[(&'static str, HeaderValue); 1]>, Error> {
    let text = last.map(|path| URL_SAFE_NO_PAD.encode(path.as_str()));
    let value = text.map(|text| HeaderValue::from_str(&text)).transpose().map_err(Error::internal)?;
    Ok(value.map(|value| [(NEXT_CURSOR, value)]))
}

/// Where the page before ended.
pub(super) fn after(cursor: Option<&str>) -> Result<Option<FilePath>, Error> {
    let Some(cursor) = cursor else { return Ok(None) };
    let path = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let path = path.and_then(|path| path.parse().ok());
    path.map(Some).ok_or_else(|| Error::bad_request("cursor: send what `X-Next-Cursor` said"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        for path in ["a", "ü/100% sure?&=#.txt", "%41"] {
            let path: FilePath = path.parse().unwrap();
            let [(_, value)] = cursor(Some(&path)).unwrap().unwrap();
            let text = value.to_str().unwrap();
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{text}");
            assert_eq!(after(Some(text)).unwrap().as_ref(), Some(&path));
        }
        assert_eq!(cursor(None).unwrap(), None);
        for cursor in ["", "%", "_w", "Li4", "YS8vYg"] {
            assert!(after(Some(cursor)).is_err(), "{cursor}");
        }
    }
}
