//! Bodies: their limits, their pace, and what happens when one side leaves.

use std::time::Duration;

use crate::harness::{Broken, Edd, Progress, RawUpstream, Upstream};

#[tokio::test]
async fn bodies_over_the_routes_limit_are_refused() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(format!("routes: [{{host: a.test, target: '{}', body_limit: 1000}}]", upstream.address))
        .start()
        .await;
    let at_limit = "x".repeat(1000);
    let mut client = edd.connect().await;
    client.send(format!("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n{at_limit}")).await;
    assert_eq!(client.response().await.json()["body_bytes"], 1000);
    client
        .send(format!(
            "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{at_limit}\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(client.response().await.json()["body_bytes"], 1000);
    upstream.take();

    // One that says its length is refused at once: not a byte of it has come.
    let mut client = edd.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n").await;
    let refusal = edd.refusal(&mut client, 413, "body_too_large").await;
    assert!(refusal.interim.is_empty());
    assert!(upstream.take().is_empty());

    // One that does not is counted, however it is cut.
    for chunk in [1001, 7] {
        let mut client = edd.connect().await;
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let piece = format!("{chunk:x}\r\n{}\r\n", "x".repeat(chunk));
        let _ = client.try_send(piece.repeat(1001_usize.div_ceil(chunk))).await;
        edd.refusal(&mut client, 413, "body_too_large").await;
        client.expect_close().await;
        let seen = upstream.wait("the request's end", |seen| seen.is_over()).await;
        assert!(!seen.is_whole() && seen.body_bytes <= 1000, "{seen:?}");
        upstream.take();
    }
}

#[tokio::test]
async fn bodies_of_every_shape_pass_unchanged() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    for size in [0, 1, 100, 70_000, 3_000_000] {
        for kind in ["size", "chunked"] {
            client.send(format!("GET /{kind}/{size} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
            let response = client.response().await;
            assert_eq!(response.body.len(), size, "{kind}");
            assert!(response.body.iter().all(|&byte| byte == b'x'));
        }
        let body = "y".repeat(size);
        client.send(format!("PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n{body}")).await;
        assert_eq!(client.response().await.json()["body_bytes"], size);
    }
    client.send("HEAD /size/1000 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.try_response("HEAD").await.expect("a head").header("content-length"), "1000");
    assert_eq!(client.response().await.status, 200);
    for status in [204, 304] {
        client.send(format!("GET /status/{status} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        assert_eq!(client.response().await.status, status);
    }
}

/// A gateway may drop trailers (RFC 9110 §6.5.1), but must know where they end.
#[tokio::test]
async fn trailers_of_an_answer_do_not_shift_the_next() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    for _ in 0..3 {
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.text(), "abc");
        assert!(response.trailers.get("x-sum").is_none_or(|sum| sum == "1"), "{:?}", response.trailers);
    }
}

#[tokio::test]
async fn a_body_that_waits_for_100_is_asked_for() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await.expect("an interim answer").status, 100);
    client.send("hello").await;
    assert_eq!(client.response().await.json()["body"], "hello");
    // An upstream that refuses is heard before the body is sent.
    let refusing =
        RawUpstream::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let edd = Edd::gateway(refusing.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.response().await.status, 403);
}

/// An answer that comes before its request has ended reaches the client while the upload still runs.
#[tokio::test]
async fn early_answers_reach_the_client() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nabc").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    // While the upstream thinks.
    let mut client = edd.connect().await;
    client.send("GET /gate/never HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let id = upstream.wait("the request", |seen| seen.is_whole()).await.header("x-request-id");
    drop(client);
    upstream.wait("the connection's end", |seen| seen.progress == Progress::Abandoned).await;
    check_left(&edd, &id).await;
    upstream.take();

    // While it sends its body.
    let mut client = edd.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nabc").await;
    let id = upstream.wait("the beginning of the body", |seen| seen.body_bytes == 3).await.header("x-request-id");
    drop(client);
    upstream.wait("the body to end early", |seen| seen.progress == Progress::Truncated).await;
    check_left(&edd, &id).await;
    upstream.take();

    // While it is sent the answer's.
    let mut client = edd.connect().await;
    client.send("GET /sse HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let id =
        client.head().await.expect("the head comes first").headers["x-request-id"].to_str().expect("ASCII").to_owned();
    drop(client);
    check_left(&edd, &id).await;
}

async fn check_left(edd: &Edd, id: &str) {
    let line = edd.access_line(id).await;
    assert_eq!(line.field("reason"), "client_closed", "{line:?}");
}

/// A client that reads no more must stop the upstream, not fill edd's memory.
#[tokio::test]
async fn slow_readers_hold_their_upstream_back() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    assert_eq!(edd.get("a.test", "/x").await.status, 200);
    let before = edd.resident_kib();
    let size = 256 * 1024 * 1024;
    let mut client = edd.connect().await;
    client.send(format!("GET /chunked/{size} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    client.head().await.expect("a head");
    // The others are served as ever, for as long as it would take edd to swallow the body.
    for _ in 0..100 {
        assert_eq!(edd.get("a.test", "/size/100000").await.body.len(), 100_000);
    }
    let grown = edd.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "memory grew by {grown} KiB");
    let mut left = size;
    while left > 0 {
        left -= client.chunk().await.expect("the body goes on").len();
    }
    let grown = edd.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "memory grew by {grown} KiB");
}

/// An upstream that reads no more must stop the client.
#[tokio::test]
async fn slow_upstreams_hold_their_client_back() {
    let upstream = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let edd =
        Edd::gateway(format!("routes: [{{target: '{}', timeouts: {{write: 300ms, read: 300ms}}}}]", upstream.address))
            .start()
            .await;
    let before = edd.resident_kib();
    let mut client = edd.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let block = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut sent = 0;
    while client.try_send(&block).await.is_ok() {
        sent += block.len();
        assert!(sent < 256 * 1024 * 1024, "edd takes a body that nobody reads");
    }
    let answer = client.try_response("POST").await.map(|response| response.status);
    assert!(matches!(answer, Ok(504) | Err(Broken::Closed)), "{answer:?}");
    let grown = edd.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "memory grew by {grown} KiB");
}

/// While the client owes the rest of its body, the upstream owes nothing (pingora's issue 255).
#[tokio::test]
async fn an_upload_may_pause_for_longer_than_its_answer_may_take() {
    let upstream = Upstream::start().await;
    let edd =
        Edd::gateway(format!("routes: [{{target: '{}', timeouts: {{read: 300ms}}}}]", upstream.address)).start().await;
    let mut client = edd.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\n\r\nabc").await;
    assert!(client.stays_quiet(Duration::from_millis(1200)).await, "the upload was given up");
    client.send("def").await;
    assert_eq!(client.response().await.json()["body"], "abcdef");
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("GET /sse HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n").await;
    let head = client.head().await.expect("the head comes before the first event");
    assert_eq!(head.headers["content-type"], "text/event-stream");
    for number in 0..5 {
        upstream.event(&number.to_string());
        assert_eq!(client.chunk().await.expect("an event"), format!("data: {number}\n\n").into_bytes());
    }
}
