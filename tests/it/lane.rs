//! Plain relays: what passes through pipes and blocks arrives as it was sent, ends where it ends, and costs no more than
//! what is on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;

use crate::harness::tls::Client;
use crate::harness::{Broken, Cases, Connection, Edd, RawUpstream, is_full_run, within};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
const MIB: usize = 1024 * 1024;

/// Bytes of which no stretch is like another.
fn body(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A whole answer of each kind of framing, and whether its connection can be used again.
fn framings(body: &[u8]) -> [(Vec<u8>, bool); 3] {
    let sized = [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(70_001) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let unsized_answer = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], body].concat();
    [(sized, true), (chunked, true), (unsized_answer, false)]
}

/// What a client speaks HTTP/1.1 over.
#[derive(Clone, Copy, Debug)]
enum Over {
    Tcp,
    Tls,
}

impl Over {
    const BOTH: [Self; 2] = [Self::Tcp, Self::Tls];

    /// A client, which has to ask before edd gives it up as silent.
    async fn connect(self, edd: &Edd) -> Connection {
        match self {
            Self::Tcp => edd.connect().await,
            Self::Tls => {
                let client = Client::trusting(&edd.local_authority()).alpn(&["http/1.1"]);
                client.connect(edd.https, "cloud.localhost").await.expect("a handshake").0
            }
        }
    }
}

/// An upstream that sends `head` and then bytes without end, and counts them.
async fn endless(head: &'static str) -> (RawUpstream, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let upstream = RawUpstream::start(move |mut connection| {
        let counter = counter.clone();
        async move {
            connection.head().await;
            connection.send(head).await;
            let block = vec![b'x'; 256 * 1024];
            while connection.try_send(&block).await {
                counter.fetch_add(block.len() as u64, Ordering::Relaxed);
            }
            connection.hang().await;
        }
    })
    .await;
    (upstream, sent)
}

const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";

/// Lengths on both sides of a block, of a pipe, and of what is worth one.
#[tokio::test]
async fn bodies_pass_unchanged_however_they_are_delimited() {
    let mut cases = Cases::default();
    for length in [0, 1, 65_400, 65_536, 131_072, 200_000, MIB + 17, 5 * MIB + 3] {
        let sent = body(length);
        for (number, (answer, can_be_kept)) in framings(&sent).into_iter().enumerate() {
            let case = async {
                let upstream = RawUpstream::start(move |mut connection| {
                    let answer = answer.clone();
                    async move {
                        while connection.head().await.is_some() {
                            connection.send(&answer).await;
                            if !can_be_kept {
                                break;
                            }
                        }
                    }
                })
                .await;
                let edd = Edd::gateway(upstream.routes()).start().await;
                for over in Over::BOTH {
                    let mut client = over.connect(&edd).await;
                    for _ in 0..2 {
                        client.send(GET).await;
                        let got = client.response().await;
                        assert!(got.body == sent, "{} bytes came, or others", got.body.len());
                        let line = edd.access_line(got.header("x-request-id")).await;
                        assert_eq!(line.json["bytes_out"], length);
                    }
                }
                assert_eq!(upstream.connections().len(), if can_be_kept { 1 } else { 4 });
            };
            cases.case(&format!("{length} bytes, framing {number}"), case).await;
        }
    }
    cases.finish();
}

/// Requests with and without bodies go through different engines and wait for one another all the same.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = RawUpstream::start(|mut connection| async move {
        while let Some(head) = connection.head().await {
            let length = if head.starts_with("POST") { 3 } else { 0 };
            connection.body(length).await;
            let path = head.split(' ').nth(1).unwrap_or_default();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for over in Over::BOTH {
        let mut client = over.connect(&edd).await;
        let requests: String = (0..40)
            .map(|number| match number % 4 {
                3 => format!("POST /{number} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc"),
                _ => format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            })
            .collect();
        client.send(requests).await;
        for number in 0..40 {
            assert_eq!(client.response().await.text(), format!("/{number}"));
        }
    }
}

