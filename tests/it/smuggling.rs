//! Request smuggling: bytes that one party reads as a body or a tunnel, and another as a request.

use tokio::sync::watch;

use crate::harness::{Broken, Cases, Connection, Edd, RawUpstream, Upstream};

/// What every attack here hopes to have executed.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// Follows an attack on the same connection; its answer shows that edd and client still agree.
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// After an answer: either the connection closes, or the next answer is the one to [`AFTER`].
async fn check_in_step(client: &mut Connection, upstream: &Upstream) {
    match client.try_response("GET").await {
        Err(Broken::Closed) => {}
        Ok(response) => assert_eq!(response.json()["target"], "/after", "{}", response.status),
        Err(broken) => panic!("{broken:?} in place of an answer or a close"),
    }
    // A chunked body is found to be too large on its way; the rest must not have been asked for at all.
    let asked: Vec<_> = upstream.take().into_iter().filter(|seen| seen.target != "/after" && seen.is_whole()).collect();
    assert!(asked.is_empty(), "the upstream was asked: {asked:?}");
}

/// CVE-2025-4366: a body that nobody read is taken for the next request.
#[tokio::test]
async fn unread_bodies_behind_local_answers_are_never_requests() {
    let upstream = Upstream::start().await;
    let target = upstream.address;
    let edd = Edd::gateway(format!(
        "routes:
  - {{host: a.test, path: /, target: '{target}'}}
  - {{host: a.test, path: /small, target: '{target}', body_limit: 10}}
  - {{host: a.test, path: /secure, target: '{target}', redirect: https}}
"
    ))
    .start()
    .await;
    let length = format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let mut cases = Cases::default();
    for (line, host, status) in [
        ("POST /x", "unknown.test", 404),
        ("POST /small", "a.test", 413),
        ("POST /secure", "a.test", 301),
        ("GET /x", "unknown.test", 404),
        ("HEAD /x", "unknown.test", 404),
        ("POST /a%00", "a.test", 400),
        ("POST /../..", "a.test", 400),
        ("TRACE /x", "a.test", 405),
    ] {
        for body in [&length, &chunked] {
            let case = async {
                upstream.take();
                let mut client = edd.connect().await;
                let _ = client.try_send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{body}{AFTER}")).await;
                let method = line.split(' ').next().unwrap_or_default();
                let response = client.try_response(method).await.expect("an answer of edd's own");
                assert_eq!(response.status, status);
                check_in_step(&mut client, &upstream).await;
            };
            cases.case(&format!("{line} {host} {body}"), case).await;
        }
    }
    cases.finish();
}

/// The same, with the rest of the body sent after the answer came.
#[tokio::test]
async fn bodies_that_end_after_the_answer_are_never_requests() {
    let upstream = Upstream::start().await;
    let edd =
        Edd::gateway(format!("routes: [{{host: a.test, path: /, target: '{}'}}]", upstream.address)).start().await;
    let filler = "x".repeat(100);
    let length = SMUGGLED.len() + filler.len();
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut client = edd.connect().await;
        let head = format!("POST /x HTTP/1.1\r\nHost: unknown.test\r\n{expect}Content-Length: {length}\r\n\r\n");
        client.send(head + &filler).await;
        let response = client.response().await;
        assert_eq!((response.status, response.interim.as_slice()), (404, &[][..]));
        // edd may have closed by now.
        let _ = client.try_send([SMUGGLED, AFTER].concat()).await;
        check_in_step(&mut client, &upstream).await;
    }
}

