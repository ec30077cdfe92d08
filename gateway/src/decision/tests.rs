//! The rules, without an engine: a request and a table in, a decision out.

mod containers;

use std::collections::HashMap;

use http::header;

use super::*;
use crate::metrics::Metrics;
use crate::route::{Action, Authority, ClientAuth, HostPattern, PathPrefix, Protocol, Redirect, Route, Source, Target};
use crate::table::RouteTable;
use crate::upstream::Upstreams;

fn route(host: &str, path: &str) -> Route {
    let target = Target { authority: Authority::parse("127.0.0.1:80").unwrap(), weight: 1 };
    Route::new(
        HostPattern::parse(host).unwrap(),
        PathPrefix::parse(path).unwrap(),
        Action::Proxy { targets: vec![target], protocol: Protocol::H1 },
        Source::File,
    )
}

fn snapshot(routes: Vec<Route>) -> Snapshot {
    let metrics = Arc::new(Metrics::new().unwrap());
    let upstreams = Upstreams::new(HashMap::new(), Arc::clone(&metrics));
    let live = routes.into_iter().map(|route| Arc::new(LiveRoute::new(route, None, &upstreams, &metrics).unwrap()));
    Snapshot { table: RouteTable::build(live), revision: 7, ..Snapshot::default() }
}

/// A request as a test writes it.
struct Request<'a> {
    method: Method,
    url: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: BodyLength,
    websocket: bool,
    ip: &'a str,
    trusted_proxies: &'a [&'a str],
    tls: Option<TlsPeer>,
}

fn get(url: &str) -> Request<'_> {
    Request {
        method: Method::GET,
        url,
        headers: &[],
        body: BodyLength::None,
        websocket: false,
        ip: "203.0.113.9",
        trusted_proxies: &[],
        tls: None,
    }
}

fn tls(name: &str, client_certificate: bool) -> Option<TlsPeer> {
    Some(TlsPeer { version: "1.3", server_name: Some(name.into()), client_certificate })
}

struct Outcome {
    decision: Decision,
    identity: Identity,
    /// The request's headers as the upstream gets them.
    headers: HeaderMap,
}

impl Outcome {
    fn reason(&self) -> Option<Reason> {
        match &self.decision {
            Decision::Answer(answer) => Some(answer.reason),
            Decision::Forward(_) | Decision::Wake(_) => None,
        }
    }

    fn forward(&self) -> &Forward {
        match &self.decision {
            Decision::Forward(forward) => forward,
            other => panic!("not sent on: {other:?}"),
        }
    }

