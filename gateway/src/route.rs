//! What a route is, ready to use: every field is parsed and valid.
//!
//! The form that people write lives in [`crate::sources`]; nothing here reads a file or a socket.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Serialize;

/// Longest host name accepted, in bytes (RFC 1035 §2.3.4).
pub const MAX_HOST_BYTES: usize = 253;
/// Longest path prefix accepted, in bytes.
pub const MAX_PREFIX_BYTES: usize = 1024;

/// Stable name of a route: given by its owner, or made from host and path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RouteId(Arc<str>);

impl RouteId {
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a route was declared. Orders ties: the first variant wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The operator's routes.yaml.
    File,
    /// The gateway's API, and so its database.
    Api,
    /// Built into `edd up`.
    Builtin,
    /// The containers, as compute tells of them.
    Compute,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Builtin => "builtin",
            Self::Compute => "compute",
        }
    }
}

/// Why a host, prefix or target was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("a host name must not be empty")]
    EmptyHost,
    #[error("a host name has at most {MAX_HOST_BYTES} bytes")]
    LongHost,
    #[error("`{0}` is not a host name: {1}")]
    BadHost(String, &'static str),
    #[error("a path must begin with `/`")]
    RelativePath,
    #[error("a path prefix has at most {MAX_PREFIX_BYTES} bytes")]
    LongPath,
    #[error("`{0}` is not a path prefix: {1}")]
    BadPath(String, &'static str),
    #[error("`{0}` is not a target: {1}")]
    BadTarget(String, &'static str),
}

/// A host name in the form the table compares: lower case, no port, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct HostName(Box<str>);

impl HostName {
    /// Parses a DNS name or an IP literal (IPv6 in brackets).
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(RouteError::EmptyHost);
        }
        if text.len() > MAX_HOST_BYTES {
            return Err(RouteError::LongHost);
        }
        let bad = |why| Err(RouteError::BadHost(text.to_owned(), why));
        if text.starts_with('[') {
            let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
            return match inner.map(str::parse::<std::net::Ipv6Addr>) {
                Some(Ok(ip)) => Ok(Self(format!("[{ip}]").into())),
                _ => bad("the brackets hold no IPv6 address"),
            };
        }
        for label in text.split('.') {
            if label.is_empty() {
                return bad("it has an empty label");
            }
            if label.len() > 63 {
                return bad("a label has at most 63 bytes");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return bad("a label may not begin or end with `-`");
            }
            // `_` is no host name character in the RFC, but browsers and Kubernetes let it through.
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                return bad(
                    "only letters, digits, `-` and `_` may stand in a label (write an international name in its xn-- form)",
                );
            }
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which hosts a route answers for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(HostName),
    /// `*.suffix`: one or more labels before the suffix.
    Wildcard(HostName),
    /// Any host that no other route names.
    Any,
}

impl HostPattern {
    /// Parses `name`, `*.suffix` or `*`.
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return HostName::parse(suffix).map(Self::Wildcard);
        }
        if text.contains('*') {
            return Err(RouteError::BadHost(text.to_owned(), "`*` may only stand alone or as the whole first label"));
        }
        HostName::parse(text).map(Self::Exact)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A path prefix that matches on segment boundaries: `/a` takes `/a` and `/a/b`, never `/ab`.
///
/// Held without a trailing slash, so the root is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix(Box<str>);

impl PathPrefix {
    /// The prefix that takes every path.
    pub fn root() -> Self {
        Self(Box::default())
    }

    pub fn parse(text: &str) -> Result<Self, RouteError> {
        if !text.starts_with('/') {
            return Err(RouteError::RelativePath);
        }
        if text.len() > MAX_PREFIX_BYTES {
            return Err(RouteError::LongPath);
        }
        let bad = |why| Err(RouteError::BadPath(text.to_owned(), why));
        if text.contains(['?', '#']) {
            return bad("it holds a query or a fragment; a route matches the path alone");
        }
        if text.contains('*') {
            return bad("a path is a prefix already, `*` has no meaning in it");
        }
        match crate::path::normalize(text) {
            Err(error) => bad(error.explain()),
            Ok(path) if path != text => {
                bad("it has dot segments or needless percent encoding; write it as the gateway compares it")
            }
            Ok(path) => Ok(Self(path.trim_end_matches('/').into())),
        }
    }

    /// The prefix as people write it: the root is `/`.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    /// The prefix as it is compared and stripped: the root is the empty string.
    pub fn trimmed(&self) -> &str {
        &self.0
    }

    /// Whether `path`, normalized, lies under this prefix.
    pub fn contains(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PathPrefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An upstream address as written: a name that is resolved in the background, or an IP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    pub host: Box<str>,
    pub port: u16,
}

impl Authority {
    /// Parses `host:port` or `[v6]:port`.
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        let bad = |why| RouteError::BadTarget(text.to_owned(), why);
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("write it as host:port"))?;
        let port: u16 = port.parse().map_err(|_| bad("the port is no number from 1 to 65535"))?;
        if port == 0 {
            return Err(bad("the port is no number from 1 to 65535"));
        }
        if host.contains(':') && !host.starts_with('[') {
            return Err(bad("put an IPv6 address in brackets"));
        }
        let host = HostName::parse(host).map_err(|_| bad("its host is not a name or an address"))?;
        Ok(Self { host: host.0, port })
    }

    /// A port of an address.
    pub fn of_ip(ip: IpAddr, port: u16) -> Self {
        let host = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self { host: host.into(), port }
    }

    /// The address, when the host is an IP literal.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl<'de> serde::Deserialize<'de> for Authority {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Authority {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One upstream of a route and its share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub authority: Authority,
    /// Share among the route's targets, 1 to [`Target::MAX_WEIGHT`]; 0 takes it out of rotation.
    pub weight: u16,
}

