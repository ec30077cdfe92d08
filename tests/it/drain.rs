//! The end of a process: who is told, what is still served, and what is cut off.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::harness::frames::{self, Frame};
use crate::harness::h2_client::{self, head, piece};
use crate::harness::tls::Client;
use crate::harness::{Broken, Connection, Edd, H2Client, H2Upstream, Upstream, within};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Sends SIGTERM, and waits until edd tells its clients.
async fn terminate(edd: &mut Edd) -> Instant {
    edd.signal(Signal::TERM);
    let since = Instant::now();
    let told = async {
        loop {
            let mut client = edd.connect().await;
            client.send(GET).await;
            if client.response().await.header("connection") == "close" {
                return client.expect_close().await;
            }
        }
    };
    within("the drain to begin", told).await;
    since
}

#[tokio::test]
async fn readiness_goes_before_anything_else() {
    const DELAY: Duration = Duration::from_secs(2);
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_SHUTDOWN_DELAY_SECONDS", &DELAY.as_secs().to_string());
    let mut edd = edd.start().await;
    let mut client = edd.connect().await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);
    edd.signal(Signal::TERM);
    let since = Instant::now();
    within("readiness to go", async { while edd.admin("/readyz").await.status != 503 {} }).await;
    let verbose = edd.admin("/readyz?verbose").await;
    assert!(verbose.text().contains("[-] listeners: draining"), "{}", verbose.text());
    assert_eq!(edd.admin("/livez").await.status, 200);
    // Whoever has not heard of it yet is served as ever, on new connections and on old.
    let mut served = 0;
    let mut new = edd.connect().await;
    loop {
        new.send(GET).await;
        let answer = new.response().await;
        assert_eq!(answer.status, 200);
        if answer.header("connection") == "close" {
            break;
        }
        client.send(GET).await;
        assert_eq!(client.response().await.status, 200);
        served += 1;
    }
    assert!(since.elapsed() >= DELAY && served > 10, "{served} requests in {:?}", since.elapsed());
    new.expect_close().await;
    assert_eq!(edd.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn idle_connections_are_told() {
    let upstream = Upstream::start().await;
    let mut edd = Edd::gateway(upstream.routes()).start().await;
    let [mut asks, mut silent, mut fresh] = [edd.connect().await, edd.connect().await, edd.connect().await];
    for client in [&mut asks, &mut silent] {
        client.send(GET).await;
        assert_eq!(client.response().await.header("connection"), "keep-alive");
    }
    let mut h2 = edd.connect().await;
    h2.send_preface(&[]).await;
    h2.send(Frame::request(1, &frames::get("a.test", "/x")).bytes()).await;
    h2.frame_where(|frame| frame.stream == 1 && frame.flags & frames::END_STREAM != 0).await.expect("an answer");
    let since = terminate(&mut edd).await;
    // Meanwhile others are served. A request that was on its way is answered, and is the last.
    for _ in 0..10 {
        assert_eq!(edd.get("a.test", "/x").await.status, 200);
    }
    asks.send(GET).await;
    let answer = asks.response().await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    asks.expect_close().await;
    // RFC 9113 §6.8: a first GOAWAY that ends nothing, and the true one when the client has seen it.
    let goaway = h2.frame_where(|frame| frame.kind == frames::GOAWAY).await.expect("a GOAWAY");
    assert_eq!(goaway.payload[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], "{goaway:?}");
    let ping = h2.frame_where(|frame| frame.kind == frames::PING).await.expect("a PING");
    h2.send(Frame::request(3, &frames::get("a.test", "/x")).bytes()).await;
    h2.send(Frame::new(frames::PING, frames::ACK, 0, ping.payload).bytes()).await;
    let head = h2.frame_where(|frame| frame.stream == 3 && frame.kind == frames::HEADERS).await.expect("an answer");
    assert_eq!(head.indexed_status(), Some(200));
    h2.rest().await;
    silent.expect_close().await;
    fresh.expect_close().await;
    assert_eq!(edd.wait_exit().await.code(), Some(0));
    // Nobody had to be waited for.
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[tokio::test]
async fn what_is_in_flight_is_finished() {
    const DOWNLOAD_BYTES: usize = 48 * 1024 * 1024;
    let (upstream, grpc) = (Upstream::start().await, H2Upstream::start().await);
    let mut edd = Edd::gateway(format!(
        "routes: [{{host: a.test, target: '{}'}}, {{host: grpc.test, target: 'h2c://{}'}}]",
        upstream.address, grpc.address
    ))
    .start()
    .await;
    let mut waiting = edd.connect().await;
    waiting.send("GET /gate/end?h1 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let mut upload = edd.connect().await;
    upload.send("POST /upload HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello").await;
    let mut download = edd.connect().await;
    download.send(format!("GET /chunked/{DOWNLOAD_BYTES} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    assert_eq!(download.head().await.expect("a head").status, 200);
    let h2 = H2Client::over(edd.connect().await).await;
    let behind_gate = h2.ask(h2_client::get("http://a.test/gate/end?h2")).await.expect("a stream");
    let call = Request::post("http://grpc.test/echo").header("content-type", "application/grpc");
    let (answer, mut send) = h2.open(call.body(()).expect("a request")).await.expect("a stream");
    let mut echo = head(answer).await.expect("a head").into_body();
    for target in ["/gate/end?h1", "/gate/end?h2", "/upload"] {
        upstream.wait(target, |seen| seen.target == target && (seen.is_whole() || seen.body_bytes > 0)).await;
    }
    terminate(&mut edd).await;
    send.send_data(Bytes::from_static(b"still"), true).expect("an open stream");
    assert_eq!(piece(&mut echo).await.expect("an open stream").expect("data"), "still");
    upload.send("world").await;
    let answer = upload.response().await;
    assert_eq!((answer.json()["body"].as_str(), answer.header("connection")), (Some("helloworld"), "close"));
    upstream.open("end");
    assert_eq!(h2_client::read(behind_gate).await.expect("an answer").text(), "open");
    let answer = waiting.response().await;
    assert_eq!((answer.text(), answer.header("connection")), ("open", "close"));
    let mut received = 0;
    while let chunk @ 1.. = download.chunk().await.expect("a whole download").len() {
        received += chunk;
    }
    assert_eq!(received, DOWNLOAD_BYTES);
    assert_eq!(h2.closed().await.map(|error| error.to_string()), None);
    assert_eq!(edd.wait_exit().await.code(), Some(0));
}

/// Sends a request that is not answered to its end, and tells its id.
async fn hang(upstream: &Upstream, mut client: Connection, target: &str) -> (Connection, String) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: cloud.localhost\r\n\r\n")).await;
    let seen = upstream.wait(target, |seen| seen.target == target && seen.is_whole()).await;
    (client, seen.header("x-request-id"))
}

#[tokio::test]
async fn the_drain_time_is_a_limit_for_everything() {
    const DRAIN: Duration = Duration::from_secs(2);
    let upstream = Upstream::start().await;
    let mut edd = Edd::gateway(upstream.routes()).env("EDD_DRAIN_SECONDS", &DRAIN.as_secs().to_string()).start().await;
    let mut socket = edd.websocket("a.test").await;
    let mut ids = vec![socket.request_id.clone()];
    let secure = Client::trusting(&edd.local_authority()).alpn(&["http/1.1"]);
    let (secure, _) = secure.connect(edd.https, "cloud.localhost").await.expect("a handshake");
    let mut open = Vec::new();
    for (client, target) in [(edd.connect().await, "/gate/h1"), (secure, "/gate/tls"), (edd.connect().await, "/sse")] {
        let (client, id) = hang(&upstream, client, target).await;
        open.push(client);
        ids.push(id);
    }
    let h2 = H2Client::over(edd.connect().await).await;
    let unanswered = h2.ask(h2_client::get("http://a.test/gate/h2")).await.expect("a stream");
    let seen = upstream.wait("the stream", |seen| seen.target == "/gate/h2" && seen.is_whole()).await;
    ids.push(seen.header("x-request-id"));
    let events = head(h2.ask(h2_client::get("http://a.test/sse")).await.expect("a stream")).await.expect("a head");
    ids.push(events.headers()["x-request-id"].to_str().expect("ASCII").to_owned());

    let since = terminate(&mut edd).await;
    socket.echo("not yet").await;
    assert_eq!(socket.next().await, None);
    assert!(since.elapsed() >= DRAIN, "cut after {:?}", since.elapsed());
    assert_eq!(edd.wait_exit().await.code(), Some(0));
    assert!(since.elapsed() < DRAIN + Duration::from_secs(3), "ended after {:?}", since.elapsed());
    let broken =
        [open[0].try_response("GET").await, open[1].try_response("GET").await].map(|r| r.expect_err("no answer"));
    assert_eq!(broken, [Broken::Closed, Broken::Closed]);
    open[2].head().await.expect("what was sent before");
    open[2].chunk().await.expect_err("no clean end");
    h2_client::read(unanswered).await.expect_err("no answer");
    assert!(piece(&mut events.into_body()).await.is_none_or(|data| data.is_err()));
    // Not one is lost with the process.
    for id in &ids {
        let line = edd.wait_log(format!("the line of {id}"), |line| line.field("request_id") == *id).await;
        assert_eq!(line.field("reason"), "shutting_down", "{line:?}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_wait() {
    let upstream = Upstream::start().await;
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::TERM, Signal::INT), (Signal::INT, Signal::INT)] {
        eprintln!("case: {first:?}, then {second:?}");
        let mut edd = Edd::gateway(upstream.routes()).env("EDD_DRAIN_SECONDS", "60").start().await;
        let mut socket = edd.websocket("a.test").await;
        edd.signal(first);
        edd.wait_log("the drain to begin", |line| matches!(&*line.field("message"), "draining" | "stopping")).await;
        socket.echo("in no hurry").await;
        let since = Instant::now();
        edd.signal(second);
        assert_eq!(edd.wait_exit().await.code(), Some(1));
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        assert_eq!(socket.next().await, None);
    }
}

/// Ctrl-C: a person is waiting, but nothing that has begun is thrown away.
#[tokio::test]
async fn an_interrupt_waits_for_requests_alone() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_SHUTDOWN_DELAY_SECONDS", "60");
    let mut edd = edd.env("EDD_DRAIN_SECONDS", "60").start().await;
    let mut idle = edd.connect().await;
    idle.send(GET).await;
    assert_eq!(idle.response().await.status, 200);
    let mut waiting = edd.connect().await;
    waiting.send("GET /gate/end HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    upstream.wait("the request", |seen| seen.target == "/gate/end" && seen.is_whole()).await;
    edd.signal(Signal::INT);
    idle.expect_close().await;
    assert_eq!(edd.admin("/readyz").await.status, 503);
    upstream.open("end");
    assert_eq!(waiting.response().await.text(), "open");
    assert_eq!(edd.wait_exit().await.code(), Some(0));
}
