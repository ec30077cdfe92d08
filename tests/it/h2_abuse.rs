//! HTTP/2 clients that break the rules, or keep them to the letter to do harm: edd's memory stays flat,
//! and others are served meanwhile.

use crate::harness::frames::{self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PING, SETTINGS};
use crate::harness::tls::{Authority, Client};
use crate::harness::{Cases, Connection, Edd, Flood, Upstream};

/// How much edd may grow under an attack, in KiB.
const MAX_GROWTH_KIB: u64 = 32 * 1024;
/// The least that an attack without an answer sends, in bytes.
const FLOOD_BYTES: usize = 64 * 1024 * 1024;

const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;

/// Runs `attack` while another client is served, and looks at edd's memory before and after.
async fn check_survives(edd: &Edd, attack: impl Future<Output = ()>) {
    for _ in 0..20 {
        assert_eq!(edd.get("a.test", "/x").await.status, 200);
    }
    let before = edd.resident_kib();
    let bystander = async {
        let mut client = edd.connect().await;
        for _ in 0..50 {
            client.send("GET /bystander HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            assert_eq!(client.response().await.status, 200);
        }
    };
    tokio::join!(attack, bystander);
    let grown = edd.resident_kib().saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "memory grew by {grown} KiB");
    assert_eq!(edd.get("a.test", "/x").await.status, 200);
}

async fn open(edd: &Edd, settings: &[(u16, u32)]) -> Connection {
    let mut client = edd.connect().await;
    client.send_preface(settings).await;
    client
}

fn post(stream: u32) -> Frame {
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x")];
    Frame::new(HEADERS, END_HEADERS, stream, frames::fields_block(&fields))
}

/// Opens 5,000 streams for requests that the upstream never answers, and does `provoke` to each.
async fn open_and_provoke(edd: &Edd, provoke: impl Fn(u32) -> Vec<Frame>) {
    let client = open(edd, &[]).await;
    let (read, write) = tokio::io::split(client.into_stream());
    // What edd says is read and dropped, or it would rightly stop to listen.
    let reader = tokio::spawn(async move {
        let mut reader = Connection::over(tokio::io::join(read, tokio::io::empty()));
        while reader.frame().await.is_ok() {}
    });
    let mut writer = Connection::over(tokio::io::join(tokio::io::empty(), write));
    for number in 0..5_000 {
        let stream = number * 2 + 1;
        let request = Frame::request(stream, &frames::get("a.test", "/gate/never"));
        let bytes: Vec<_> = [request].into_iter().chain(provoke(stream)).flat_map(|frame| frame.bytes()).collect();
        if writer.try_send(bytes).await.is_err() {
            break;
        }
    }
    drop(writer);
    reader.abort();
}

/// CVE-2023-44487: the client resets each stream at once.
#[tokio::test]
async fn rapid_resets() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for _ in 0..2 {
        check_survives(&edd, open_and_provoke(&edd, |stream| vec![Frame::reset(stream, CANCEL)])).await;
    }
}

/// CVE-2025-8671: the client makes the server reset each stream, which counted against nobody.
#[tokio::test]
async fn provoked_resets() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let self_dependent = |stream: u32| [&stream.to_be_bytes()[..], &[0]].concat();
    check_survives(&edd, open_and_provoke(&edd, |s| vec![Frame::window_update(s, 0)])).await;
    check_survives(&edd, open_and_provoke(&edd, |s| vec![Frame::window_update(s, 0x7fff_ffff)])).await;
    check_survives(&edd, open_and_provoke(&edd, |s| vec![Frame::new(DATA, 0, s, *b"half-closed")])).await;
    check_survives(&edd, open_and_provoke(&edd, |s| vec![Frame::request(s, &frames::get("a.test", "/again"))])).await;
    check_survives(&edd, open_and_provoke(&edd, |s| vec![Frame::new(2, 0, s, self_dependent(s))])).await;
}

