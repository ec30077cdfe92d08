//! The headers that an upstream sees: whose word about the client counts, and what is edd's own business.

use crate::harness::frames::{DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, fields_block};
use crate::harness::{Edd, H2Upstream, RawUpstream, Seen, Upstream};

/// Sends a request with these header lines, and returns it as the upstream saw it.
async fn seen_with(edd: &Edd, upstream: &Upstream, lines: &str) -> Seen {
    let mut client = edd.connect().await;
    client.send(format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n\r\n")).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{lines:?}: {}", response.text());
    upstream.take().remove(0)
}

const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n\
     X-Forwarded-Port: 666\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Server: evil\r\n\
     Forwarded: for=6.6.6.6;proto=https;host=evil.test\r\nX-Real-IP: 6.6.6.6\r\nX-Request-ID: evil-request";

#[tokio::test]
async fn strangers_cannot_speak_for_other_clients() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for lines in [CLAIMS.to_owned(), CLAIMS.to_ascii_uppercase(), format!("{CLAIMS}\r\n{CLAIMS}"), "X: y".to_owned()] {
        let seen = seen_with(&edd, &upstream, &lines).await;
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.header("x-forwarded-proto"), "http");
        assert_eq!(seen.header("x-forwarded-host"), "a.test");
        let id = seen.header("x-request-id");
        assert!(!id.is_empty() && !id.to_lowercase().contains("evil"), "{id}");
        let headers = format!("{:?}", seen.headers).to_lowercase();
        assert!(!headers.contains("evil") && !headers.contains("6.6.6.6") && !headers.contains("666"), "{headers}");
    }
    // Without a Host there is nothing to replace the claim with; it must go all the same.
    let mut client = edd.connect().await;
    client.send(format!("GET /x HTTP/1.0\r\n{CLAIMS}\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    let headers = format!("{:?}", upstream.take().remove(0).headers).to_lowercase();
    assert!(!headers.contains("evil") && !headers.contains("6.6.6.6"), "{headers}");
}

#[tokio::test]
async fn trusted_proxies_are_believed_and_the_chain_goes_on() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.0/8").start().await;
    let seen = seen_with(
        &edd,
        &upstream,
        "X-Forwarded-For: 6.6.6.6, 10.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n\
         X-Request-ID: abc-123\r\nForwarded: for=6.6.6.6;proto=https;host=shop.test",
    )
    .await;
    assert_eq!(seen.header("x-forwarded-for"), "6.6.6.6, 10.1.1.1, 127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "https");
    assert_eq!(seen.header("x-forwarded-host"), "shop.test");
    assert_eq!(seen.header("x-request-id"), "abc-123");
    assert!(seen.header("forwarded").starts_with("for=6.6.6.6;proto=https;host=shop.test"), "{:?}", seen.headers);
    assert!(seen.header("forwarded").contains("127.0.0.1"), "{:?}", seen.headers);
    // The client in the log is the nearest hop that is nobody's proxy.
    assert_eq!(edd.access_line("abc-123").await.field("client_ip"), "6.6.6.6");

    // A trusted proxy that claims nothing is the client's last word.
    let seen = seen_with(&edd, &upstream, "X: y").await;
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-forwarded-host"), "a.test");
}

/// An id that could break a log line or a header is not taken over, whoever sends it.
#[tokio::test]
async fn ids_that_are_no_ids_are_replaced() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let long = "x".repeat(4096);
    for id in ["a b", "\"quoted\"", "<script>", "{}", "", &long] {
        let seen = seen_with(&edd, &upstream, &format!("X-Request-ID: {id}")).await;
        assert!(!seen.header("x-request-id").is_empty());
        assert_ne!(seen.header("x-request-id"), id);
    }
}

#[tokio::test]
async fn every_answer_carries_the_id_that_the_upstream_saw() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let id = client.response().await.header("x-request-id").to_owned();
        assert_eq!(upstream.take()[0].header("x-request-id"), id);
        let line = edd.access_line(&id).await;
        assert_eq!(
            (line.field("method"), line.field("host"), line.field("path")),
            ("GET".into(), "a.test".into(), "/x".into())
        );
        assert_eq!((line.field("status"), line.field("client_ip")), ("200".into(), "127.0.0.1".into()));
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

/// What CGI, WSGI and PHP read as the same variable must not come beside the real one.
#[tokio::test]
async fn aliases_with_underscores_never_arrive() {
    let upstream = Upstream::start().await;
    for gateway in
        [Edd::gateway(upstream.routes()), Edd::gateway(upstream.routes()).env("EDD_TRUSTED_PROXIES", "127.0.0.0/8")]
    {
        let edd = gateway.start().await;
        for name in [
            "X_Forwarded_For",
            "x_forwarded_proto",
            "X-Forwarded_For",
            "X_Forwarded-Host",
            "X_FORWARDED_PORT",
            "X_Real_IP",
            "X_Request_ID",
            "Content_Length",
            "Transfer_Encoding",
            "Content_Type",
            "Remote_User",
        ] {
            let seen = seen_with(&edd, &upstream, &format!("{name}: 66")).await;
            assert!(!seen.headers.contains_key(name), "{name} in {:?}", seen.headers);
        }
        let seen = seen_with(&edd, &upstream, "X_Custom: kept").await;
        assert_eq!(seen.header("x_custom"), "kept");
    }
}

