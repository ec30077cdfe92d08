//! Server-sent events and gRPC: each piece arrives before the next is sent, in both directions.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use crate::harness::h2_client::{self, head, piece};
use crate::harness::tls::Client;
use crate::harness::{Edd, H2Client, H2Upstream, Progress, RawUpstream, Upstream};

/// Routes to `target` whose timeouts a test can wait for.
fn impatient(target: impl std::fmt::Display) -> String {
    format!("routes: [{{target: '{target}', timeouts: {{read: 200ms, stream_idle: 1s}}}}]")
}

/// HTTP/2 over TLS, as browsers speak it.
async fn secure(edd: &Edd) -> H2Client {
    let client = Client::trusting(&edd.local_authority()).alpn(&["h2"]);
    H2Client::over(client.connect(edd.https, "cloud.localhost").await.expect("a handshake").0).await
}

fn grpc(path: &str) -> Request<()> {
    let request = Request::post(format!("http://cloud.localhost{path}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).expect("a request")
}

#[tokio::test]
async fn events_arrive_one_by_one_over_http2() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let client = secure(&edd).await;
    let request = Request::get("https://cloud.localhost/sse").header("accept", "text/event-stream");
    let answer = client.ask(request.body(()).expect("a request")).await.expect("a stream");
    let answer = head(answer).await.expect("the head comes before the first event");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut events = answer.into_body();
    for number in 0..5 {
        upstream.event(&number.to_string());
        let event = piece(&mut events).await.expect("an open stream").expect("an event");
        assert_eq!(event, format!("data: {number}\n\n"));
    }
}

#[tokio::test]
async fn silent_events_are_waited_for_as_long_as_the_route_says() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(impatient(upstream.address)).start().await;
    let mut client = edd.connect().await;
    client.send("GET /sse HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n").await;
    let head = client.head().await.expect("a head");
    let id = head.headers["x-request-id"].to_str().expect("ASCII").to_owned();
    upstream.event("last");
    client.chunk().await.expect("an event");
    let silent = Instant::now();
    client.chunk().await.expect_err("no event, and no clean end");
    assert!(silent.elapsed() >= Duration::from_millis(900), "cut after {:?}", silent.elapsed());
    assert_eq!(edd.access_line(&id).await.field("reason"), "stream_idle");
}

#[tokio::test]
async fn grpc_calls_carry_trailers() {
    let upstream = H2Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for client in [H2Client::over(edd.connect().await).await, secure(&edd).await] {
        let (answer, mut send) = client.open(grpc("/echo.Echo/Unary")).await.expect("a stream");
        send.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true).expect("an open stream");
        let answer = h2_client::read(answer).await.expect("an answer");
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc"));
        assert_eq!(answer.body, b"\0\0\0\0\x02hi");
        assert_eq!(answer.trailers["grpc-status"], "0");
        assert_eq!(answer.trailers["x-body-bytes"], "7");
        let seen = upstream.take().remove(0);
        assert_eq!((seen.target.as_str(), seen.header("te").as_str()), ("/echo.Echo/Unary", "trailers"));
    }
}

#[tokio::test]
async fn grpc_streams_both_ways() {
    let upstream = H2Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let client = secure(&edd).await;
    let (answer, mut send) = client.open(grpc("/echo.Echo/Bidi")).await.expect("a stream");
    let mut body = head(answer).await.expect("a head before the end of the request").into_body();
    for number in 0..20 {
        let message = Bytes::from(vec![number; 1 + usize::from(number) * 1000]);
        send.send_data(message.clone(), false).expect("an open stream");
        let mut echo = Vec::new();
        while echo.len() < message.len() {
            echo.extend_from_slice(&piece(&mut body).await.expect("an open stream").expect("data"));
        }
        assert_eq!(echo, message);
    }
    send.send_data(Bytes::new(), true).expect("an open stream");
    assert!(piece(&mut body).await.is_none());
    let trailers = body.trailers().await.expect("a clean end").expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
}

