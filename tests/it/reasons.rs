//! Every error that edd makes itself is called by one word: in the answer, in every form of it, in the access
//! line and in the metric; and the first two share the request's id.

use http::Request;

use crate::harness::{Cases, Connection, Edd, H2Client, RawUpstream, Upstream};

/// What fails, and in what way.
struct Fault {
    /// The head of the request, without the empty line at its end, and the body.
    request: (&'static str, &'static str),
    status: u16,
    reason: &'static str,
    route: &'static str,
}

const fn fault(request: (&'static str, &'static str), status: u16, reason: &'static str, route: &'static str) -> Fault {
    Fault { request, status, reason, route }
}

const FAULTS: &[Fault] = &[
    fault(
        ("GET /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", ""),
        400,
        "bad_framing",
        "unmatched",
    ),
    fault(("GET x HTTP/1.1\r\nHost: a.test", ""), 400, "bad_target", "unmatched"),
    fault(("GET /x HTTP/1.2\r\nHost: a.test", ""), 505, "bad_version", "unmatched"),
    fault(("GET /../<script> HTTP/1.1\r\nHost: ok.test", ""), 400, "bad_path", "unmatched"),
    fault(
        ("POST /x HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked", "nonsense\r\n"),
        400,
        "bad_body",
        "ok.test/",
    ),
    fault(("GET /x HTTP/1.1\r\nHost: nobody.test", ""), 404, "no_route", "unmatched"),
    fault(("TRACE /x HTTP/1.1\r\nHost: ok.test", ""), 405, "method_not_allowed", "unmatched"),
    fault(("POST /x HTTP/1.1\r\nHost: small.test\r\nContent-Length: 4", "abcd"), 413, "body_too_large", "small.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: asks.test", ""), 421, "misdirected", "asks.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: refuses.test", ""), 502, "upstream_refused", "refuses.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: nameless.test", ""), 502, "upstream_dns", "nameless.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: plain.test", ""), 502, "upstream_tls", "plain.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: closes.test", ""), 502, "upstream_closed", "closes.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: raves.test", ""), 502, "upstream_invalid_response", "raves.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: unreachable.test", ""), 502, "upstream_unreachable", "unreachable.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: idle.test", ""), 503, "no_target", "idle.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: hangs.test", ""), 504, "upstream_timeout", "hangs.test/"),
    fault(("GET /x HTTP/1.1\r\nHost: shy.test", ""), 504, "upstream_connect_timeout", "shy.test/"),
];

/// Upstreams with every fault there is, and edd before them.
struct Site {
    edd: Edd,
    _refusing: tokio::net::TcpSocket,
    _upstreams: (Upstream, [RawUpstream; 3]),
}

impl Site {
    async fn start() -> Self {
        let ok = Upstream::start().await;
        let closing = RawUpstream::start(|mut connection| async move { drop(connection.head().await) }).await;
        let raving = RawUpstream::answering("nonsense\r\n\r\n").await;
        let hanging = RawUpstream::start(|mut connection| async move { connection.hang().await }).await;
        let (held, refusing) = RawUpstream::refusing();
        let edd = Edd::gateway(format!(
            "routes:
            - {{host: ok.test, target: '{ok}'}}
            - {{host: small.test, target: '{ok}', body_limit: 3}}
            - {{host: asks.test, target: '{ok}', client_cert: {{ca_file: clients.pem}}}}
            - {{host: refuses.test, target: '{refusing}'}}
            - {{host: nameless.test, target: 'no-such-host.invalid:80'}}
            - {{host: plain.test, target: 'https://{ok}'}}
            - {{host: closes.test, target: '{closing}'}}
            - {{host: raves.test, target: '{raving}'}}
            - {{host: unreachable.test, target: '255.255.255.255:80'}}
            - {{host: idle.test, targets: [{{target: '{ok}', weight: 0}}]}}
            - {{host: hangs.test, target: '{hanging}', timeouts: {{read: 100ms}}}}
            - {{host: shy.test, target: 'https://{hanging}', timeouts: {{connect: 100ms}}}}",
            ok = ok.address,
            raving = raving.address,
            closing = closing.address,
            hanging = hanging.address,
        ))
        .file("clients.pem", &crate::harness::tls::Authority::new("clients").pem())
        .env("EDD_HEADER_TIMEOUT", "100ms")
        .start()
        .await;
        Self { edd, _refusing: held, _upstreams: (ok, [closing, raving, hanging]) }
    }

    async fn errors(&self, fault: &Fault) -> f64 {
        let labels = [("reason", fault.reason), ("route", fault.route)];
        self.edd.metrics().await.value("edd_http_errors_total", &labels).unwrap_or_default()
    }

