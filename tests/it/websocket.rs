//! WebSockets: what passes, how long they live, and who learns of their end.

use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::tls::Client;
use crate::harness::{Edd, RawUpstream, Upstream, WebSocket};

#[tokio::test]
async fn messages_of_every_size_are_echoed() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let client = Client::trusting(&edd.local_authority()).alpn(&["http/1.1"]);
    let (secure, _) = client.connect(edd.https, "cloud.localhost").await.expect("a handshake");
    let secure = WebSocket::open(secure, "cloud.localhost", "/ws").await.expect("a WebSocket");
    for mut socket in [edd.websocket("a.test").await, secure] {
        socket.echo("hello").await;
        for size in [0, 125, 126, 65_535, 65_536, 8 * 1024 * 1024] {
            let message = Message::binary(vec![0xa5; size]);
            socket.send(message.clone()).await;
            assert!(socket.next().await == Some(message), "{size} bytes");
        }
        // Several at once: a stream in each direction, not a conversation.
        for number in 0..100 {
            socket.send(Message::text(number.to_string())).await;
        }
        for number in 0..100 {
            assert_eq!(socket.next().await, Some(Message::text(number.to_string())));
        }
        let id = socket.request_id.clone();
        socket.close().await;
        let line = edd.access_line(&id).await;
        assert_eq!([line.field("status"), line.field("reason"), line.field("path")], ["101", "", "/ws"], "{line:?}");
        for field in ["bytes_in", "bytes_out"] {
            let bytes: u64 = line.field(field).parse().expect("a number");
            assert!(bytes > 8 * 1024 * 1024, "{field}: {bytes}");
        }
    }
}

#[tokio::test]
async fn silence_is_borne_for_as_long_as_the_route_says() {
    let upstream = Upstream::start().await;
    let timeouts = "{read: 200ms, write: 200ms, stream_idle: 1s}";
    let edd = Edd::gateway(format!("routes: [{{target: '{}', timeouts: {timeouts}}}]", upstream.address)).start().await;
    let mut socket = edd.websocket("a.test").await;
    socket.echo("last word").await;
    let silent = Instant::now();
    assert_eq!(socket.next().await, None);
    assert!(silent.elapsed() >= Duration::from_millis(900), "cut after {:?}", silent.elapsed());
    let line = edd.access_line(&socket.request_id).await;
    assert_eq!([line.field("status"), line.field("reason")], ["101", "stream_idle"]);

    // Not silent: each word begins the wait anew.
    let mut socket = edd.websocket("a.test").await;
    let mut pace = tokio::time::interval(Duration::from_millis(250));
    for word in 0..8 {
        pace.tick().await;
        socket.echo(&word.to_string()).await;
    }
}

#[tokio::test]
async fn either_end_takes_the_other_along() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // The first bytes may come right behind the 101.
    let upstream = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.send([SWITCH, "hello"].concat()).await;
        if connection.number == 0 {
            connection.hang().await;
        }
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    // The client leaves.
    let mut client = edd.connect().await;
    client.send(ASK).await;
    assert_eq!(client.head().await.expect("an answer").status, 101);
    assert_eq!(client.exactly(5).await.expect("what the upstream says"), b"hello");
    client.send("to the upstream").await;
    upstream.wait("what the client says", |c| c.bytes.ends_with(b"to the upstream")).await;
    drop(client);
    upstream.wait("the end of the upstream's connection", |c| c.number == 0 && c.closed).await;
    // The upstream leaves.
    let mut client = edd.connect().await;
    client.send(ASK).await;
    assert_eq!(client.head().await.expect("an answer").status, 101);
    assert_eq!(client.rest().await, b"hello");
}

/// The 101 may come before the engine has told itself that the request is over.
#[tokio::test]
async fn targets_that_answer_at_once_stay_connected() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upstream = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.send([SWITCH, "hello"].concat()).await;
        connection.hang().await;
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut clients = Vec::new();
    // One after the other, so that nothing holds the upstream up.
    for _ in 0..100 {
        let mut client = edd.connect().await;
        client
            .send(
                "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        assert_eq!(client.head().await.expect("an answer").status, 101);
        assert_eq!(client.exactly(5).await.expect("what the upstream says"), b"hello");
        clients.push(client);
    }
    for mut client in clients {
        assert!(!client.is_closed().await);
    }
}

#[tokio::test]
async fn routes_may_refuse_to_upgrade() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(format!("routes: [{{target: '{}', websocket: false}}]", upstream.address)).start().await;
    let refused = WebSocket::open(edd.connect().await, "a.test", "/x").await;
    // The upstream answers what is a plain request to it.
    assert_eq!(refused.err(), Some(200));
    let seen = upstream.take().remove(0);
    assert_eq!([seen.header("upgrade"), seen.header("connection")], ["", ""], "{seen:?}");
    // An upstream that switches all the same is not let through.
    let refused = WebSocket::open(edd.connect().await, "a.test", "/ws").await;
    assert_eq!(refused.err(), Some(502));
    // What is no WebSocket is none on a route that takes them, either.
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
    let account = client.response().await.json();
    assert_eq!(account["headers"]["upgrade"], serde_json::Value::Null);
    assert_eq!(account["headers"]["connection"], serde_json::Value::Null);
}

#[tokio::test]
async fn refusals_by_the_upstream_reach_the_client() {
    let upstream = RawUpstream::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for _ in 0..2 {
        assert_eq!(WebSocket::open(edd.connect().await, "a.test", "/ws").await.err(), Some(403));
    }
    let (_held, address) = RawUpstream::refusing();
    let edd = Edd::gateway(format!("routes: [{{target: '{address}'}}]")).start().await;
    assert_eq!(WebSocket::open(edd.connect().await, "a.test", "/ws").await.err(), Some(502));
}
