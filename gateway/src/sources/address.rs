//! The words that name places: hosts, paths, targets, and where a redirect leads.

use schemars::JsonSchema;

use super::scalar::{Refusal, Scalar, schemas};
use crate::route::{Authority, HostName, HostPattern, PathPrefix, RouteError};

impl Scalar for HostPattern {
    const WANTED: &'static str = "a host name";

    fn parse(text: &str) -> Result<Self, Refusal> {
        Self::parse(text).map_err(|error| Refusal::new(error.to_string(), host_hint(text)))
    }
}

impl Scalar for HostName {
    const WANTED: &'static str = "a host name";

    fn parse(text: &str) -> Result<Self, Refusal> {
        Self::parse(text).map_err(|error| Refusal::new(error.to_string(), host_hint(text)))
    }
}

fn host_hint(text: &str) -> String {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return format!("write the host alone: `{host}`");
    }
    match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            format!("leave the port out: `{host}`; a route holds for every port")
        }
        _ => "write a name such as `app.example.com`, or \"*.example.com\" for every name below it".to_owned(),
    }
}

impl Scalar for PathPrefix {
    const WANTED: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, Refusal> {
        Self::parse(text).map_err(|error| {
            let hint = match &error {
                RouteError::RelativePath => format!("write `/{text}`"),
                _ if text.contains('*') => {
                    let prefix = text.split('*').next().unwrap_or_default().trim_end_matches('/');
                    format!("write `{}`; it takes every path below it", if prefix.is_empty() { "/" } else { prefix })
                }
                _ => match crate::path::normalize(text) {
                    Ok(normal) if normal != text => format!("write `{normal}`"),
                    _ => "write the path without query, such as `/api/v1`".to_owned(),
                },
            };
            Refusal::new(error.to_string(), hint)
        })
    }
}

/// How the gateway talks to the targets, without the details of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
pub(super) enum Scheme {
    H1,
    H2c,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2c => "h2c",
            Self::Https => "https",
        }
    }
}

impl Scalar for Scheme {
    const WANTED: &'static str = "`h1`, `h2c` or `https`";

    fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "h1" => Ok(Self::H1),
            "h2c" => Ok(Self::H2c),
            "https" => Ok(Self::Https),
            _ => {
                let hint = match text {
                    "http" | "http1" | "http/1.1" => "did you mean `h1`?",
                    "h2" | "http2" | "grpc" => "did you mean `h2c`? HTTP/2 over TLS is `https`",
                    _ => "write `h1`, `h2c` (HTTP/2 in the clear, what gRPC speaks) or `https`",
                };
                Err(Refusal::new(format!("`{text}` is not a protocol"), hint))
            }
        }
    }
}

/// `host:port`, or a URL without a path, whose scheme sets the protocol.
#[derive(Clone, Debug)]
pub(super) struct TargetUrl {
    pub scheme: Option<Scheme>,
    pub authority: Authority,
}

impl Scalar for TargetUrl {
    const WANTED: &'static str = "a target such as `app:8080`";

    fn parse(text: &str) -> Result<Self, Refusal> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(Scheme::H1), rest),
            Some(("h2c", rest)) => (Some(Scheme::H2c), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some((scheme, rest)) => {
                let message = format!("a target's scheme is not `{scheme}`");
                return Err(Refusal::new(message, format!("write `{rest}`, `h2c://{rest}` or `https://{rest}`")));
            }
        };
        if let Some((authority, _)) = rest.split_once('/') {
            let prefix = text.strip_suffix(rest).unwrap_or_default();
            let hint = format!("write `{prefix}{authority}`; `strip_prefix` takes the route's path off");
            return Err(Refusal::new("a target has no path", hint));
        }
        let (host, explicit) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let Some(_) = explicit else {
            let port = if scheme == Some(Scheme::Https) { 443 } else { 80 };
            let prefix = text.strip_suffix(rest).unwrap_or_default();
            return Err(Refusal::new(
                format!("the target `{text}` has no port"),
                format!("write `{prefix}{host}:{port}`"),
            ));
        };
        let authority = Authority::parse(rest).map_err(|error| {
            Refusal::new(error.to_string(), "write a name or an address, and a port: `app:8080`, `[fd00::1]:8080`")
        })?;
        Ok(Self { scheme, authority })
    }
}

/// Where a redirect leads, in two parts.
#[derive(Clone, Debug)]
pub(super) struct RedirectUrl {
    /// `scheme://host[:port]`
    pub origin: String,
    /// Path, query and fragment, if any.
    pub rest: String,
}

impl Scalar for RedirectUrl {
    const WANTED: &'static str = "a URL such as `https://www.example.com`";

    fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |why: &str| {
            Refusal::new(
                format!("`{text}` is not a URL to redirect to: {why}"),
                "write it like `https://www.example.com`",
            )
        };
        let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
            return Err(refuse("it begins with neither `https://` nor `http://`"));
        };
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(at);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let host = HostName::parse(host).map_err(|_| refuse("its host is not a name or an address"))?;
        let port = match port.map(str::parse::<u16>) {
            None => String::new(),
            Some(Ok(port)) if port > 0 => format!(":{port}"),
            Some(_) => return Err(refuse("the port is no number from 1 to 65535")),
        };
        if !rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\')) {
            return Err(refuse("it holds a character that must be percent-encoded"));
        }
        Ok(Self { origin: format!("{scheme}://{host}{port}"), rest: rest.to_owned() })
    }
}

schemas! {
    HostPattern: { "type": "string", "examples": ["app.example.com", "*.example.com", "*"] }
    HostName: { "type": "string", "examples": ["app.example.com"] }
    PathPrefix: { "type": "string", "pattern": "^/[^?#*]*$", "examples": ["/", "/compute"] }
    TargetUrl: {
        "type": "string",
        "pattern": "^((http|h2c|https)://)?[^/]+:[0-9]{1,5}$",
        "examples": ["app:8080", "h2c://grpc:50051", "https://10.0.0.7:8443"]
    }
    RedirectUrl: { "type": "string", "pattern": "^https?://", "examples": ["https://www.example.com"] }
}