/// Trailers are for what is known at the end of a body; who the client is was known before (RFC 9110 §6.5.1).
#[tokio::test]
async fn claims_in_trailers_are_dropped() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client
        .send(format!(
            "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{CLAIMS}\r\n\
             Host: evil.test\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nX_Forwarded_For: 6.6.6.6\r\n\
             Authorization: evil\r\n\r\n"
        ))
        .await;
    let response = client.response().await;
    assert!(matches!(response.status, 200 | 400), "{}", response.status);
    for seen in upstream.take() {
        let fields = format!("{:?} {:?}", seen.headers, seen.trailers).to_lowercase();
        assert!(!fields.contains("evil") && !fields.contains("6.6.6.6"), "{fields}");
        assert!(!seen.trailers.contains_key("content-length") && !seen.trailers.contains_key("transfer-encoding"));
    }
}

/// The same over HTTP/2, to upstreams of both kinds.
#[tokio::test]
async fn claims_in_http2_trailers_are_dropped() {
    let h1 = Upstream::start().await;
    let h2 = H2Upstream::start().await;
    for routes in [h1.routes(), h2.routes()] {
        let edd = Edd::gateway(routes).start().await;
        let mut client = edd.connect().await;
        client.send_preface(&[]).await;
        let head =
            [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x"), ("te", "trailers")];
        let trailers = [
            ("x-sum", "1"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "evil"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x-request-id", "evil"),
            ("x_forwarded_for", "6.6.6.6"),
            ("authorization", "evil"),
            ("host", "evil"),
            ("content-length", "66"),
        ];
        client.send(Frame::new(HEADERS, END_HEADERS, 1, fields_block(&head)).bytes()).await;
        client.send(Frame::new(DATA, 0, 1, *b"abc").bytes()).await;
        let end = Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, fields_block(&trailers));
        client.send(end.bytes()).await;
        // Refusing them altogether is as good as answering without them.
        let ends = |frame: &Frame| match frame.kind {
            HEADERS | DATA => frame.flags & END_STREAM != 0,
            kind => matches!(kind, RST_STREAM | GOAWAY),
        };
        client.frame_where(ends).await;
    }
    for seen in h1.take().into_iter().chain(h2.take()) {
        let fields = format!("{:?} {:?}", seen.headers, seen.trailers).to_lowercase();
        assert!(!fields.contains("evil") && !fields.contains("6.6.6.6"), "{fields}");
        assert!(!fields.contains(r#""content-length": "66""#), "{fields}");
    }
}

/// RFC 9110 §7.6.1: fields of one connection end with it, and naming a field in `Connection` must not
/// take away what edd itself has to say.
#[tokio::test]
async fn fields_of_the_connection_stay_on_it() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let seen = seen_with(
        &edd,
        &upstream,
        "Connection: keep-alive, X-Hop, TE\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic c2VjcmV0\r\nTE: gzip;q=0.5\r\nX-End: 2",
    )
    .await;
    for name in ["x-hop", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert!(!seen.headers.contains_key(name), "{name} in {:?}", seen.headers);
    }
    assert!(!seen.header("te").contains("gzip"), "{:?}", seen.headers);
    assert_eq!(seen.header("x-end"), "2");

    let named = "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-ID, Host, Content-Length, Cookie";
    let mut client = edd.connect().await;
    client
        .send(format!(
            "POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: {named}\r\nContent-Length: 3\r\nX: y\r\n\r\nabc"
        ))
        .await;
    let status = client.response().await.status;
    let seen = upstream.take();
    if status == 200 {
        assert_eq!((seen[0].header("x-forwarded-for"), seen[0].header("host")), ("127.0.0.1".into(), "a.test".into()));
        assert_eq!(
            (seen[0].header("x-forwarded-proto"), seen[0].header("x-forwarded-host")),
            ("http".into(), "a.test".into())
        );
        assert!(!seen[0].header("x-request-id").is_empty());
        assert_eq!(seen[0].body, b"abc");
    } else {
        // Naming a field of the framing is as good as an attack.
        assert_eq!((status, seen.len()), (400, 0));
    }
}

/// The upstream's own connection is none of the client's business either.
#[tokio::test]
async fn fields_of_the_upstreams_connection_stay_on_it() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
         Proxy-Connection: keep-alive\r\nX-End: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok",
    )
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let response = client.response().await;
    for name in ["x-hop", "keep-alive", "proxy-connection"] {
        assert!(!response.headers.contains_key(name), "{name} in {:?}", response.headers);
    }
    assert_eq!(response.header("x-end"), "2");
    assert_eq!(response.headers.get_all("set-cookie").iter().count(), 2);
}
