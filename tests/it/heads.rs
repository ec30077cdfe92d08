//! Request heads over HTTP/1: which are taken, and which are refused with which reason.

use crate::harness::{Cases, Edd, Upstream};

/// Sends each request on a connection of its own. It must be answered as told, the connection closed,
/// and the upstream left in peace.
async fn check_refused<'a>(status: u16, reason: &str, requests: impl IntoIterator<Item = &'a str>) {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut cases = Cases::default();
    for request in requests {
        let case = async {
            upstream.take();
            let mut client = edd.connect().await;
            client.send(request).await;
            edd.refusal(&mut client, status, reason).await;
            client.expect_close().await;
            assert!(upstream.take().is_empty(), "the upstream was asked");
        };
        cases.case(request, case).await;
    }
    cases.finish();
}

/// A request with these header lines besides Host, and a body that fits several readings of them.
fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n\r\n0\r\n\r\n")
}

/// Request lines and Host headers that are in order, however rare.
#[tokio::test]
async fn unusual_but_valid_heads_are_served() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut cases = Cases::default();
    for (head, method, target) in [
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET", "/"),
        ("GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET", "/x?y"),
        ("GET HTTP://A.test:80/x HTTP/1.1\r\nHost: a.test:80\r\n\r\n", "GET", "/x"),
        ("GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET", "/"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "OPTIONS", "*"),
        ("GET /x HTTP/1.1\r\nhost:a.test\r\nX-Empty:\r\nX-Tab: a\tb\r\n\r\n", "GET", "/x"),
        ("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Latin: caf\u{e9}\r\n\r\n", "GET", "/x"),
        ("GET /x HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "GET", "/x"),
        ("GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "GET", "/x"),
        ("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n", "POST", "/x"),
        ("PROPFIND /x HTTP/1.1\r\nHost: a.test\r\n\r\n", "PROPFIND", "/x"),
        // RFC 9112 §2.2: an empty line before the request line is to be ignored.
        ("\r\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET", "/x"),
    ] {
        let case = async {
            upstream.take();
            let mut client = edd.connect().await;
            client.send(head).await;
            assert_eq!(client.response().await.status, 200);
            let seen = upstream.take();
            assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), (method, target));
        };
        cases.case(head, case).await;
    }
    cases.finish();
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    for _ in 0..10 {
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let answer = client.response().await;
        assert_eq!(answer.status, 200);
        // Once it is logged, its connection is free: the client may be faster.
        edd.access_line(answer.header("x-request-id")).await;
    }
    let connections: Vec<_> = upstream.take().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0; 10]);
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    client.expect_close().await;
}

#[tokio::test]
async fn http_1_0_is_served_and_closed() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for head in ["GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.0\r\nHost: a.test\r\n\r\n"] {
        let mut client = edd.connect().await;
        client.send(head).await;
        assert_eq!(client.response().await.status, 200, "{head:?}");
        client.expect_close().await;
    }
}