/// A body that the upstream did not wait for.
#[tokio::test]
async fn bodies_that_the_upstream_left_unread_are_never_requests() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    let length = SMUGGLED.len() + 100;
    client.send(format!("POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(upstream.take().len(), 1);
    let _ = client.try_send(format!("{}{SMUGGLED}{AFTER}", "x".repeat(100))).await;
    check_in_step(&mut client, &upstream).await;
}

#[tokio::test]
async fn pipelined_requests_get_their_own_answers_in_order() {
    let upstream = Upstream::start().await;
    let edd =
        Edd::gateway(format!("routes: [{{host: a.test, path: /, target: '{}'}}]", upstream.address)).start().await;
    let mut client = edd.connect().await;
    let mut requests = String::new();
    for number in 0..20 {
        requests += &match number % 4 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            1 => format!(
                "POST /{number} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{SMUGGLED}",
                SMUGGLED.len()
            ),
            2 => format!(
                "PUT /{number} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
                SMUGGLED.len()
            ),
            _ => format!("GET /{number} HTTP/1.1\r\nHost: unknown.test\r\n\r\n"),
        };
    }
    client.send(requests).await;
    for number in 0..20 {
        let response = client.response().await;
        if number % 4 == 3 {
            assert_eq!(response.json()["reason"], "no_route", "{number}");
        } else {
            assert_eq!(response.json()["target"], format!("/{number}"));
        }
    }
    let seen = upstream.take();
    assert_eq!(seen.len(), 15);
    assert!(seen.iter().all(|seen| seen.target != "/smuggled"));
}

/// Bodies whose chunks are malformed. The upstream must not take any for a whole request, and nothing
/// behind the error is a request.
#[tokio::test]
async fn malformed_chunks_end_the_connection() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let overlong_line = format!("5;{}\r\nabcde\r\n0\r\n\r\n", "x".repeat(64 * 1024));
    let leading_zeros = format!("{}5\r\nabcde\r\n0\r\n\r\n", "0".repeat(64 * 1024));
    let mut cases = Cases::default();
    for (number, chunks) in [
        "g\r\nabcde\r\n0\r\n\r\n",
        "\r\nabcde\r\n0\r\n\r\n",
        "-1\r\nabcde\r\n0\r\n\r\n",
        "+5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "5_\r\nabcde\r\n0\r\n\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\rXabcde\r\n0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "5\r\nabcdeXX0\r\n\r\n",
        "5;a\nb\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde\r\nx\r\n\r\n",
        "FFFFFFFFFFFFFFFF\r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        &overlong_line,
        &leading_zeros,
    ]
    .into_iter()
    .enumerate()
    {
        let case = async {
            let mut client = edd.connect().await;
            let head = format!("POST /{number} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
            let _ = client.try_send([&head, chunks, SMUGGLED].concat()).await;
            let status = client.try_response("POST").await.map(|response| response.status);
            assert!(matches!(status, Ok(400) | Err(Broken::Closed)), "{status:?}");
            client.expect_close().await;
        };
        cases.case(chunks, case).await;
    }
    // The upstream may have been shown how a request begins; it must have learned that the end is missing.
    assert_eq!(edd.get("a.test", "/end").await.status, 200);
    for seen in upstream.seen().into_iter().filter(|seen| seen.target != "/end") {
        let case = async {
            let seen = upstream.wait("the request's end", |s| s.number == seen.number && s.is_over()).await;
            assert!(!seen.is_whole(), "{seen:?}");
        };
        cases.case(&format!("{} was not whole", seen.target), case).await;
    }
    cases.finish();
}