/// Streams that were reset leave nothing behind at the upstream.
#[tokio::test]
async fn reset_requests_are_taken_back() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = open(&edd, &[]).await;
    client.send(Frame::request(1, &frames::get("a.test", "/gate/never")).bytes()).await;
    upstream.wait("the request", |seen| seen.is_whole()).await;
    client.send(Frame::reset(1, CANCEL).bytes()).await;
    upstream.wait("the request's end", |seen| seen.progress == crate::harness::Progress::Abandoned).await;
    client.send(Frame::request(3, &frames::get("a.test", "/next")).bytes()).await;
    let head = client.frame_where(|frame| frame.stream == 3).await.expect("an answer");
    assert_eq!(head.indexed_status(), Some(200));
}

/// Frames without end that ask for answers, or for nothing at all.
#[tokio::test]
async fn floods_of_frames() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let empty_data = Frame::new(DATA, 0, 1, []).bytes();
    let small_block = frames::fields_block(&[("x", "y")]);
    let mut cases = Cases::default();
    for (name, first, block) in [
        ("SETTINGS", None, Frame::settings(&[(3, 100)]).bytes()),
        ("empty SETTINGS", None, Frame::settings(&[]).bytes()),
        ("acknowledged SETTINGS", None, Frame::new(SETTINGS, ACK, 0, []).bytes()),
        ("PING", None, Frame::new(PING, 0, 0, *b"12345678").bytes()),
        ("WINDOW_UPDATE", None, Frame::window_update(0, 1).bytes()),
        ("unknown frames", None, Frame::new(0xfa, 0, 0, *b"12345678").bytes()),
        ("empty DATA", Some(post(1)), empty_data),
        (
            "CONTINUATION",
            Some(Frame::new(HEADERS, 0, 1, small_block.clone())),
            Frame::new(CONTINUATION, 0, 1, small_block).bytes(),
        ),
        ("empty CONTINUATION", Some(Frame::new(HEADERS, 0, 1, [])), Frame::new(CONTINUATION, 0, 1, []).bytes()),
        (
            "resets of closed streams",
            Some(Frame::request(1, &frames::get("a.test", "/x"))),
            Frame::reset(1, CANCEL).bytes(),
        ),
    ] {
        let case = async {
            check_survives(&edd, async {
                let mut client = open(&edd, &[]).await;
                if let Some(frame) = first {
                    client.send(frame.bytes()).await;
                }
                let block = block.repeat(64 * 1024 / block.len());
                let borne = client.flood(&block, FLOOD_BYTES).await;
                // Nobody reads the answers to these, so taking them all would mean to keep the answers.
                if matches!(name, "SETTINGS" | "empty SETTINGS" | "PING") {
                    assert_ne!(borne, Flood::Taken, "{name}");
                }
                // A head that never ends is over its limit.
                if name == "CONTINUATION" {
                    assert_eq!(borne, Flood::Closed);
                }
            })
            .await;
        };
        cases.case(name, case).await;
    }
    cases.finish();
}

/// A small block that unpacks to a large head: one entry of the table, named again and again.
#[tokio::test]
async fn heads_that_unpack_to_gigabytes() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    check_survives(&edd, async {
        let mut block = frames::fields_block(&frames::get("a.test", "/bomb"));
        // Literal with incremental indexing (RFC 7541 §6.2.1): name `x`, a value of 4,000 bytes.
        block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        block.extend([b'y'; 4000]);
        // The newest entry of the dynamic table.
        block.extend([0xbe; 12_000]);
        for _ in 0..20 {
            let mut client = open(&edd, &[]).await;
            let _ = client.send_frame(Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, block.clone())).await;
            let head = client.frame_where(|frame| frame.kind == HEADERS).await;
            assert_ne!(head.and_then(|head| head.indexed_status()), Some(200));
        }
    })
    .await;
    assert!(upstream.take().iter().all(|seen| seen.target != "/bomb"));
}