#[tokio::test]
async fn contradictory_or_malformed_framing_is_refused() {
    let lines = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        " Transfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 1_0",
        "Content-Length: 1 0",
        "Content-Length: 5;",
        "Content-Length:",
        "Content-Length : 5",
        "Content-Length: 18446744073709551621",
    ];
    let requests: Vec<_> = lines.into_iter().map(post).collect();
    check_refused(400, "bad_framing", requests.iter().map(String::as_str)).await;
    check_refused(
        400,
        "bad_framing",
        [
            "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nabcde",
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn malformed_lines_are_refused() {
    let lines = [
        "X: a\nY: b",
        "X: a\n",
        "X: a\rb",
        "X: a\r",
        "X: a\r\n b",
        "X: a\r\n\tb",
        " X: a",
        "X : a",
        "X\t: a",
        "X: a\0b",
        "X: a\x01b",
        "X: a\x7fb",
        "X\0: a",
        ": a",
        "X Y: a",
        "X(: a",
        "X\u{e9}: a",
        "nonsense",
        "Host: b.test",
        "host: a.test",
    ];
    let requests: Vec<_> = lines.into_iter().map(post).collect();
    check_refused(400, "bad_framing", requests.iter().map(String::as_str)).await;
    check_refused(
        400,
        "bad_framing",
        [
            "GET / HTTP/1.1\nHost: a.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\n\n",
            "GET / HTTP/1.1\nHost: a.test\n\n",
            "GET /\r HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn hosts_that_are_no_hosts_are_refused() {
    let hosts = [
        "a.test/b",
        "u@a.test",
        "a.test b.test",
        "a.test,b.test",
        "a.test:80x",
        "a..test",
        "a.test\\b",
        "a.test?b",
        "a.test#b",
        "a%2etest",
        "\u{e9}.test",
        "[::1",
        "[x]",
        "a.test, a.test",
    ];
    let requests: Vec<_> = hosts.into_iter().map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).collect();
    check_refused(400, "bad_framing", requests.iter().map(String::as_str)).await;
}

#[tokio::test]
async fn targets_that_name_something_else_are_refused() {
    let targets = [
        "http://b.test/",
        "http://b.test@a.test/",
        "http://a.test@b.test/",
        "http:///x",
        "ftp://a.test/",
        "file:///etc/passwd",
        "a.test:80",
        "x",
        "*",
        "/a#b",
        "#",
        "/\u{e9}",
        "/a\x01b",
    ];
    let requests: Vec<_> =
        targets.into_iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).collect();
    check_refused(400, "bad_target", requests.iter().map(String::as_str)).await;
}

#[tokio::test]
async fn versions_and_methods_that_are_not_spoken_are_refused() {
    let versions = ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"];
    let requests: Vec<_> = versions.into_iter().map(|v| format!("GET / {v}\r\nHost: a.test\r\n\r\n")).collect();
    check_refused(505, "bad_version", requests.iter().map(String::as_str)).await;
    let connect = "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n";
    check_refused(405, "method_not_allowed", [connect]).await;
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("TRACE / HTTP/1.1\r\nHost: a.test\r\nX: secret\r\n\r\n").await;
    let response = edd.refusal(&mut client, 405, "method_not_allowed").await;
    assert!(!response.text().contains("secret"));
    assert!(upstream.take().is_empty());
}

/// What is wrong in two ways at once may be called by either name.
#[tokio::test]
async fn spoiled_request_lines_are_refused() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut cases = Cases::default();
    for head in [
        "GET /\r\n\r\n",
        "GET / \r\nHost: a.test\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a.test\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / http/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/11\r\nHost: a.test\r\n\r\n",
        "\x16\x03\x01\x02\x00\r\n\r\n",
        "hello\r\n\r\n",
    ] {
        let case = async {
            upstream.take();
            let mut client = edd.connect().await;
            client.send(head).await;
            let response = client.response().await;
            assert!(matches!(response.status, 400 | 505), "{}", response.status);
            edd.check_refusal(&response, response.status, response.json()["reason"].as_str().unwrap_or_default()).await;
            client.expect_close().await;
            assert!(upstream.take().is_empty(), "the upstream was asked");
        };
        cases.case(head, case).await;
    }
    cases.finish();
}

#[tokio::test]
async fn browsers_get_a_page_and_programs_a_problem() {
    let upstream = Upstream::start().await;
    let routes = format!("routes: [{{host: a.test, path: /, target: '{}'}}]", upstream.address);
    let edd = Edd::gateway(routes).start().await;
    let mut client = edd.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: b.test\r\nAccept: text/html,*/*;q=0.8\r\n\r\n").await;
    let page = client.response().await;
    assert_eq!((page.status, page.header("content-type")), (404, "text/html; charset=utf-8"));
    assert!(page.text().contains(page.header("x-request-id")), "{}", page.text());
    assert!(page.text().contains("no_route"), "{}", page.text());

    client.send("GET /<script>alert(1)</script> HTTP/1.1\r\nHost: b.test\r\nAccept: text/html\r\n\r\n").await;
    assert!(!client.response().await.text().contains("<script>alert"));

    let mut client = edd.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    edd.refusal(&mut client, 404, "no_route").await;
    client.send("HEAD /x HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    let head = client.try_response("HEAD").await.expect("an answer without a body");
    assert_eq!(head.status, 404);
    client.send("GET /ok HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
}
