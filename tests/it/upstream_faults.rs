//! Upstreams that fail: the reason that a client and the log are told, and that no other client pays.

use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Broken, Cases, Edd, PATIENCE, RawUpstream, within};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc";

/// Routes to `target` whose timeouts a test can wait for.
fn routes(target: impl std::fmt::Display) -> String {
    format!("routes: [{{host: '*', path: /, target: '{target}', timeouts: {{connect: 300ms, read: 300ms}}}}]")
}

/// An upstream that fails this way must give this answer, the second time as the first.
async fn check(edd: &Edd, request: &str, status: u16, reason: &str) {
    for _ in 0..2 {
        let mut client = edd.connect().await;
        client.send(request).await;
        edd.refusal(&mut client, status, reason).await;
    }
}

#[tokio::test]
async fn nobody_listens() {
    let (_held, address) = RawUpstream::refusing();
    let edd = Edd::gateway(routes(address)).start().await;
    check(&edd, GET, 502, "upstream_refused").await;
    check(&edd, POST, 502, "upstream_refused").await;
}

#[tokio::test]
async fn the_name_does_not_resolve() {
    let edd = Edd::gateway(routes("no-such-host.invalid:80")).start().await;
    check(&edd, GET, 502, "upstream_dns").await;
}

#[tokio::test]
async fn nobody_accepts() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port on loopback");
    let listener = socket.listen(1).expect("a bound socket listens");
    let address = listener.local_addr().expect("a bound socket has an address");
    // The kernel accepts in our place until its queue is full.
    let mut queue = Vec::new();
    let short = PATIENCE / 40;
    while let Ok(stream) = tokio::time::timeout(short, TcpStream::connect(address)).await {
        queue.push(stream.expect("the queue takes a connection"));
        assert!(queue.len() < 64, "the queue does not fill");
    }
    let edd = Edd::gateway(routes(address)).start().await;
    check(&edd, GET, 504, "upstream_connect_timeout").await;
}

#[tokio::test]
async fn no_answer_comes() {
    let upstream = RawUpstream::start(|mut connection| async move { connection.hang().await }).await;
    let edd = Edd::gateway(routes(upstream.address)).start().await;
    check(&edd, GET, 504, "upstream_timeout").await;
    check(&edd, POST, 504, "upstream_timeout").await;
    // Nobody waits for the answers any more.
    upstream.wait("edd to give the connection up", |c| c.closed).await;
}

#[tokio::test]
async fn half_a_head_comes() {
    let upstream = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-").await;
        connection.hang().await;
    })
    .await;
    let edd = Edd::gateway(routes(upstream.address)).start().await;
    check(&edd, GET, 504, "upstream_timeout").await;
}

#[tokio::test]
async fn the_connection_closes_before_an_answer() {
    let closing = RawUpstream::start(|mut connection| async move {
        connection.head().await;
    })
    .await;
    let resetting = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.reset();
    })
    .await;
    let half = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-").await;
    })
    .await;
    let half_closing = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.finish().await;
        connection.hang().await;
    })
    .await;
    for upstream in [&closing, &resetting, &half, &half_closing] {
        let edd = Edd::gateway(routes(upstream.address)).start().await;
        check(&edd, GET, 502, "upstream_closed").await;
        check(&edd, POST, 502, "upstream_closed").await;
    }
}

#[tokio::test]
async fn what_comes_is_no_http() {
    let answers = [
        "hello\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
        "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551619\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    let mut cases = Cases::default();
    for answer in answers {
        let case = async {
            let upstream = RawUpstream::answering(answer).await;
            let edd = Edd::gateway(routes(upstream.address)).start().await;
            check(&edd, GET, 502, "upstream_invalid_response").await;
        };
        cases.case(answer, case).await;
    }
    cases.finish();
}

#[tokio::test]
async fn what_comes_is_no_http2() {
    let mut cases = Cases::default();
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "hello", ""] {
        let case = async {
            let upstream = RawUpstream::start(move |mut connection| async move {
                connection.head().await;
                connection.send(answer).await;
            })
            .await;
            let edd = Edd::gateway(format!("routes: [{{target: 'h2c://{}'}}]", upstream.address)).start().await;
            let response = edd.get("a.test", "/x").await;
            assert_eq!(response.status, 502);
            let reason = response.json()["reason"].as_str().unwrap_or_default().to_owned();
            assert!(matches!(reason.as_str(), "upstream_h2" | "upstream_closed"), "{reason}");
        };
        cases.case(answer, case).await;
    }
    cases.finish();
}