    fn header(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

fn run(request: &Request<'_>, snapshot: &Snapshot) -> Outcome {
    let (authority, rest) = request.url.split_at(request.url.find('/').unwrap());
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, authority.parse().unwrap());
    for (name, value) in request.headers {
        headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let networks: Vec<ipnet::IpNet> = request.trusted_proxies.iter().map(|text| text.parse().unwrap()).collect();
    let ip: IpAddr = request.ip.parse().unwrap();
    let head = RequestHead {
        method: &request.method,
        authority: Some(authority),
        path,
        query,
        headers: &headers,
        body: request.body,
        http1: true,
        websocket: request.websocket,
    };
    let peer = Peer {
        listener: Listener::Http,
        dynamic_port: None,
        ip,
        trusted: networks.iter().any(|network| network.contains(&ip)),
        tls: request.tls.as_ref(),
        https_port: 8443,
        trusted_proxies: &networks,
    };
    let identity = identify(&head, &peer, RequestId::generate());
    let decision = decide(&head, &peer, &identity, snapshot);
    let mut sent = headers.clone();
    if let Decision::Forward(forward) = &decision {
        for op in &forward.headers {
            match op.clone() {
                HeaderOp::Remove(name) => drop(sent.remove(name)),
                HeaderOp::Set(name, value) => drop(sent.insert(name, value)),
                HeaderOp::Append(name, value) => drop(sent.append(name, value)),
            }
        }
    }
    Outcome { decision, identity, headers: sent }
}

#[test]
fn refuses_what_has_no_route_or_no_meaning() {
    let snapshot = snapshot(vec![route("a.example", "/x")]);
    let reason = |request: &Request<'_>| run(request, &snapshot).reason();
    assert_eq!(reason(&get("a.example/x")), None);
    assert_eq!(reason(&get("a.example/y")), Some(Reason::NoRoute));
    assert_eq!(reason(&get("b.example/x")), Some(Reason::NoRoute));
    assert_eq!(reason(&get("a..b/x")), Some(Reason::BadHost));
    assert_eq!(reason(&get("a.example/x/..%2fy")), Some(Reason::BadPath));
    for method in [Method::CONNECT, Method::TRACE] {
        assert_eq!(reason(&Request { method, ..get("a.example/x") }), Some(Reason::MethodNotAllowed));
    }
}

#[test]
fn what_was_matched_is_what_is_sent() {
    let mut stripped = route("a.example", "/strip");
    stripped.strip_prefix = true;
    let snapshot = snapshot(vec![route("a.example", "/keep"), stripped]);
    for (url, target) in [
        ("a.example/keep/x?q=1", None),
        ("a.example/keep/./x?q=1", Some("/keep/x?q=1")),
        ("a.example/%6beep", Some("/keep")),
        ("a.example/strip/x/../y?q", Some("/y?q")),
        ("a.example/strip", Some("/")),
        ("a.example/strip//z", Some("/z")),
        ("a.example/other/../strip/%41", Some("/A")),
    ] {
        assert_eq!(run(&get(url), &snapshot).forward().target.as_deref(), target, "{url}");
    }
}

#[test]
fn a_stranger_cannot_speak_for_a_proxy() {
    let snapshot = snapshot(vec![route("a.example", "/")]);
    let spoofed = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/x"),
        ("forwarded", "for=1.1.1.1"),
        ("x-real-ip", "1.1.1.1"),
        ("x-request-id", "chosen"),
        ("x_forwarded_for", "1.1.1.1"),
        ("content_length", "7"),
        ("remote_user", "admin"),
        ("x_own_header", "kept"),
    ];
    let outcome = run(&Request { headers: &spoofed, ..get("a.example/") }, &snapshot);
    assert_eq!(outcome.header("x-forwarded-for"), ["203.0.113.9"]);
    assert_eq!(outcome.header("x-forwarded-proto"), ["http"]);
    assert_eq!(outcome.header("x-forwarded-host"), ["a.example"]);
    assert_eq!(outcome.header("x-request-id"), [outcome.identity.id.as_str()]);
    assert_ne!(outcome.identity.id.as_str(), "chosen");
    for gone in [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "forwarded",
        "x-real-ip",
        "x_forwarded_for",
        "content_length",
        "remote_user",
    ] {
        assert_eq!(outcome.header(gone), [""; 0], "{gone}");
    }
    assert_eq!(outcome.header("x_own_header"), ["kept"]);
    assert_eq!(outcome.identity.client.to_string(), "203.0.113.9");
}

#[test]
fn a_trusted_proxy_is_believed_as_far_as_the_chain_is_trusted() {
    let snapshot = snapshot(vec![route("a.example", "/")]);
    let behind = |chain: &str| {
        let headers = [
            ("x-forwarded-for", chain),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "www.a.example"),
            ("forwarded", "for=9.9.9.9"),
            ("x-request-id", "from-the-edge"),
        ];
        run(
            &Request { headers: &headers, ip: "10.0.0.1", trusted_proxies: &["10.0.0.0/8"], ..get("a.example/") },
            &snapshot,
        )
    };
    for (chain, client) in [
        ("9.9.9.9", "9.9.9.9"),
        ("1.1.1.1, 9.9.9.9, 10.0.0.7", "9.9.9.9"),
        ("9.9.9.9:1234", "9.9.9.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("1.1.1.1, nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
    ] {
        assert_eq!(behind(chain).identity.client.to_string(), client, "{chain}");
    }
    let outcome = behind("9.9.9.9");
    assert_eq!(outcome.header("x-forwarded-for"), ["9.9.9.9, 10.0.0.1"]);
    assert_eq!(outcome.header("x-forwarded-proto"), ["https"]);
    assert_eq!(outcome.header("x-forwarded-host"), ["www.a.example"]);
    assert_eq!(outcome.header("forwarded"), ["for=9.9.9.9", "for=10.0.0.1;proto=http;host=\"a.example\""]);
    assert_eq!(outcome.header("x-request-id"), ["from-the-edge"]);
}

#[test]
fn plain_http_is_sent_to_https_where_a_route_asks_for_it() {
    let mut secure = route("a.example", "/");
    secure.https_only = true;
    let snapshot = snapshot(vec![secure]);
    let outcome = run(&get("a.example:8080/x/../y?q=1"), &snapshot);
    let Decision::Answer(answer) = &outcome.decision else { panic!("forwarded") };
    assert_eq!((answer.status.as_u16(), answer.location.as_deref()), (301, Some("https://a.example:8443/y?q=1")));
    let Decision::Answer(answer) = run(&get("a.example/"), &snapshot).decision else { panic!("forwarded") };
    assert_eq!(answer.location.as_deref(), Some("https://a.example/"));
    assert_eq!(run(&Request { tls: tls("a.example", false), ..get("a.example/") }, &snapshot).reason(), None);
    let told = Request {
        headers: &[("x-forwarded-proto", "https")],
        ip: "10.0.0.1",
        trusted_proxies: &["10.0.0.0/8"],
        ..get("a.example/")
    };
    assert_eq!(run(&told, &snapshot).reason(), None);
    assert_eq!(run(&Request { trusted_proxies: &[], ..told }, &snapshot).reason(), Some(Reason::Redirected));
}

#[test]
fn redirects_keep_path_and_query_unless_exact() {
    let redirect = |exact| {
        let mut route = route("a.example", "/old");
        route.strip_prefix = true;
        route.action = Action::Redirect(Redirect { to: "https://b.example".into(), exact, status: 308 });
        snapshot(vec![route])
    };
    let location = |snapshot: &Snapshot| match run(&get("a.example/old/x?q"), snapshot).decision {
        Decision::Answer(answer) => (answer.status.as_u16(), answer.location.unwrap()),
        other => panic!("not answered: {other:?}"),
    };
    assert_eq!(location(&redirect(false)), (308, "https://b.example/x?q".to_owned()));
    assert_eq!(location(&redirect(true)), (308, "https://b.example".to_owned()));
}

#[test]
fn a_host_with_client_certificates_has_no_side_door() {
    let mut guarded = route("a.example", "/");
    guarded.client_auth = Some(ClientAuth { ca_file: "ca.pem".into(), required: true });
    let snapshot = snapshot(vec![guarded]);
    let reason = |tls| run(&Request { tls, ..get("a.example/") }, &snapshot).reason();
    assert_eq!(reason(tls("a.example", true)), None);
    assert_eq!(reason(tls("a.example", false)), Some(Reason::ClientCertificate));
    assert_eq!(reason(tls("b.example", true)), Some(Reason::Misdirected));
    assert_eq!(reason(None), Some(Reason::Misdirected));

    let mut guarded = route("a.example", "/");
    guarded.client_auth = Some(ClientAuth { ca_file: "ca.pem".into(), required: true });
    guarded.https_only = true;
    let Decision::Answer(answer) = run(&get("a.example/"), &self::snapshot(vec![guarded])).decision else {
        panic!("forwarded")
    };
    assert_eq!(answer.location.as_deref(), Some("https://a.example/"));
}

#[test]
fn websocket_is_the_only_upgrade() {
    let mut off = route("off.example", "/");
    off.websocket = false;
    let snapshot = snapshot(vec![route("a.example", "/"), off]);
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let asked = |url| Request { headers: &upgrade, websocket: true, ..get(url) };
    let outcome = run(&asked("a.example/"), &snapshot);
    assert_eq!((outcome.forward().shape, outcome.header("upgrade")), (Shape::Upgrade, vec!["websocket"]));
    let outcome = run(&asked("off.example/"), &snapshot);
    assert_eq!((outcome.forward().shape, outcome.header("upgrade").len()), (Shape::Plain, 0));
    let h2c = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")];
    let outcome = run(&Request { headers: &h2c, ..get("a.example/") }, &snapshot);
    assert_eq!((outcome.header("upgrade").len(), outcome.header("http2-settings").len()), (0, 0));
}

#[test]
fn streams_are_told_by_what_the_client_asks_for() {
    let snapshot = snapshot(vec![route("a.example", "/")]);
    let shape =
        |name, value| run(&Request { headers: &[(name, value)], ..get("a.example/") }, &snapshot).forward().shape;
    assert_eq!(shape("accept", "text/event-stream"), Shape::Stream);
    assert_eq!(shape("content-type", "application/grpc+proto"), Shape::Stream);
    assert_eq!(shape("accept", "text/html"), Shape::Plain);
}

#[test]
fn announced_bodies_are_held_against_the_limit() {
    let mut small = route("a.example", "/");
    small.max_body_bytes = Some(10);
    let snapshot = snapshot(vec![small]);
    let reason = |body| run(&Request { body, ..get("a.example/") }, &snapshot).reason();
    assert_eq!(reason(BodyLength::Bytes(10)), None);
    assert_eq!(reason(BodyLength::Chunked), None);
    assert_eq!(reason(BodyLength::Bytes(11)), Some(Reason::BodyTooLarge));
}

#[test]
fn a_routes_own_headers_come_last() {
    let mut edited = route("a.example", "/");
    edited.request_headers.remove.push(HeaderName::from_static("x-gone"));
    edited.request_headers.set.push((HeaderName::from_static("x-request-id"), HeaderValue::from_static("mine")));
    edited.request_headers.add.push((HeaderName::from_static("x-more"), HeaderValue::from_static("2")));
    let snapshot = snapshot(vec![edited]);
    let headers = [("x-gone", "1"), ("x-more", "1")];
    let outcome = run(&Request { headers: &headers, ..get("a.example/") }, &snapshot);
    assert_eq!(outcome.header("x-gone"), [""; 0]);
    assert_eq!(outcome.header("x-request-id"), ["mine"]);
    assert_eq!(outcome.header("x-more"), ["1", "2"]);
}

#[test]
fn trace_ids_are_read_from_traceparent() {
    let snapshot = snapshot(vec![route("a.example", "/")]);
    let trace = |value: &str| {
        let headers = [("traceparent", value)];
        run(&Request { headers: &headers, ..get("a.example/") }, &snapshot).identity.trace_id
    };
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(trace(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
    for bad in ["", "00", "00-xyz-1-01", "00-00000000000000000000000000000000-1-01"] {
        assert_eq!(trace(bad), None, "{bad}");
    }
}