    /// Sends the faulty request, with another header.
    async fn send(&self, fault: &Fault, header: &str) -> Connection {
        let mut client = self.edd.connect().await;
        let (head, body) = fault.request;
        client.send(format!("{head}\r\n{header}\r\n\r\n{body}")).await;
        client
    }
}

#[tokio::test]
async fn every_reason_is_told_alike_everywhere() {
    let site = Site::start().await;
    let edd = &site.edd;
    let mut cases = Cases::default();
    for fault in FAULTS {
        let case = async {
            let before = site.errors(fault).await;
            // For programs.
            let mut client = site.send(fault, "Accept: application/json").await;
            let problem = edd.refusal(&mut client, fault.status, fault.reason).await;
            assert!(!problem.json()["detail"].as_str().expect("a sentence").is_empty());
            let line = edd.access_line(problem.header("x-request-id")).await;
            let level = if fault.status >= 500 { "WARN" } else { "INFO" };
            assert_eq!([line.field("route"), line.field("level")], [fault.route, level]);
            // For people.
            let mut client = site.send(fault, "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8").await;
            let page = client.response().await;
            assert_eq!((page.status, page.header("content-type")), (fault.status, "text/html; charset=utf-8"));
            assert_eq!((page.header("cache-control"), page.header("server")), ("no-store", "edd"));
            let id = page.header("x-request-id");
            for part in
                [format!("<code>{}</code>", fault.reason), format!("<code>{id}</code>"), fault.status.to_string()]
            {
                assert!(page.text().contains(&part), "no {part} in {}", page.text());
            }
            assert!(!page.text().contains("<script"), "{}", page.text());
            assert_eq!(edd.access_line(id).await.field("reason"), fault.reason);
            assert_eq!(site.errors(fault).await, before + 2.0);
        };
        cases.case(fault.reason, case).await;
    }
    cases.finish();
}

/// What clients of gRPC read: its own status beside the HTTP status that proxies read.
#[tokio::test]
async fn grpc_clients_are_told_in_their_own_terms() {
    let site = Site::start().await;
    let h2 = H2Client::over(site.edd.connect().await).await;
    let mut cases = Cases::default();
    for (host, reason, code) in [
        ("nobody.test", "no_route", "12"),
        ("refuses.test", "upstream_refused", "14"),
        ("shy.test", "upstream_connect_timeout", "4"),
        ("asks.test", "misdirected", "3"),
    ] {
        let case = async {
            let request = Request::post(format!("http://{host}/package.Service/Method"));
            let request = request.header("content-type", "application/grpc+proto").header("te", "trailers");
            let answer = h2.send(request.body(()).expect("a request")).await.expect("an answer");
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc"));
            assert_eq!((answer.header("grpc-status"), answer.header("grpc-message")), (code, reason));
            let line = site.edd.access_line(answer.header("x-request-id")).await;
            assert_eq!(line.field("reason"), reason);
        };
        cases.case(reason, case).await;
    }
    cases.finish();
}

#[tokio::test]
async fn strange_heads_have_their_reasons_too() {
    let site = Site::start().await;
    let long = "x".repeat(40_000);
    for (request, status, reason) in [
        ("GET /x HTTP/1.1\r\nHost: ok.te".to_owned(), 408, "header_timeout"),
        (format!("GET /x HTTP/1.1\r\nHost: ok.test\r\nX-Long: {long}\r\n\r\n"), 431, "headers_too_large"),
    ] {
        let mut client = site.edd.connect().await;
        client.send(request).await;
        site.edd.refusal(&mut client, status, reason).await;
        assert_eq!(site.errors(&fault(("", ""), status, reason, "unmatched")).await, 1.0);
    }
    // Over HTTP/1.1 a strange host is part of a strange head.
    let h2 = H2Client::over(site.edd.connect().await).await;
    let answer = h2.get("http://a..test/x").await;
    site.edd.check_refusal(&answer, 400, "bad_host").await;
    // Plain HTTP where TLS is spoken: browsers show what comes, so it says what to do.
    let mut client = Connection::open(site.edd.https).await;
    client.send("GET /x HTTP/1.1\r\nHost: ok.test\r\n\r\n").await;
    let answer = site.edd.refusal(&mut client, 400, "plain_http_on_https").await;
    assert!(answer.text().contains("https://"), "{}", answer.text());
    let line = site.edd.access_line(answer.header("x-request-id")).await;
    assert_eq!([line.field("listener"), line.field("tls_version")], ["https", ""]);
}
