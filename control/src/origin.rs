//! Web origins (RFC 6454): scheme, host and port, which is what a browser keeps apart.

use std::fmt;
use std::str::FromStr;

use http::uri::Authority;

/// A scheme that browsers send requests by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL need not name.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl FromStr for Scheme {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        [Self::Http, Self::Https].into_iter().find(|it| text.eq_ignore_ascii_case(it.as_str())).ok_or(InvalidOrigin)
    }
}

/// Text that is no origin: also `null`, which sandboxed pages and files send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an origin: write http://host or https://host:port")]
pub struct InvalidOrigin;

/// An origin in one spelling, so that equality is sameness.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
}

impl Origin {
    /// The origin of `scheme` and what a `Host` header says.
    ///
    /// # Errors
    /// `authority` is none, or has a user in it.
    pub fn new(scheme: Scheme, authority: &str) -> Result<Self, InvalidOrigin> {
        let parsed: Authority = authority.parse().map_err(|_| InvalidOrigin)?;
        // `Authority` lets a user before the host and anything for a port pass.
        let port = authority.strip_prefix(parsed.host()).ok_or(InvalidOrigin)?;
        let port = match port.strip_prefix(':').unwrap_or(port) {
            "" => scheme.default_port(),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| InvalidOrigin)?,
            _ => return Err(InvalidOrigin),
        };
        let host = parsed.host().strip_suffix('.').unwrap_or(parsed.host()).to_ascii_lowercase();
        if host.is_empty() {
            return Err(InvalidOrigin);
        }
        Ok(Self { scheme, host: host.into(), port })
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// In lower case, without port; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Reads an `Origin` header.
impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, authority) = text.split_once("://").ok_or(InvalidOrigin)?;
        Self::new(scheme.parse()?, authority)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_origin_has_one_spelling() {
        let cases = [
            ("https://cloud.example.org", "https://cloud.example.org"),
            ("HTTPS://Cloud.Example.ORG.:443", "https://cloud.example.org"),
            ("https://cloud.example.org:", "https://cloud.example.org"),
            ("http://cloud.localhost:8080", "http://cloud.localhost:8080"),
            ("http://cloud.localhost:443", "http://cloud.localhost:443"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ];
        for (text, expected) in cases {
            let origin: Origin = text.parse().unwrap();
            assert_eq!(origin.to_string(), expected);
            assert_eq!(expected.parse(), Ok(origin));
        }
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        assert_ne!(origin("http://a"), origin("https://a"));
        assert_ne!(origin("http://a"), origin("http://a:443"));
        assert_ne!(origin("http://a"), origin("http://b.a"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "null",
            "cloud",
            "ftp://cloud",
            "file://",
            "http://",
            "http://:80",
            "http://.",
            "http://a:b",
            "http://a:65536",
            "http://a:+80",
            "http://a/",
            "http://a?b",
            "http://u@a",
            "http://a, http://b",
            "http://a b",
            "http://\u{e9}",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin), "{text:?}");
        }
    }
}
