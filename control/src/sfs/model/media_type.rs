//! What a file says it is.

use super::{FilePath, Invalid};

/// A media type (RFC 9110, 8.3.1), perhaps with parameters, fit for a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(String);

impl MediaType {
    /// Longest one that is kept.
    const MAX_BYTES: usize = 127;
    /// Of what nothing is known.
    const UNKNOWN: &str = "application/octet-stream";

    /// What the name of a file says about it.
    pub fn of_name(path: &FilePath) -> Self {
        let guess = mime_guess::from_path(path.name()).first_raw();
        Self(guess.unwrap_or(Self::UNKNOWN).to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for MediaType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let essence = text.split(';').next().unwrap_or_default().trim_end();
        let is_token = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !part.is_empty() && part.bytes().all(allowed)
        };
        let is_essence = essence.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
        let is_visible = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if is_essence && is_visible && text.len() <= Self::MAX_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            let most = Self::MAX_BYTES;
            Err(Invalid::new("content-type", format!("a media type such as text/plain, of at most {most} bytes")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_fit_for_a_header() {
        for text in ["text/plain", "text/html; charset=utf-8", "application/vnd.x+json", " image/png "] {
            assert_eq!(text.parse::<MediaType>().expect("a type").as_str(), text.trim());
        }
        let too_long = format!("text/{}", "x".repeat(123));
        for text in ["", "text", "/", "text/", "a b/c", "text/plain\r\nx: y", "text/plain; é", "a/b/c", &too_long] {
            assert!(text.parse::<MediaType>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_tells_what_a_file_is() {
        for (name, told) in [("a/b.png", "image/png"), ("b.tar.gz", "application/gzip"), ("x", MediaType::UNKNOWN)] {
            assert_eq!(MediaType::of_name(&name.parse().expect("a path")).as_str(), told);
        }
    }
}