/// RFC 9112 §6.3: an error, or the chunks decide and no Content-Length is passed on.
#[tokio::test]
async fn answers_with_two_lengths_have_one_at_most() {
    let mut cases = Cases::default();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let case = async {
            let upstream = RawUpstream::answering(answer).await;
            let edd = Edd::gateway(routes(upstream.address)).start().await;
            let mut client = edd.connect().await;
            client.send(GET).await;
            let response = client.response().await;
            match response.status {
                200 => assert_eq!(response.text(), "abc"),
                status => {
                    assert_eq!((status, response.json()["reason"].as_str()), (502, Some("upstream_invalid_response")))
                }
            }
            let mut client = if response.status == 200 { client } else { edd.connect().await };
            client.send(GET).await;
            assert_eq!(client.response().await.status, response.status);
        };
        cases.case(answer, case).await;
    }
    cases.finish();
}

#[tokio::test]
async fn endless_heads_cost_no_memory() {
    for block in ["X: y\r\n", "xxxxxxxx", "\r\n"] {
        let upstream = RawUpstream::start(move |mut connection| async move {
            connection.head().await;
            if !block.starts_with('\r') {
                connection.send("HTTP/1.1 200 OK\r\nX-").await;
            }
            let block = block.repeat(8 * 1024);
            while connection.try_send(&block).await {}
        })
        .await;
        let edd = Edd::gateway(upstream.routes()).start().await;
        let before = edd.resident_kib();
        check(&edd, GET, 502, "upstream_invalid_response").await;
        let grown = edd.resident_kib().saturating_sub(before);
        assert!(grown < 32 * 1024, "{block:?}: memory grew by {grown} KiB");
    }
}

/// A body that ends too early must look so: a clean end would have it taken, and cached, as whole.
#[tokio::test]
async fn truncated_bodies_never_end_cleanly() {
    let mut cases = Cases::default();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\nabc\r\n0\r\n\r\n",
    ] {
        let case = async {
            let upstream = RawUpstream::start(move |mut connection| async move {
                connection.head().await;
                connection.send(answer).await;
            })
            .await;
            let edd = Edd::gateway(upstream.routes()).start().await;
            let mut client = edd.connect().await;
            client.send(GET).await;
            match client.try_response("GET").await {
                Err(Broken::Truncated) => {}
                // Found out before the head was passed on.
                Ok(response) => assert_eq!(response.status, 502, "{}", response.text()),
                Err(broken) => panic!("{broken:?}"),
            }
            let line = edd.wait_log("an access line", |line| !line.field("reason").is_empty()).await;
            assert!(line.field("reason").starts_with("upstream_"), "{line:?}");
        };
        cases.case(answer, case).await;
    }
    cases.finish();
}

/// A body that stalls is given up, and looks cut.
#[tokio::test]
async fn stalled_bodies_are_given_up() {
    let upstream = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
        connection.hang().await;
    })
    .await;
    let edd = Edd::gateway(routes(upstream.address)).start().await;
    let mut client = edd.connect().await;
    client.send(GET).await;
    assert_eq!(client.try_response("GET").await.err(), Some(Broken::Truncated));
    upstream.wait("edd to give the connection up", |c| c.closed).await;
}

/// Without a length, the close is the end.
#[tokio::test]
async fn bodies_that_end_with_the_connection_are_whole() {
    for answer in ["HTTP/1.1 200 OK\r\n\r\nabc", "HTTP/1.0 200 OK\r\n\r\nabc"] {
        let upstream = RawUpstream::start(move |mut connection| async move {
            connection.head().await;
            connection.send(answer).await;
        })
        .await;
        let edd = Edd::gateway(upstream.routes()).start().await;
        assert_eq!(edd.get("a.test", "/x").await.text(), "abc");
    }
}

const REAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal";
const FAKE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// Bytes behind an answer belong to no request: the next client on that connection must not get them.
#[tokio::test]
async fn bytes_behind_an_answer_reach_nobody() {
    let mut cases = Cases::default();
    for (request, first) in [
        (GET, [REAL, FAKE].concat()),
        ("HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n", [REAL, FAKE].concat()),
        (GET, ["HTTP/1.1 204 No Content\r\n\r\n", FAKE].concat()),
        (GET, ["HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", FAKE].concat()),
        (GET, ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nreal\r\n0\r\n\r\n", FAKE].concat()),
        (GET, ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 2"].concat()),
    ] {
        let case = async {
            let answer = first.clone();
            let upstream = RawUpstream::start(move |mut connection| {
                let first = answer.clone();
                async move {
                    let mut answer = if connection.number == 0 { first.as_str() } else { REAL };
                    while connection.head().await.is_some() {
                        connection.send(answer).await;
                        answer = REAL;
                    }
                }
            })
            .await;
            let edd = Edd::gateway(upstream.routes()).start().await;
            let mut poisoner = edd.connect().await;
            poisoner.send(request).await;
            let method = request.split(' ').next().unwrap_or_default();
            let response = poisoner.try_response(method).await.expect("the first answer");
            assert!(!response.text().contains("poison"));
            for _ in 0..5 {
                assert_eq!(edd.get("a.test", "/victim").await.text(), "real");
            }
            poisoner.send(GET).await;
            assert_eq!(poisoner.response().await.text(), "real");
        };
        cases.case(&format!("{request}{first}"), case).await;
    }
    cases.finish();
}

/// The same, when they come while the connection is idle.
#[tokio::test]
async fn bytes_on_an_idle_connection_reach_nobody() {
    let late = tokio::sync::watch::Sender::new(false);
    let sent = tokio::sync::watch::Sender::new(false);
    let (late_told, sent_telling) = (late.clone(), sent.clone());
    let upstream = RawUpstream::start(move |mut connection| {
        let (mut late, sent) = (late_told.subscribe(), sent_telling.clone());
        async move {
            connection.head().await;
            connection.send(REAL).await;
            if connection.number == 0 {
                late.wait_for(|late| *late).await.expect("the test goes on");
                connection.send(FAKE).await;
                sent.send_replace(true);
            }
            while connection.head().await.is_some() {
                connection.send(REAL).await;
            }
        }
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    assert_eq!(edd.get("a.test", "/x").await.text(), "real");
    late.send_replace(true);
    within("the late bytes", sent.subscribe().wait_for(|sent| *sent)).await.expect("the script goes on");
    for _ in 0..5 {
        assert_eq!(edd.get("a.test", "/victim").await.text(), "real");
    }
}

/// A connection that the upstream closed while it was idle is nobody's error.
#[tokio::test]
async fn stale_connections_are_replaced_for_what_may_be_repeated() {
    // Each connection answers one request and closes when the second one has come.
    let upstream = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.send(REAL).await;
        connection.head().await;
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for _ in 0..5 {
        assert_eq!(edd.get("a.test", "/x").await.text(), "real");
    }
    assert!(upstream.connections().len() >= 5);
}

/// A body of three bytes, or none: the two go through different engines.
#[tokio::test]
async fn requests_with_effects_are_never_sent_twice() {
    for length in [0, 3] {
        let request =
            format!("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{}", &"abc"[..length]);
        let upstream = RawUpstream::start(move |mut connection| async move {
            connection.head().await;
            connection.body(length).await;
            connection.send(REAL).await;
            if connection.head().await.is_some() {
                connection.body(length).await;
            }
        })
        .await;
        let edd = Edd::gateway(upstream.routes()).start().await;
        let mut client = edd.connect().await;
        client.send(&request).await;
        let first = client.response().await;
        assert_eq!(first.text(), "real");
        // By now the connection is kept for the next request.
        edd.access_line(first.header("x-request-id")).await;
        let mut client = edd.connect().await;
        client.send(&request).await;
        edd.refusal(&mut client, 502, "upstream_closed").await;
        let text = String::from_utf8_lossy(&upstream.bytes()).into_owned();
        assert_eq!(text.matches("POST /x").count(), 2, "{text}");
    }
}
