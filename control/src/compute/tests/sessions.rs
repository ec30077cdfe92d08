//! What gateways run in containers, over real connections.

use std::time::Duration;

use axum::body::Bytes;
use edd_events::database::Kind;
use edd_proto::ContainerId;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::fixture::{Fixture, SERVICE_KEY};
use super::scripted::Scripted;
use crate::compute::platform::{Control, Exec, Exit, Input, MAX_PIECE_BYTES, Output, PlatformError, Session, Size};
use crate::compute::remote_session::{self, Beat, Frame, Socket, Word};

const PATIENCE: Duration = Duration::from_secs(20);

type Opened = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A service that is served, and a container in it that runs.
struct Served {
    fixture: Fixture,
    url: String,
    id: ContainerId,
}

impl Served {
    async fn new() -> Self {
        let fixture = Fixture::new(Kind::Sqlite).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let router = fixture.router();
        tokio::spawn(async move { axum::serve(listener, router.into_make_service()).await });
        let id = fixture.run("x").await;
        Self { fixture, url, id }
    }

    async fn open(&self, id: impl std::fmt::Display, key: &str) -> Result<Opened, u16> {
        let url = format!("{}/api/containers/{id}/session", self.url);
        let mut request = url.into_client_request().expect("a request");
        request.headers_mut().insert("x-service-key", key.parse().expect("a header"));
        match within(connect_async(request)).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn ask(&self, id: impl std::fmt::Display, exec: Exec) -> Result<Session, PlatformError> {
        let socket = self.open(id, SERVICE_KEY).await.expect("a socket");
        within(remote_session::ask(beats(socket), exec)).await
    }
}

/// As a gateway sees a WebSocket.
fn beats(socket: Opened) -> impl Socket {
    let heard = socket.map_ok(|message| match message {
        Message::Binary(bytes) => Some(bytes),
        _ => None,
    });
    heard.with(|beat: Beat| std::future::ready(Ok(beat.map_or(Message::Ping(Bytes::new()), Message::Binary))))
}

async fn within<T>(action: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, action).await.expect("in time")
}

#[tokio::test]
async fn a_session_is_carried_both_ways() {
    let served = Served::new().await;
    let exec = Exec {
        command: vec!["cat".to_owned()],
        user: Some("user".to_owned()),
        terminal: Some(Size { columns: 100, rows: 30 }),
        ..Exec::default()
    };
    let Session { input, control, mut output } = served.ask(served.id, exec.clone()).await.expect("a session");
    assert_eq!(served.fixture.platform.ran(), [exec]);
    let large = Bytes::from(vec![b'x'; MAX_PIECE_BYTES]);
    for (sent, said) in [
        (Input::Bytes(Bytes::from_static(b"in \xff")), Bytes::from_static(b"in \xff")),
        (Input::Bytes(large.clone()), large),
        (Input::Eof, Bytes::from_static(b"eof")),
    ] {
        input.send(sent).await.expect("sent");
        assert_eq!(within(output.recv()).await, Some(Output::Stdout(said)));
    }
    control.send(Control::Resize(Size { columns: 7, rows: 8 })).await.expect("sent");
    assert_eq!(within(output.recv()).await, Some(Output::Stdout(Bytes::from_static(b"7x8"))));
    control.send(Control::Signal("TERM".to_owned())).await.expect("sent");
    assert_eq!(within(output.recv()).await, Some(Output::Exit(Exit::Signal("TERM".to_owned()))));
    assert_eq!(within(output.recv()).await, None);

    let Session { input, mut output, .. } = served.ask(served.id, Exec::default()).await.expect("a session");
    drop(input);
    assert_eq!(within(output.recv()).await, Some(Output::Stdout(Bytes::from_static(b"eof"))));
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let served = Served::new().await;
    let unknown: ContainerId = "abcdefgh12".parse().expect("an id");
    let error = served.ask(unknown, Exec::default()).await.map(drop);
    assert_eq!(error, Err(PlatformError::NotFound(unknown)));
    for user in ["0", "root:disk", "", "-l", &"x".repeat(33)] {
        let exec = Exec { user: Some(user.to_owned()), ..Exec::default() };
        let error = served.ask(served.id, exec).await.map(drop);
        assert!(matches!(&error, Err(PlatformError::Impossible(why)) if why.contains(user)), "{user}: {error:?}");
    }
    served.fixture.act(served.id, "stop").await.done();
    served.fixture.round().await;
    let error = served.ask(served.id, Exec::default()).await.map(drop);
    assert!(matches!(error, Err(PlatformError::WrongPhase(_))), "{error:?}");
}