/// Between two messages of a stream, minutes may pass.
#[tokio::test]
async fn grpc_streams_outlive_the_read_timeout() {
    let upstream = H2Upstream::start().await;
    let edd = Edd::gateway(impatient(format!("h2c://{}", upstream.address))).start().await;
    let client = H2Client::over(edd.connect().await).await;
    let (answer, mut send) = client.open(grpc("/echo.Echo/Bidi")).await.expect("a stream");
    let answer = head(answer).await.expect("a head");
    let id = answer.headers()["x-request-id"].to_str().expect("ASCII").to_owned();
    let mut body = answer.into_body();
    let mut pace = tokio::time::interval(Duration::from_millis(400));
    for _ in 0..4 {
        pace.tick().await;
        send.send_data(Bytes::from_static(b"x"), false).expect("an open stream");
        assert_eq!(piece(&mut body).await.expect("an open stream").expect("data"), "x");
    }
    let silent = Instant::now();
    assert!(piece(&mut body).await.expect("a broken end").is_err());
    assert!(silent.elapsed() >= Duration::from_millis(900), "cut after {:?}", silent.elapsed());
    assert_eq!(edd.access_line(&id).await.field("reason"), "stream_idle");
}

#[tokio::test]
async fn grpc_callers_that_cancel_are_followed() {
    let upstream = H2Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let client = H2Client::over(edd.connect().await).await;
    let (answer, mut send) = client.open(grpc("/echo.Echo/Bidi")).await.expect("a stream");
    let answer = head(answer).await.expect("a head");
    let id = answer.headers()["x-request-id"].to_str().expect("ASCII").to_owned();
    send.send_reset(h2::Reason::CANCEL);
    upstream.wait("the call to end", |seen| seen.progress == Progress::Truncated).await;
    assert_eq!(edd.access_line(&id).await.field("reason"), "client_closed");
    // The connection serves on.
    let (answer, mut send) = client.open(grpc("/echo.Echo/Unary")).await.expect("a stream");
    send.send_data(Bytes::new(), true).expect("an open stream");
    assert_eq!(h2_client::read(answer).await.expect("an answer").trailers["grpc-status"], "0");
}

/// What the gateway says itself is a gRPC status, in an answer that is a success to HTTP.
#[tokio::test]
async fn grpc_callers_are_told_of_errors_in_their_own_terms() {
    let (_held, refusing) = RawUpstream::refusing();
    let silent = H2Upstream::start().await;
    let hanging = RawUpstream::start(|mut connection| async move { connection.hang().await }).await;
    let edd = Edd::gateway(format!(
        "routes:
        - {{host: refusing.test, target: 'h2c://{refusing}'}}
        - {{host: limited.test, target: 'h2c://{}', body_limit: 3}}
        - {{host: hanging.test, target: 'h2c://{}', timeouts: {{connect: 300ms, read: 200ms, stream_idle: 300ms}}}}",
        silent.address, hanging.address
    ))
    .start()
    .await;
    let client = H2Client::over(edd.connect().await).await;
    for (host, length, status, reason) in [
        ("unknown.test", 0, "12", "no_route"),
        ("refusing.test", 0, "14", "upstream_refused"),
        ("limited.test", 4, "8", "body_too_large"),
        ("hanging.test", 0, "4", "upstream_timeout"),
    ] {
        eprintln!("case: {host}");
        let request = Request::post(format!("http://{host}/x")).header("content-type", "application/grpc");
        let request = request.header("content-length", length).body(()).expect("a request");
        let (answer, mut send) = client.open(request).await.expect("a stream");
        send.send_data(Bytes::from(vec![0; length]), true).expect("an open stream");
        let answer = h2_client::read(answer).await.expect("an answer");
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc"));
        assert_eq!([answer.header("grpc-status"), answer.header("grpc-message")], [status, reason]);
        assert!(answer.body.is_empty());
        let asked = Request::head(format!("http://{host}/x")).body(()).expect("a request");
        let answer_to_head = client.send(asked).await.expect("an answer, not a reset");
        // Without a body there is nothing to limit.
        assert_eq!(answer_to_head.status >= 400, host != "limited.test", "{}", answer_to_head.status);
        assert!(answer_to_head.body.is_empty());
        let line = edd.access_line(answer.header("x-request-id")).await;
        assert_eq!(line.field("reason"), reason, "{line:?}");
    }
}
