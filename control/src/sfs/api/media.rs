//! What a browser may make of a file. The share serves under the dashboard's origin too, so that nothing that somebody
//! uploaded may ever run there.
//!
//! Three things hold whatever a file says that it is: browsers do not guess (`nosniff`), only types that cannot run
//! anything are shown, and whatever is shown all the same is in a sandbox of no origin.

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue};

use crate::sfs::model::{FilePath, MediaType};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");
const OCTET_STREAM: &str = "application/octet-stream";
/// Longest media type that is served as it was declared, bytes.
const MAX_TYPE_BYTES: usize = 128;

/// Shown by browsers without running anything of it.
const PASSIVE: [&str; 29] = [
    "application/pdf",
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/opus",
    "audio/wav",
    "audio/wave",
    "audio/webm",
    "audio/x-flac",
    "audio/x-m4a",
    "audio/x-wav",
    "image/apng",
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/vnd.microsoft.icon",
    "image/webp",
    "image/x-icon",
    "text/plain",
    "video/mp4",
    "video/mpeg",
    "video/ogg",
    "video/quicktime",
    "video/webm",
    "video/x-matroska",
];

/// What a page takes in as its own code if it is told to: never served as such, because a page of the dashboard that
/// somebody could add a tag to would run it.
const TAKEN_IN: [&str; 8] = [
    "application/ecmascript",
    "application/javascript",
    "application/wasm",
    "application/x-javascript",
    "text/css",
    "text/ecmascript",
    "text/javascript",
    "text/x-javascript",
];

/// The sandbox, and what the browser's own pages around an image, a song or a film need.
const SANDBOX: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'",
);
/// Browsers do not show PDF in a sandbox; their viewers keep its scripts to themselves.
const PDF: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; object-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'",
);

/// Whether a browser shows a file or saves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    Inline,
    Attachment,
}

/// Who may embed a file in pages of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Embedding {
    /// It was given for somebody's cookie or token.
    SameOrigin,
    /// Whoever asks gets it anyway.
    Anywhere,
}

/// The media type as it is served, and what a browser does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) treatment: Treatment,
    media_type: HeaderValue,
    policy: HeaderValue,
}

impl Served {
    /// How a file is served that is said to be of the type `declared`.
    pub(crate) fn of(declared: &str) -> Self {
        let unknown = || (HeaderValue::from_static(OCTET_STREAM), OCTET_STREAM.to_owned());
        let (media_type, essence) = readable(declared).unwrap_or_else(unknown);
        if TAKEN_IN.contains(&essence.as_str()) {
            return Self { treatment: Treatment::Attachment, media_type: unknown().0, policy: SANDBOX };
        }
        let is_passive = PASSIVE.contains(&essence.as_str());
        let treatment = if is_passive { Treatment::Inline } else { Treatment::Attachment };
        let policy = if essence == "application/pdf" { PDF } else { SANDBOX };
        Self { treatment, media_type, policy }
    }

    /// Says it in an answer's headers.
    pub(crate) fn write(&self, embedding: Embedding, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, self.media_type.clone());
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        let policy = match embedding {
            Embedding::SameOrigin => "same-origin",
            Embedding::Anywhere => "cross-origin",
        };
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static(policy));
    }
}

/// A declared type as a header, and its essence in lower case; none if it is no media type (RFC 9110, 8.3.1).
fn readable(declared: &str) -> Option<(HeaderValue, String)> {
    let essence = declared.split(';').next()?.trim().to_ascii_lowercase();
    let is_token = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !part.is_empty() && part.bytes().all(allowed)
    };
    let (kind, subtype) = essence.split_once('/')?;
    // A comma would make two headers of it, of which a browser may believe the second.
    let is_one = declared.len() <= MAX_TYPE_BYTES && !declared.contains(',') && is_token(kind) && is_token(subtype);
    let text = match essence.as_str() {
        // Else old browsers guess what the bytes of a text mean.
        "text/plain" if !declared.to_ascii_lowercase().contains("charset") => "text/plain; charset=utf-8",
        _ => declared,
    };
    let value = is_one.then(|| HeaderValue::from_str(text).ok()).flatten()?;
    Some((value, essence))
}

/// The type that an uploader means: what they declare, unless that is what clients send who know nothing of types.
/// Otherwise it goes by the name.
pub(crate) fn meant(declared: Option<&str>, path: &FilePath) -> MediaType {
    let vague = ["", OCTET_STREAM, "application/x-www-form-urlencoded", "binary/octet-stream"];
    let is_vague = |text: &&str| {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        vague.contains(&essence.as_str())
    };
    let declared = declared.filter(|text| !is_vague(text)).and_then(|text| text.parse().ok());
    declared.unwrap_or_else(|| MediaType::of_name(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(declared: &str) -> (Treatment, HeaderMap) {
        let served = Served::of(declared);
        let mut headers = HeaderMap::new();
        served.write(Embedding::SameOrigin, &mut headers);
        (served.treatment, headers)
    }

    #[test]
    fn nothing_that_can_run_is_shown() {
        for declared in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            " text/html ",
            "application/xhtml+xml",
            "image/svg+xml",
            "text/xml",
            "application/xml",
            "application/rdf+xml",
            "text/javascript",
            "application/javascript",
            "application/octet-stream",
            "multipart/x-mixed-replace; boundary=a",
            "message/rfc822",
            "text/plain, text/html",
            "text/plain/html",
            "text/",
            "text",
            "",
            "image/png\u{0}",
            "image/p ng",
            &format!("image/png;{}", "x".repeat(200)),
        ] {
            let (treatment, headers) = headers(declared);
            assert_eq!(treatment, Treatment::Attachment, "{declared:?}");
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("sandbox; default-src 'none'"), "{declared:?}: {policy}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(headers[CROSS_ORIGIN_RESOURCE_POLICY], "same-origin");
        }
    }

    #[test]
    fn scripts_and_styles_are_no_code_of_a_page() {
        for declared in TAKEN_IN {
            assert_eq!(headers(declared).1[CONTENT_TYPE], OCTET_STREAM, "{declared}");
            assert_eq!(headers(&declared.to_uppercase()).1[CONTENT_TYPE], OCTET_STREAM, "{declared}");
        }
        assert_eq!(headers("text/javascript; charset=utf-8").1[CONTENT_TYPE], OCTET_STREAM);
    }

    #[test]
    fn images_songs_films_texts_and_pdf_are_shown() {
        for declared in PASSIVE {
            let (treatment, headers) = headers(declared);
            assert_eq!(treatment, Treatment::Inline, "{declared}");
            assert!(!headers[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("script-src"), "{declared}");
            assert!(headers[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'"), "{declared}");
        }
        assert_eq!(headers("text/plain").1[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(headers("text/plain; charset=latin1").1[CONTENT_TYPE], "text/plain; charset=latin1");
        assert_eq!(headers("text/html").1[CONTENT_TYPE], "text/html");
    }

    #[test]
    fn a_type_is_what_is_declared_or_what_the_name_says() {
        let meant = |declared, name: &str| super::meant(declared, &name.parse().unwrap()).as_str().to_owned();
        assert_eq!(meant(Some("text/csv"), "a.png"), "text/csv");
        for vague in [None, Some(""), Some("application/octet-stream"), Some("APPLICATION/X-WWW-FORM-URLENCODED; a=b")]
        {
            assert_eq!(meant(vague, "a.png"), "image/png", "{vague:?}");
        }
        assert_eq!(meant(Some("no type"), "a.PNG"), "image/png");
        assert_eq!(meant(None, "README"), "application/octet-stream");
    }
}