#[tokio::test]
async fn nobody_but_services_is_let_in() {
    let served = Served::new().await;
    assert_eq!(served.open(served.id, "guessed").await.err(), Some(401));
    assert_eq!(served.open("NO-ID", SERVICE_KEY).await.err(), Some(404));
    served.open(served.id, SERVICE_KEY).await.expect("a socket");
}

#[tokio::test]
async fn what_nobody_takes_is_held_back() {
    const PIECES: usize = 500;
    let served = Served::new().await;
    let Session { input, mut output, .. } = served.ask(served.id, Exec::default()).await.expect("a session");
    let piece = Bytes::from(vec![b'x'; MAX_PIECE_BYTES]);
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(300), input.send(Input::Bytes(piece.clone()))).await.is_ok() {
        sent += 1;
        assert!(sent < 150, "{sent} pieces are held");
    }
    let whole = piece.clone();
    let sending = tokio::spawn(async move {
        for _ in sent..PIECES {
            input.send(Input::Bytes(whole.clone())).await.expect("sent");
        }
        input.send(Input::Bytes(Bytes::from_static(b"exit"))).await.expect("sent");
    });
    for _ in 0..PIECES {
        assert_eq!(within(output.recv()).await, Some(Output::Stdout(piece.clone())));
    }
    assert_eq!(within(output.recv()).await, Some(Output::Exit(Exit::Code(0))));
    sending.await.expect("sent");
}

#[tokio::test]
async fn sizes_and_signals_overtake_input_that_nobody_takes() {
    let served = Served::new().await;
    let deaf = Exec { command: vec![Scripted::DEAF.to_owned()], ..Exec::default() };
    let Session { input, control, mut output } = served.ask(served.id, deaf).await.expect("a session");
    let piece = Bytes::from(vec![b'x'; MAX_PIECE_BYTES]);
    let fill = async { while input.send(Input::Bytes(piece.clone())).await.is_ok() {} };
    tokio::time::timeout(Duration::from_millis(300), fill).await.expect_err("it takes input");
    control.send(Control::Resize(Size { columns: 7, rows: 8 })).await.expect("sent");
    assert_eq!(within(output.recv()).await, Some(Output::Stdout(Bytes::from_static(b"7x8"))));
    control.send(Control::Signal("TERM".to_owned())).await.expect("sent");
    assert_eq!(within(output.recv()).await, Some(Output::Exit(Exit::Signal("TERM".to_owned()))));
}

#[tokio::test]
async fn what_runs_ends_when_nobody_wants_it_even_if_it_takes_no_input() {
    let served = Served::new().await;
    let session = served.ask(served.id, Exec { command: vec![Scripted::DEAF.to_owned()], ..Exec::default() }).await;
    let session = session.expect("a session");
    let piece = Bytes::from(vec![b'x'; MAX_PIECE_BYTES]);
    let fill = async { while session.input.send(Input::Bytes(piece.clone())).await.is_ok() {} };
    tokio::time::timeout(Duration::from_millis(300), fill).await.expect_err("it takes input");
    assert_eq!(served.fixture.platform.running(), 1);
    let begun = tokio::time::Instant::now();
    drop(session);
    within(async {
        while served.fixture.platform.running() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_says_more_than_there_is_room_for_is_cut_off() {
    let served = Served::new().await;
    for nonsense in [&[9, 9][..], b"", &Frame::Taken.encode(), &Frame::Word(Word::Started).encode()] {
        let mut socket = served.open(served.id, SERVICE_KEY).await.expect("a socket");
        let run = Frame::Word(Word::Run(Exec::default())).encode();
        socket.send(Message::Binary(run)).await.expect("sent");
        socket.send(Message::Binary(Bytes::copy_from_slice(nonsense))).await.expect("sent");
        within(async { while let Some(Ok(_)) = socket.next().await {} }).await;
    }
    let deaf = Exec { command: vec![Scripted::DEAF.to_owned()], ..Exec::default() };
    let mut socket = served.open(served.id, SERVICE_KEY).await.expect("a socket");
    socket.send(Message::Binary(Frame::Word(Word::Run(deaf)).encode())).await.expect("sent");
    let piece = Frame::Input(Input::Bytes(Bytes::from(vec![b'x'; MAX_PIECE_BYTES]))).encode();
    within(async { while socket.send(Message::Binary(piece.clone())).await.is_ok() {} }).await;
}