#[tokio::test]
async fn heads_keep_their_spelling() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 Splendid\r\nX-CaSe: Is Kept\r\nx-First: 1\r\nX-FIRST: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Content-Length: 0\r\n\r\n",
    )
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send("GET /x?q=%41 HTTP/1.1\r\nhOSt: a.test\r\nX-aSk: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n\r\n").await;
    let head = String::from_utf8(client.until(b"\r\n\r\n").await.expect("a head")).expect("text");
    assert!(head.starts_with("HTTP/1.1 200 Splendid\r\nX-CaSe: Is Kept\r\nx-First: 1\r\nX-FIRST: 2\r\n"), "{head}");
    assert!(!head.to_lowercase().contains("x-hop") && head.contains("\r\nDate: "), "{head}");
    let asked = String::from_utf8(upstream.bytes()).expect("text");
    assert!(asked.starts_with("GET /x?q=%41 HTTP/1.1\r\nhOSt: a.test\r\nX-aSk: 1\r\nx-forwarded-for: "), "{asked}");
    assert!(!asked.to_lowercase().contains("\r\nte:") && !asked.to_lowercase().contains("\r\nkeep-alive:"), "{asked}");
}

/// A hint is passed on; an invitation to send a body is not, where there is none.
#[tokio::test]
async fn interim_answers_are_passed_on() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let answer =
        ["HTTP/1.1 100 Continue\r\n\r\n", hint, hint, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"].concat();
    let upstream = RawUpstream::answering(answer).await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for over in Over::BOTH {
        let mut client = over.connect(&edd).await;
        client.send(GET).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.text(), &answer.interim[..]), (200, "ok", &[103, 103][..]));
    }
    for unasked in ["HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned(), hint.repeat(1000)] {
        let upstream = RawUpstream::answering(unasked).await;
        let edd = Edd::gateway(upstream.routes()).start().await;
        let mut client = edd.connect().await;
        client.send(GET).await;
        let mut answer = client.try_response("GET").await.expect("an answer");
        assert_eq!((answer.status, answer.json()["reason"].as_str()), (502, Some("upstream_invalid_response")));
        answer.interim.dedup();
        assert!(answer.interim.is_empty() || answer.interim == [103], "{:?}", answer.interim);
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_a_body_takes_the_target_with_it() {
    for framing in [LONG, "HTTP/1.1 200 OK\r\n\r\n"] {
        let (upstream, _) = endless(framing).await;
        let edd = Edd::gateway(upstream.routes()).start().await;
        for (number, over) in Over::BOTH.into_iter().enumerate() {
            let mut client = over.connect(&edd).await;
            client.send(GET).await;
            let head = client.head().await.expect("a head");
            client.discard(10 * MIB as u64).await;
            drop(client);
            upstream.wait("the target to be let go of", |c| c.number == number as u64 && c.closed).await;
            let line = edd.access_line(head.headers["x-request-id"].to_str().expect("ASCII")).await;
            assert_eq!((line.field("reason").as_str(), line.json["status"].as_u64()), ("client_closed", Some(200)));
        }
    }
}

#[tokio::test]
async fn a_removed_route_ends_within_a_body() {
    let (upstream, _) = endless(LONG).await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_DRAIN_SECONDS", "1").start().await;
    let mut clients = [Over::Tcp.connect(&edd).await, Over::Tls.connect(&edd).await];
    let mut ids = Vec::new();
    for client in &mut clients {
        client.send(GET).await;
        let head = client.head().await.expect("a head");
        ids.push(head.headers["x-request-id"].to_str().expect("ASCII").to_owned());
    }
    edd.write_routes("routes: []\n");
    for (client, id) in clients.iter_mut().zip(ids) {
        within("the stream to be cut", client.discard(u64::MAX)).await;
        assert_eq!(edd.access_line(&id).await.field("reason"), "route_removed");
    }
    upstream.wait("the target to be let go of", |c| c.closed).await;
}

#[tokio::test]
async fn a_drain_waits_for_the_end_of_a_body() {
    const LENGTH: usize = 64 * MIB;
    let sent = body(LENGTH);
    let answer = framings(&sent)[0].0.clone();
    let upstream = RawUpstream::answering(answer).await;
    let mut edd = Edd::gateway(upstream.routes()).start().await;
    let mut clients = [Over::Tcp.connect(&edd).await, Over::Tls.connect(&edd).await];
    for client in &mut clients {
        client.send(GET).await;
        client.head().await.expect("a head");
    }
    edd.signal(Signal::TERM);
    edd.wait_log("the drain", |line| line.field("message") == "draining").await;
    for client in &mut clients {
        let got = client.exactly(LENGTH).await.expect("the whole body");
        assert!(got == sent);
    }
    drop(clients);
    assert_eq!(edd.wait_exit().await.code(), Some(0));
}

/// What has begun and then stalls, or ends, within what goes through a pipe looks cut, and is told of.
#[tokio::test]
async fn a_body_that_stops_looks_cut() {
    let half = body(3 * MIB);
    for (stalls, reason) in [(true, "upstream_timeout"), (false, "upstream_closed")] {
        let half = half.clone();
        let upstream = RawUpstream::start(move |mut connection| {
            let half = half.clone();
            async move {
                connection.head().await;
                connection.send(LONG).await;
                connection.send(&half).await;
                if stalls {
                    connection.hang().await;
                }
            }
        })
        .await;
        let routes = format!("routes: [{{target: '{}', timeouts: {{read: 300ms}}}}]", upstream.address);
        let edd = Edd::gateway(routes).start().await;
        for over in Over::BOTH {
            let mut client = over.connect(&edd).await;
            client.send(GET).await;
            assert_eq!(client.try_response("GET").await.err(), Some(Broken::Truncated));
        }
        edd.wait_log_lines("both requests", reason, 2).await;
    }
}

/// A connection that its target closed is replaced, however many of them wait.
#[tokio::test]
async fn stale_connections_cost_nobody_an_answer() {
    let upstream = RawUpstream::start(|mut connection| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        // The next request is read, and not answered.
        connection.head().await;
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for _ in 0..3 {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(edd.connect().await);
        }
        for client in &mut clients {
            client.send(GET).await;
        }
        for client in &mut clients {
            assert_eq!(client.response().await.text(), "ok");
        }
    }
}

/// A slow client holds up its target, and memory does not grow, whatever delimits the body.
#[tokio::test]
async fn a_client_that_reads_nothing_costs_no_memory() {
    let most = if is_full_run() { 10 * 1024 * MIB } else { 256 * MIB } as u64;
    let small = RawUpstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let endless_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n";
    for framing in [LONG, "HTTP/1.1 200 OK\r\n\r\n", endless_chunk] {
        let (upstream, sent) = endless(framing).await;
        let (large, small) = (upstream.address, small.address);
        let edd = Edd::gateway(format!(
            "routes: [{{host: a.test, target: '{large}'}}, {{host: small.test, target: '{small}'}}]"
        ));
        let edd = edd.start().await;
        let before = edd.resident_kib();
        for over in Over::BOTH {
            let mut client = over.connect(&edd).await;
            let already = sent.load(Ordering::Relaxed);
            client.send(GET).await;
            client.head().await.expect("a head");
            let received = client.discard(MIB as u64).await;
            // Others are served while the target has to wait.
            for _ in 0..100 {
                assert_eq!(edd.get("small.test", "/x").await.text(), "ok");
            }
            let underway = (sent.load(Ordering::Relaxed) - already).saturating_sub(received);
            assert!(underway < 48 * MIB as u64, "{underway} bytes are on their way");
            assert!(client.discard(most).await >= most);
            let grown = edd.resident_kib().saturating_sub(before);
            assert!(grown < 32 * 1024, "memory grew by {grown} KiB");
        }
    }
}