/// A client that opens no window must be sent nothing, and nothing be kept for it.
#[tokio::test]
async fn closed_windows_hold_upstreams_back() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let mut client = open(&edd, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    check_survives(&edd, async {
        for number in 0..50 {
            let request = Frame::request(number * 2 + 1, &frames::get("a.test", "/chunked/10000000"));
            client.send(request.bytes()).await;
        }
        for number in 0..50 {
            let head = client.frame_where(|frame| frame.kind == HEADERS).await;
            assert_eq!(head.and_then(|head| head.indexed_status()), Some(200), "{number}");
        }
    })
    .await;
}

/// Heads that no HTTP/2 client may send (RFC 9113 §8.2, §8.3).
#[tokio::test]
async fn malformed_heads_are_refused() {
    let upstream = Upstream::start().await;
    let authority = Authority::new("test authority");
    let identity = authority.sign(&["a.test"]);
    let edd = Edd::gateway(upstream.routes())
        .file("certs/a.test.crt", &identity.certificate)
        .file("certs/a.test.key", &identity.key)
        .start()
        .await;
    let tls = Client::trusting(&authority.pem()).alpn(&["h2"]);
    let plain = frames::get("a.test", "/malformed");
    let with = |extra: &[(&'static str, &'static str)]| [&plain[..], extra].concat();
    let without = |name: &str| plain.into_iter().filter(|field| field.0 != name).collect::<Vec<_>>();
    let instead = |name: &'static str, value: &'static str| [&without(name)[..], &[(name, value)]].concat();
    let mut cases = Cases::default();
    for fields in [
        with(&[("connection", "close")]),
        with(&[("connection", "x-forwarded-for")]),
        with(&[("keep-alive", "timeout=5")]),
        with(&[("proxy-connection", "keep-alive")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "h2c")]),
        with(&[("te", "gzip")]),
        with(&[("X-Upper", "a")]),
        with(&[("", "a")]),
        with(&[("x y", "a")]),
        with(&[("x:y", "a")]),
        with(&[("x\r\ny", "a")]),
        with(&[("x", "a\r\nsmuggled: b")]),
        with(&[("x", "a\0b")]),
        with(&[("x", "a\nb")]),
        with(&[("host", "b.test")]),
        with(&[("host", "a.test"), ("host", "b.test")]),
        with(&[("content-length", "5")]),
        with(&[("content-length", "0"), ("content-length", "5")]),
        with(&[("content-length", "x")]),
        with(&[(":path", "/malformed")]),
        with(&[(":method", "GET")]),
        with(&[(":authority", "b.test")]),
        with(&[(":scheme", "https")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "a")]),
        [&[("x", "a")], &plain[..]].concat(),
        without(":path"),
        without(":method"),
        without(":scheme"),
        without(":authority"),
        instead(":path", ""),
        instead(":path", "malformed"),
        instead(":path", "*"),
        instead(":path", "/a b"),
        instead(":path", "/a\r\nb"),
        instead(":path", "http://b.test/"),
        instead(":path", "/a%00"),
        instead(":path", "/../.."),
        instead(":authority", "a.test/b"),
        instead(":authority", "u@a.test"),
        instead(":authority", "a.test b.test"),
        instead(":authority", ""),
        instead(":method", "G T"),
        instead(":method", ""),
        instead(":method", "TRACE"),
        instead(":method", "GET / HTTP/1.1\r\nHost: b.test\r\n\r\nGET"),
        vec![(":method", "CONNECT"), (":authority", "a.test:443")],
        [&instead(":method", "CONNECT")[..], &[(":protocol", "websocket")]].concat(),
    ] {
        let case = async {
            let (mut encrypted, agreed) = tls.connect(edd.https, "a.test").await.expect("a handshake");
            assert_eq!(agreed.alpn, "h2");
            encrypted.send_preface(&[]).await;
            for mut client in [open(&edd, &[]).await, encrypted] {
                upstream.take();
                client.send(Frame::request(1, &fields).bytes()).await;
                check_refused(&mut client).await;
                let seen = upstream.take();
                assert!(seen.is_empty(), "the upstream was asked: {seen:?}");
            }
        };
        cases.case(&format!("{fields:?}"), case).await;
    }
    cases.finish();
}

