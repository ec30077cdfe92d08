//! What is known of a request besides what it asks: its id, its trace, where it came from.
//!
//! A client can send any header. Those by which a proxy speaks for it count only if a trusted one sent them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use edd_events::publisher::Cause;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ipnet::IpNet;

use crate::error::{self, Error};
use crate::origin::{Origin, Scheme};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const TRACE_PARENT: &str = "traceparent";

/// Most hops followed back through X-Forwarded-For.
const MAX_HOPS: usize = 32;
/// Longest request id that is taken over.
const MAX_ID_BYTES: usize = 128;

/// The networks whose word about a request's client counts: the gateway, and what stands before it.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// The machine itself: the gateway of `edd up`.
    pub fn loopback() -> Self {
        let v6 = Ipv6Addr::LOCALHOST.into();
        Self::new([(Ipv4Addr::new(127, 0, 0, 0).into(), 8), (v6, 128)].map(|(ip, bits)| IpNet::new_assert(ip, bits)))
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// A request's id: a trusted peer's, or 128 random bits. Safe to log and to send on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/=+".contains(&b);
        let valid = (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(allowed);
        valid.then(|| Self(text.into())).ok_or(())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request's circumstances. Every handler behind [`tracked`] can take it as an argument.
#[derive(Clone, Debug)]
pub struct Context {
    pub id: RequestId,
    /// W3C `traceparent` as received; empty if nobody traces, or if it is malformed.
    pub trace_parent: String,
    /// The nearest hop that is not a trusted proxy.
    pub client_ip: IpAddr,
    /// Where the client sent the request to, as the client sees it. None if it names no host.
    pub origin: Option<Origin>,
}

impl Context {
    /// Reads the circumstances of a request that `peer` sent.
    fn new(peer: IpAddr, uri: &Uri, headers: &HeaderMap, trusted: &TrustedProxies) -> Self {
        let (peer, text) = (peer.to_canonical(), |name: &str| headers.get(name).and_then(|value| value.to_str().ok()));
        let claim = |name| if trusted.contains(peer) { text(name) } else { None };
        let scheme = claim(X_FORWARDED_PROTO).map_or(Ok(Scheme::Http), str::parse);
        let host = || uri.authority().map(|authority| authority.as_str()).or_else(|| text(HOST.as_str()));
        let authority = claim(X_FORWARDED_HOST).or_else(host);
        Self {
            id: claim(X_REQUEST_ID.as_str()).and_then(|id| id.parse().ok()).unwrap_or_else(RequestId::random),
            trace_parent: text(TRACE_PARENT).filter(|value| is_trace_parent(value)).unwrap_or_default().to_owned(),
            client_ip: client_ip(peer, headers, trusted),
            origin: scheme.ok().zip(authority).and_then(|(scheme, authority)| Origin::new(scheme, authority).ok()),
        }
    }

    /// What the events that the request leads to follow from.
    pub fn cause(&self) -> Cause {
        Cause { correlation_id: self.id.to_string(), trace_parent: self.trace_parent.clone() }
    }
}

fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let listed: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut hops = listed.iter().rev().flat_map(|value| value.rsplit(',')).take(MAX_HOPS);
    let mut nearest = peer;
    while trusted.contains(nearest) {
        match hops.next().and_then(|hop| parse_hop(hop.trim())) {
            Some(ip) => nearest = ip,
            None => break,
        }
    }
    nearest
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(ip.to_canonical())
}

/// <https://www.w3.org/TR/trace-context/#traceparent-header>; a later version may have more behind the four fields.
fn is_trace_parent(text: &str) -> bool {
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &str, length| hex(part, length) && part.bytes().any(|b| b != b'0');
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    match parts[..] {
        ["00", trace, parent, flags] => id(trace, 32) && id(parent, 16) && hex(flags, 2),
        [version, trace, parent, flags, ..] if text.len() <= MAX_ID_BYTES => {
            hex(version, 2) && !matches!(version, "00" | "ff") && id(trace, 32) && id(parent, 16) && hex(flags, 2)
        }
        _ => false,
    }
}

/// Puts `router` behind the reading of [`Context`]; says the request's id in every answer, and renders errors in the
/// form that the client accepts. The router must be served with the peers' addresses
/// ([`Router::into_make_service_with_connect_info`] of a [`SocketAddr`]).
pub fn tracked(router: Router, trusted: TrustedProxies) -> Router {
    router.layer(from_fn_with_state(trusted, track))
}

async fn track(State(trusted): State<TrustedProxies>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(ConnectInfo(peer)) = ConnectInfo::<SocketAddr>::from_request_parts(&mut parts, &()).await else {
        return Error::internal("the server does not tell its peers' addresses").into_response();
    };
    let context = Context::new(peer.ip(), &parts.uri, &parts.headers, &trusted);
    let form = error::Form::accepted(&parts.headers);
    parts.extensions.insert(context.clone());
    let answer = next.run(Request::from_parts(parts, body)).await;
    let mut answer = error::render(answer, form, context.id.as_str());
    if let Ok(id) = HeaderValue::from_str(context.id.as_str()) {
        answer.headers_mut().insert(X_REQUEST_ID, id);
    }
    answer
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let context = parts.extensions.get::<Self>().cloned();
        context.ok_or_else(|| Error::internal("the route is not behind `request::tracked`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: [u8; 4] = [10, 0, 0, 1];
    const CLIENT: [u8; 4] = [203, 0, 113, 7];

    fn context(peer: [u8; 4], headers: &[(&'static str, &str)]) -> Context {
        let trusted = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Context::new(peer.into(), &"/api".parse().unwrap(), &map, &trusted)
    }

    fn origin(context: &Context) -> Option<String> {
        context.origin.as_ref().map(Origin::to_string)
    }

    #[test]
    fn a_trusted_proxy_speaks_for_its_client_and_nobody_else_does() {
        let headers = [
            ("host", "127.0.0.1:8081"),
            ("x-request-id", "req-1"),
            ("x-forwarded-for", "198.51.100.9, 203.0.113.7"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "Auth.Cloud.example.org"),
        ];
        let told = context(PROXY, &headers);
        assert_eq!(told.id.as_str(), "req-1");
        assert_eq!(told.client_ip, IpAddr::from(CLIENT));
        assert_eq!(origin(&told).unwrap(), "https://auth.cloud.example.org");

        let claimed = context(CLIENT, &headers);
        assert_ne!(claimed.id.as_str(), "req-1");
        assert_eq!(claimed.client_ip, IpAddr::from(CLIENT));
        assert_eq!(origin(&claimed).unwrap(), "http://127.0.0.1:8081");
    }

    #[test]
    fn a_proxy_that_says_nothing_is_the_client() {
        let context = context(PROXY, &[("host", "cloud.localhost:8080")]);
        assert_eq!(context.client_ip, IpAddr::from(PROXY));
        assert_eq!(origin(&context).unwrap(), "http://cloud.localhost:8080");
    }

    #[test]
    fn hops_are_followed_to_the_first_that_is_not_ours() {
        let ip = |value: &str| context(PROXY, &[("x-forwarded-for", value)]).client_ip.to_string();
        assert_eq!(ip("203.0.113.7"), "203.0.113.7");
        assert_eq!(ip("203.0.113.7:4711"), "203.0.113.7");
        assert_eq!(ip("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(ip("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(ip("::ffff:203.0.113.7"), "203.0.113.7");
        assert_eq!(ip("evil, 10.9.9.9"), "10.9.9.9");
        assert_eq!(ip("unknown"), "10.0.0.1");
        assert_eq!(ip(&"10.2.2.2,".repeat(40)), "10.0.0.1", "an empty last hop");
        assert_eq!(ip(&["203.0.113.7", &vec!["10.2.2.2"; MAX_HOPS].join(",")].join(",")), "10.2.2.2");
        let mapped = TrustedProxies::loopback();
        assert!(mapped.contains("::ffff:127.0.0.1".parse().unwrap()) && mapped.contains("::1".parse().unwrap()));
        assert!(!mapped.contains("128.0.0.1".parse().unwrap()) && !mapped.contains("::2".parse().unwrap()));
    }

    #[test]
    fn strange_claims_of_a_proxy_name_no_origin() {
        for (name, value) in
            [("x-forwarded-host", "a, b"), ("x-forwarded-host", ""), ("x-forwarded-proto", "gopher"), ("host", "u@h")]
        {
            let mut headers = vec![(name, value)];
            if name == "x-forwarded-proto" {
                headers.push(("host", "cloud.localhost"));
            }
            assert_eq!(context(PROXY, &headers).origin, None, "{name}: {value}");
        }
        assert_eq!(context(CLIENT, &[]).origin, None);
        for id in ["", "a b", &"a".repeat(MAX_ID_BYTES + 1), "a\u{e9}"] {
            assert_ne!(context(PROXY, &[("x-request-id", id)]).id.as_str(), id);
        }
    }

    #[test]
    fn traces_go_on_and_malformed_ones_end() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let traced = context(CLIENT, &[("traceparent", good)]);
        let cause = Cause { correlation_id: traced.id.to_string(), trace_parent: good.to_owned() };
        assert_eq!(traced.cause(), cause);
        assert!(is_trace_parent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes"));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            &format!("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{}", "x".repeat(MAX_ID_BYTES)),
        ] {
            assert!(!is_trace_parent(bad), "{bad}");
        }
    }
}