/// Chunk extensions and trailers that are valid are no error, and do not shift the next request.
#[tokio::test]
async fn valid_chunks_of_every_shape_are_taken() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut cases = Cases::default();
    for chunks in [
        "5\r\nabcde\r\n0\r\n\r\n",
        "5;name=value\r\nabcde\r\n0\r\n\r\n",
        "5;name=\"quoted; value\"\r\nabcde\r\n0;last\r\n\r\n",
        "00005\r\nabcde\r\n000\r\n\r\n",
        "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
        "5\r\nabcde\r\n0\r\nX-Trailer: 1\r\n\r\n",
    ] {
        let case = async {
            let head = "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut client = edd.connect().await;
            client.send([head, chunks].concat()).await;
            assert_eq!(client.response().await.json()["body"], "abcde");
            client.send(AFTER).await;
            assert_eq!(client.response().await.json()["target"], "/after");
        };
        cases.case(chunks, case).await;
    }
    cases.finish();
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// CVE-2026-2833: bytes behind an upgrade request are tunnelled before the upstream agreed to.
#[tokio::test]
async fn bytes_behind_an_upgrade_wait_for_the_101() {
    let agree = watch::Sender::new(false);
    let agreed = agree.clone();
    let upstream = RawUpstream::start(move |mut connection| {
        let mut agreed = agreed.subscribe();
        async move {
            // What comes while the 101 is held back is recorded, too.
            while let Some(head) = connection.head().await {
                if head.starts_with("GET /chat") {
                    tokio::select! {
                        _ = agreed.wait_for(|agreed| *agreed) => {}
                        () = connection.hang() => return,
                    }
                    connection
                        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                        .await;
                    return connection.hang().await;
                }
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send([UPGRADE, SMUGGLED].concat()).await;
    upstream.wait("the upgrade", |c| c.bytes.ends_with(b"\r\n\r\n")).await;
    // edd has had time to serve others since; the bytes behind must not have moved meanwhile.
    for _ in 0..20 {
        assert_eq!(edd.get("a.test", "/other").await.status, 200);
    }
    let before = upstream.connections()[0].bytes.clone();
    assert!(!before.windows(9).any(|w| w == b"/smuggled"), "`{}`", before.escape_ascii());
    agree.send_replace(true);
    assert_eq!(client.response().await.status, 101);
    // Now they belong to the new protocol, on this connection and no other.
    upstream.wait("the bytes behind, or a close", |c| c.bytes.ends_with(SMUGGLED.as_bytes()) || c.closed).await;
    for other in &upstream.connections()[1..] {
        assert!(!other.bytes.windows(9).any(|w| w == b"/smuggled"));
    }
}

/// Their sender took them for WebSocket frames, so they are no requests either.
#[tokio::test]
async fn bytes_behind_a_refused_upgrade_are_nothing() {
    let mut cases = Cases::default();
    for answer in
        ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"]
    {
        let case = async {
            let upstream = RawUpstream::answering(answer).await;
            let edd = Edd::gateway(upstream.routes()).start().await;
            let mut client = edd.connect().await;
            client.send([UPGRADE, SMUGGLED].concat()).await;
            assert!(answer.contains(&client.response().await.status.to_string()));
            assert_eq!(client.try_response("GET").await.map(|response| response.status), Err(Broken::Closed));
            let bytes = upstream.bytes();
            assert!(!bytes.windows(9).any(|w| w == b"/smuggled"), "`{}`", bytes.escape_ascii());
        };
        cases.case(answer, case).await;
    }
    cases.finish();
}

/// An upgrade to anything but WebSocket is a way round every rule (Traefik's CVE-2026-88008).
#[tokio::test]
async fn other_upgrades_are_neither_forwarded_nor_honoured() {
    let upstream = Upstream::start().await;
    let target = upstream.address;
    let edd = Edd::gateway(format!(
        "routes: [{{host: a.test, target: '{target}'}}, {{host: plain.test, target: '{target}', websocket: false}}]"
    ))
    .start()
    .await;
    let mut cases = Cases::default();
    for (host, lines) in [
        ("a.test", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
        ("a.test", "Connection: Upgrade\r\nUpgrade: h2c"),
        ("a.test", "Connection: upgrade\r\nUpgrade: H2C"),
        ("a.test", "Upgrade: h2c"),
        ("a.test", "Connection: Upgrade\r\nUpgrade: tcp"),
        ("plain.test", "Connection: Upgrade\r\nUpgrade: websocket"),
    ] {
        let case = async {
            upstream.take();
            let mut client = edd.connect().await;
            client.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n\r\n{AFTER}")).await;
            assert_eq!(client.response().await.status, 200);
            let seen = upstream.take().remove(0);
            assert_eq!((seen.header("upgrade"), seen.header("http2-settings")), (String::new(), String::new()));
            assert!(!seen.header("connection").to_ascii_lowercase().contains("upgrade"), "{:?}", seen.headers);
            check_in_step(&mut client, &upstream).await;
        };
        cases.case(&format!("{host} {lines}"), case).await;
    }
    cases.finish();
    // A list that offers WebSocket, too, does not carry the others along.
    let mut client = edd.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n").await;
    let _ = client.try_response("GET").await;
    assert!(upstream.take().iter().all(|seen| !seen.header("upgrade").contains("h2c")));
}

/// A server's 101 that nobody asked for would make the client's next request a tunnel.
#[tokio::test]
async fn an_unasked_101_is_an_error() {
    let upstream =
        RawUpstream::answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    edd.refusal(&mut client, 502, "upstream_invalid_response").await;
}