/// The stream or the connection ends, or an answer comes that is no success.
async fn check_refused(client: &mut Connection) {
    let concerns = |frame: &Frame| matches!(frame.kind, HEADERS | frames::RST_STREAM | frames::GOAWAY);
    let Some(frame) = client.frame_where(concerns).await else { return };
    assert_ne!(frame.indexed_status(), Some(200), "it was served");
    if frame.kind == frames::GOAWAY {
        let code = frame.payload[4..8].try_into().map(u32::from_be_bytes).expect("four bytes");
        assert_ne!(code, 0, "the connection ended without an error");
    }
}

/// RFC 9113 §8.1.1: a body that does not fit its length must not reach the upstream as a whole one.
#[tokio::test]
async fn bodies_that_belie_their_length_are_cut() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for length in ["3", "9"] {
        let mut client = open(&edd, &[]).await;
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/x"),
            ("content-length", length),
        ];
        client.send(Frame::new(HEADERS, END_HEADERS, 1, frames::fields_block(&fields)).bytes()).await;
        client.send(Frame::new(DATA, END_STREAM, 1, *b"abcde").bytes()).await;
        check_refused(&mut client).await;
        if let [seen] = upstream.seen().as_slice() {
            let number = seen.number;
            let seen = upstream.wait("the request's end", |s| s.number == number && s.is_over()).await;
            assert!(!seen.is_whole(), "{seen:?}");
        }
        upstream.take();
    }
}

/// Breaking the protocol itself ends the connection with an error, and nobody else's.
#[tokio::test]
async fn broken_frames_end_the_connection() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut cases = Cases::default();
    for (name, frame) in [
        ("DATA on stream 0", Frame::new(DATA, 0, 0, *b"x")),
        ("HEADERS on stream 0", Frame::request(0, &frames::get("a.test", "/x"))),
        ("HEADERS on an even stream", Frame::request(2, &frames::get("a.test", "/x"))),
        ("SETTINGS of odd length", Frame::new(SETTINGS, 0, 0, *b"x")),
        ("SETTINGS with a window too large", Frame::settings(&[(4, u32::MAX)])),
        ("SETTINGS with a frame size too small", Frame::settings(&[(5, 1)])),
        ("PING of odd length", Frame::new(PING, 0, 0, *b"x")),
        ("CONTINUATION out of nowhere", Frame::new(CONTINUATION, END_HEADERS, 1, [])),
        ("a frame that is too large", Frame::new(DATA, 0, 1, vec![0; 1024 * 1024])),
        ("RST_STREAM of an idle stream", Frame::reset(9, CANCEL)),
        ("WINDOW_UPDATE of 0 on the connection", Frame::window_update(0, 0)),
        ("HPACK that points beyond the table", Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, [0xff, 0xff, 0x7f])),
        ("PUSH_PROMISE from a client", Frame::new(5, END_HEADERS, 1, [0, 0, 0, 2])),
    ] {
        let case = async {
            let mut client = open(&edd, &[]).await;
            let _ = client.send_frame(frame).await;
            let end = client.frame_where(|frame| frame.kind == frames::GOAWAY).await;
            if let Some(end) = end {
                let code = end.payload[4..8].try_into().map(u32::from_be_bytes).expect("four bytes");
                assert!(code >= PROTOCOL_ERROR, "{name}: the connection ended without an error");
            }
            // No other frame follows; the connection ends.
            assert!(client.frame_where(|frame| frame.kind == HEADERS).await.is_none(), "{name}");
        };
        cases.case(name, case).await;
    }
    cases.finish();
    assert!(upstream.take().is_empty());
}
