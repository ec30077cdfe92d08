//! WebSockets over real connections.

use std::net::SocketAddr;
use std::time::Duration;

use edd_events::database::Kind;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::fixture::{ANN, BOB, Fixture};
use crate::compute::platform::Size;
use crate::revocation::Revocation;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const PATIENCE: Duration = Duration::from_secs(20);

async fn served(fixture: &Fixture) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = fixture.router();
    tokio::spawn(async move { axum::serve(listener, router.into_make_service()).await });
    address
}

async fn open(fixture: &Fixture, address: SocketAddr, user: &str, path: &str) -> Result<Socket, u16> {
    let session = if user == ANN { "s1" } else { "s2" };
    let separator = if path.contains('?') { '&' } else { '?' };
    let url = format!("ws://{address}{path}{separator}token={}", fixture.token(user, session));
    match tokio::time::timeout(PATIENCE, connect_async(url)).await.expect("an answer in time") {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// The next message that is no ping.
async fn hear(socket: &mut Socket) -> Message {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message in time");
        match message.expect("a message").expect("a good one") {
            Message::Ping(_) => {}
            message => return message,
        }
    }
}

async fn hear_text(socket: &mut Socket) -> String {
    match hear(socket).await {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn hear_json(socket: &mut Socket) -> Value {
    serde_json::from_str(&hear_text(socket).await).expect("JSON")
}

/// Why the other side closes.
async fn hear_end(socket: &mut Socket) -> (u16, String) {
    match hear(socket).await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_terminal_is_bytes_both_ways() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let (address, id) = (served(&fixture).await, fixture.run("x").await);
    let path = format!("/compute/containers/{id}/terminal");
    assert_eq!(open(&fixture, address, BOB, &path).await.err(), Some(404));
    let mut socket = open(&fixture, address, ANN, &format!("{path}?cols=100&rows=30")).await.expect("a socket");
    assert_eq!(fixture.platform.ran()[0].terminal, Some(Size { columns: 100, rows: 30 }));
    for (sent, heard) in [
        (Message::binary(&b"ls\xff\n"[..]), &b"ls\xff\n"[..]),
        (Message::text("as old clients"), b"as old clients"),
        (Message::text(r#"{"type": "resize", "cols": 120, "rows": 40}"#), b"120x40"),
        (Message::text(r#"{"type":"resize","cols":0,"rows":65535}"#), b"1x1000"),
        (Message::text(r#"{"type": "resize"}"#), br#"{"type": "resize"}"#),
    ] {
        socket.send(sent).await.expect("sent");
        assert_eq!(hear(&mut socket).await, Message::binary(heard));
    }
    socket.send(Message::binary(&b"exit"[..])).await.expect("sent");
    assert_eq!(hear_end(&mut socket).await.0, 1000);
    let mut socket = open(&fixture, address, ANN, &path).await.expect("a socket");
    socket.send(Message::binary(vec![b'x'; 65 * 1024])).await.expect("sent");
    let end = tokio::time::timeout(PATIENCE, async { while let Some(Ok(_)) = socket.next().await {} }).await;
    end.expect("a message that is too large ends it");
}

#[tokio::test]
async fn a_terminal_ends_with_its_session_and_its_container() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let (address, id) = (served(&fixture).await, fixture.run("x").await);
    let path = format!("/compute/containers/{id}/terminal");
    let mut socket = open(&fixture, address, ANN, &path).await.expect("a socket");
    let session = Revocation::Session { session_id: "s1".to_owned(), user: None, expires_at: None, version: 2 };
    fixture.verifier.revocations().insert(&session);
    assert_eq!(hear_end(&mut socket).await, (1008, "the session has ended: sign in again".to_owned()));
    assert_eq!(open(&fixture, address, ANN, &path).await.err(), Some(401));

    let bobs = fixture.create_as(BOB, json!({"name": "y"})).await;
    fixture.round().await;
    let path = format!("/compute/containers/{bobs}/terminal");
    let mut socket = open(&fixture, address, BOB, &path).await.expect("a socket");
    let delete = fixture.call(BOB, http::Method::DELETE, &format!("/compute/containers/{bobs}"));
    delete.send().await.done();
    assert_eq!(hear_end(&mut socket).await, (1001, "the container is deleted".to_owned()));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let (address, id) = (served(&fixture).await, fixture.run("x").await);
    let path = format!("/compute/containers/{id}/logs?tail=0");
    let socket = open(&fixture, address, ANN, &path).await.expect("a socket");
    // From here on, time goes by whenever nothing else does.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let line = axum::body::Bytes::from(vec![b'x'; 1 << 20]);
    // Who reads the log notices with the next line that nobody hears.
    while fixture.platform.log.receiver_count() > 0 {
        let _ = fixture.platform.log.send(line.clone());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "long before its silence would end it");
    }
    drop(socket);
}

#[tokio::test]
async fn a_terminal_wakes_what_sleeps_and_nothing_that_is_stopped() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let (address, id) = (served(&fixture).await, fixture.run("x").await);
    let path = format!("/compute/containers/{id}/terminal");
    fixture.act(id, "hibernate").await.done();
    fixture.round().await;
    let opening = open(&fixture, address, ANN, &path);
    let waking = async {
        let mut changes = fixture.service().changes();
        while fixture.platform.phase(id) != Some(crate::compute::platform::Phase::Running) {
            fixture.round().await;
            if fixture.status(id).await != "running" {
                tokio::time::timeout(PATIENCE, changes.recv()).await.expect("a change in time").expect("a change");
            }
        }
    };
    let (opened, ()) = tokio::join!(opening, waking);
    opened.expect("a socket");
    fixture.act(id, "stop").await.done();
    fixture.round().await;
    assert_eq!(open(&fixture, address, ANN, &path).await.err(), Some(409));
}

#[tokio::test]
async fn a_log_comes_line_by_line() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let (address, id) = (served(&fixture).await, fixture.run("x").await);
    let path = format!("/compute/containers/{id}/logs");
    assert_eq!(open(&fixture, address, BOB, &path).await.err(), Some(404));
    assert_eq!(open(&fixture, address, ANN, &format!("{path}?tail=10001")).await.err(), Some(400));
    let mut socket = open(&fixture, address, ANN, &format!("{path}?tail=2")).await.expect("a socket");
    assert_eq!((hear_text(&mut socket).await, hear_text(&mut socket).await), ("old 0".to_owned(), "old 1".to_owned()));
    fixture.platform.log.send((&b"new \xff"[..]).into()).expect("a reader");
    assert_eq!(hear_text(&mut socket).await, "new \u{fffd}");
    let mut socket = open(&fixture, address, ANN, &format!("{path}?tail=0&follow=false")).await.expect("a socket");
    assert_eq!(hear_end(&mut socket).await.0, 1000);
    let plain = fixture.get(&path).await;
    assert!(plain.status == 400 || plain.status == 426, "{}", plain.text);
    assert!(plain.json["error"].is_string());
}

#[tokio::test]
async fn status_is_told_as_it_changes() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let (address, id) = (served(&fixture).await, fixture.create("x").await);
    let mut socket = open(&fixture, address, ANN, "/compute/ws").await.expect("a socket");
    let mut bobs = open(&fixture, address, BOB, "/compute/ws").await.expect("a socket");
    assert_eq!(hear_json(&mut bobs).await, json!({"type": "containers", "data": []}));
    let first = hear_json(&mut socket).await;
    assert_eq!((&first["type"], &first["data"][0]["id"]), (&json!("containers"), &json!(id.as_str())));
    assert_eq!(first["data"][0]["status"], json!("pending"));
    fixture.round().await;
    loop {
        let change = hear_json(&mut socket).await;
        assert_eq!(
            (&change["type"], &change["data"]["container_id"]),
            (&json!("container_status"), &json!(id.as_str()))
        );
        match change["data"]["status"].as_str() {
            Some("running") => break,
            status => assert_eq!(status, Some("initializing")),
        }
    }
    let other = fixture.create("y").await;
    let all = hear_json(&mut socket).await;
    let ids: Vec<_> = all["data"].as_array().expect("a list").iter().map(|it| it["id"].clone()).collect();
    assert_eq!((&all["type"], ids.len()), (&json!("containers"), 2));
    assert!(ids.contains(&json!(other.as_str())));
    fixture.delete(&format!("/compute/containers/{id}")).await.done();
    assert_eq!(hear_json(&mut socket).await["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn one_user_has_so_many_sockets_and_no_more() {
    let fixture = Fixture::new(Kind::Sqlite).await;
    let address = served(&fixture).await;
    let mut sockets = Vec::new();
    let refused = loop {
        match open(&fixture, address, ANN, "/compute/ws").await {
            Ok(socket) => sockets.push(socket),
            Err(status) => break status,
        }
    };
    assert_eq!((refused, sockets.len()), (429, 32));
    open(&fixture, address, BOB, "/compute/ws").await.expect("another user's");
    let mut last = sockets.pop().expect("one");
    last.close(None).await.expect("closed");
    let freed = async {
        while open(&fixture, address, ANN, "/compute/ws").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("its place is free again");
}