impl Target {
    pub const MAX_WEIGHT: u16 = 1000;
}

/// How the gateway talks to a route's targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in the clear.
    H1,
    /// HTTP/2 in the clear with prior knowledge; what gRPC services speak.
    H2c,
    /// TLS; HTTP/2 or HTTP/1.1, whichever the target takes by ALPN.
    Https(UpstreamTls),
}

/// How a TLS upstream is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// False accepts any certificate.
    pub verify: bool,
    /// Name sent as SNI and verified; the target's host when absent.
    pub server_name: Option<HostName>,
    /// PEM file with the authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Edits of one header block, applied in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// What the gateway waits for, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To open a connection to the target, TLS handshake included.
    pub connect: Duration,
    /// Without a byte from the target while it owes an answer.
    pub read: Duration,
    /// Without the target taking a byte.
    pub write: Duration,
    /// Without a byte in either direction on an upgraded or streaming exchange.
    pub stream_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(60),
            write: Duration::from_secs(60),
            stream_idle: Duration::from_secs(3600),
        }
    }
}

/// Where a redirect route sends the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `scheme://host[:port]`; path and query of the request are kept behind it, unless `exact`.
    pub to: Box<str>,
    /// The whole URL is `to`, nothing is kept.
    pub exact: bool,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// What happens to a request that a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Proxy { targets: Vec<Target>, protocol: Protocol },
    Redirect(Redirect),
}

/// Whether a host asks its clients for a certificate (TLS client authentication).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM file with the authorities that sign the clients' certificates.
    pub ca_file: PathBuf,
    /// Clients without a certificate are let in when false; a bad one is always refused.
    pub required: bool,
}

/// One route, as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub id: RouteId,
    pub source: Source,
    pub host: HostPattern,
    pub path: PathPrefix,
    pub action: Action,
    /// Take `path` off before the request goes upstream.
    pub strip_prefix: bool,
    /// Answer plain HTTP with a 301 to the same URL over HTTPS.
    pub https_only: bool,
    pub websocket: bool,
    /// Largest request body in bytes; none is unlimited.
    pub max_body_bytes: Option<u64>,
    pub timeouts: Timeouts,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// Holds for the whole host: TLS is negotiated before the path is known.
    pub client_auth: Option<ClientAuth>,
}

impl Route {
    /// A route with defaults in every optional field.
    pub fn new(host: HostPattern, path: PathPrefix, action: Action, source: Source) -> Self {
        let id = Self::default_id(&host, &path);
        Self {
            id,
            source,
            host,
            path,
            action,
            strip_prefix: false,
            https_only: false,
            websocket: true,
            max_body_bytes: None,
            timeouts: Timeouts::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            client_auth: None,
        }
    }

    /// The id of a route that was given no name: its host and path, `cloud.example.com/compute`.
    pub fn default_id(host: &HostPattern, path: &PathPrefix) -> RouteId {
        RouteId::new(format!("{host}{path}"))
    }

    /// The targets, in words, for lists and logs.
    pub fn describe_action(&self) -> String {
        match &self.action {
            Action::Redirect(redirect) => format!("{} {}", redirect.status, redirect.to),
            Action::Proxy { targets, protocol } => {
                let scheme = match protocol {
                    Protocol::H1 => "",
                    Protocol::H2c => "h2c://",
                    Protocol::Https(_) => "https://",
                };
                let list: Vec<_> = targets
                    .iter()
                    .map(|t| {
                        if targets.len() == 1 {
                            format!("{scheme}{}", t.authority)
                        } else {
                            format!("{scheme}{} ({})", t.authority, t.weight)
                        }
                    })
                    .collect();
                list.join(", ")
            }
        }
    }
}
