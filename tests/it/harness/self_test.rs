//! The harness, tried without edd between client and upstream: what passes here fails because of edd there.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::tls::{Authority, Client};
use super::{Broken, Connection, H2Upstream, Link, Progress, RawUpstream, Upstream, Way, frames};

#[tokio::test]
async fn the_upstream_behaves_as_the_path_says() {
    let upstream = Upstream::named("blue").await;
    let mut client = Connection::open(upstream.address).await;
    client.send("POST /a?b HTTP/1.1\r\nHost: x\r\nX_A: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 9\r\n\r\n").await;
    let account = client.response().await;
    assert_eq!(account.header("x-upstream"), "blue");
    assert_eq!(account.json()["target"], "/a?b");
    assert_eq!(account.json()["headers"]["x_a"], "1");
    let seen = upstream.take().remove(0);
    assert_eq!((seen.body.as_slice(), seen.trailer("x-t").as_str()), (&b"abc"[..], "9"));
    assert_eq!(seen.progress, Progress::Received);

    client.send("GET /size/70000 HTTP/1.1\r\nHost: x\r\n\r\nGET /chunked/70000 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.response().await.body.len(), 70_000);
    assert_eq!(client.response().await.body.len(), 70_000);
    client.send("GET /gate/a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    upstream
        .wait("the request at the gate", |seen| seen.progress == Progress::Received && seen.target == "/gate/a")
        .await;
    assert!(!client.is_closed().await);
    upstream.open("a");
    assert_eq!(client.response().await.text(), "open");
    client.send("GET /sse HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.head().await.expect("the head comes before the first event");
    upstream.event("1");
    assert_eq!(client.chunk().await.expect("an event"), b"data: 1\n\n");
}

#[tokio::test]
async fn the_upstream_notices_who_leaves() {
    let upstream = Upstream::start().await;
    let mut client = Connection::open(upstream.address).await;
    client.send("GET /gate/never HTTP/1.1\r\nHost: x\r\n\r\n").await;
    upstream.wait("the request", |seen| seen.progress == Progress::Received).await;
    drop(client);
    upstream.wait("the client to be gone", |seen| seen.progress == Progress::Abandoned).await;
    let mut client = Connection::open(upstream.address).await;
    client.send("POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc").await;
    upstream.wait("half a body", |seen| seen.body_bytes == 3).await;
    drop(client);
    upstream.wait("the body to end early", |seen| seen.progress == Progress::Truncated).await;
}

#[tokio::test]
async fn a_link_holds_what_goes_the_way_that_is_cut() {
    let upstream = Upstream::start().await;
    let link = Link::to(&format!("http://someone@{}/path", upstream.address)).await;
    let here = link.url.strip_prefix("http://someone@").and_then(|rest| rest.strip_suffix("/path"));
    let mut client = Connection::open(here.expect("the same URL").parse().expect("an address")).await;
    let mut other = Connection::open(upstream.address).await;
    link.cut(Way::ToServer);
    client.send("GET /size/1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    other.send("GET /size/2 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(other.response().await.body.len(), 2);
    assert_eq!(upstream.take().iter().map(|seen| seen.target.as_str()).collect::<Vec<_>>(), ["/size/2"]);
    link.cut(Way::FromServer);
    link.mend(Way::ToServer);
    upstream.wait("the request", |seen| seen.progress == Progress::Received && seen.target == "/size/1").await;
    link.mend(Way::FromServer);
    assert_eq!(client.response().await.body.len(), 1);
}

#[tokio::test]
async fn websockets_echo() {
    let upstream = Upstream::start().await;
    let stream = Connection::open(upstream.address).await.into_stream();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://x/ws", stream).await.expect("a WebSocket");
    socket.send(Message::text("hello")).await.expect("an open socket");
    assert_eq!(socket.next().await.expect("an echo").expect("a message"), Message::text("hello"));
}

#[tokio::test]
async fn grpc_echoes_both_ways_with_trailers() {
    let upstream = H2Upstream::start().await;
    let stream = Connection::open(upstream.address).await.into_stream();
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("an open connection");
    let request = http::Request::post("http://x/echo").body(()).expect("a request");
    let (response, mut send) = client.send_request(request, false).expect("room for a stream");
    let mut body = response.await.expect("a head before the end of the request").into_body();
    for piece in ["one", "two"] {
        send.send_data(Bytes::from(piece), false).expect("an open stream");
        assert_eq!(body.data().await.expect("an echo").expect("data"), piece);
    }
    send.send_data(Bytes::new(), true).expect("an open stream");
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.expect("a clean end").expect("trailers")["x-body-bytes"], "6");
}

#[tokio::test]
async fn frames_reach_a_real_server() {
    let upstream = H2Upstream::start().await;
    let mut client = Connection::open(upstream.address).await;
    client.send_preface(&[]).await;
    client.send_frame(frames::Frame::request(1, &frames::get("x", "/a"))).await.expect("an open connection");
    let head = client.frame_where(|frame| frame.kind == frames::HEADERS).await.expect("an answer");
    assert_eq!(head.indexed_status(), Some(200));
    assert_eq!(upstream.seen()[0].target, "/a");
}

#[tokio::test]
async fn broken_answers_are_told_apart() {
    for (answer, broken) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Some(Broken::Truncated)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Some(Broken::Truncated)),
        ("HTTP/1.1 200 OK\r\nContent-", Some(Broken::Truncated)),
        ("", Some(Broken::Closed)),
        ("HTTP/1.1 200 OK\r\n\r\nabc", None),
    ] {
        let upstream = RawUpstream::start(move |mut connection| async move {
            connection.head().await;
            connection.send(answer).await;
        })
        .await;
        let mut client = Connection::open(upstream.address).await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(client.try_response("GET").await.err(), broken, "{answer}");
        assert!(upstream.bytes().starts_with(b"GET / "));
    }
}

#[tokio::test]
async fn tls_is_checked_on_both_sides() {
    let authority = Authority::new("test authority");
    let acceptor = authority.sign(&["a.test"]).acceptor(&authority, &["h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
    let server = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                stream.write_all(b"hi").await.expect("the client reads");
            }
        }
    });
    let client = Client::with_identity(&authority.pem(), &authority.sign(&["client"])).alpn(&["h2", "http/1.1"]);
    let (mut connection, agreed) = client.connect(server, "a.test").await.expect("a handshake");
    assert_eq!((agreed.alpn.as_str(), agreed.certificate.is_empty()), ("h2", false));
    assert_eq!(agreed.version, Some(tokio_rustls::rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(connection.exactly(2).await.expect("what the server says"), b"hi");
    let stranger = Client::trusting(&Authority::new("another").pem());
    assert!(stranger.connect(server, "a.test").await.is_err());
    assert!(Client::trusting(&authority.pem()).connect(server, "b.test").await.is_err());
}
