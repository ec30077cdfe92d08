//! `edd gateway --takeover`: a successor takes the sockets over, and no client notices.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::harness::tls::Client;
use crate::harness::{Connection, Edd, H2Client, LogLine, Metrics, PATIENCE, Upstream, h2_client, within};

/// Starts the successor of `edd`, which listens where it does.
async fn succeed(edd: &Edd) -> Edd {
    let successor = edd.again().args(&["--takeover"]).start().await;
    let listeners = |edd: &Edd| [edd.http, edd.https, edd.admin];
    assert_eq!(listeners(&successor), listeners(edd));
    successor
}

/// Waits until `edd` has handed over, has let its last connection go, and has exited well.
async fn retires(edd: &mut Edd) {
    edd.may_exit();
    edd.wait_log("the handover", |line| line.field("message").contains("a successor serves")).await;
    assert_eq!(edd.wait_exit().await.code(), Some(0));
}

/// How clients find their way to whichever process serves.
struct Clients<'a> {
    edd: &'a Edd,
    tls: Client,
    tls_h2: Client,
    stop: AtomicBool,
}

impl Clients<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn secure(&self, client: &Client) -> Connection {
        client.connect(self.edd.https, "cloud.localhost").await.expect("a handshake").0
    }

    /// One connection for as long as the server says that it may be kept.
    async fn keep_alive(&self, secure: bool) -> usize {
        let mut answered = 0;
        while !self.stopped() {
            let mut client = if secure { self.secure(&self.tls).await } else { self.edd.connect().await };
            while !self.stopped() {
                client.send("POST /x HTTP/1.1\r\nHost: cloud.localhost\r\nContent-Length: 2\r\n\r\nhi").await;
                let answer = client.response().await;
                assert_eq!((answer.status, answer.json()["body"].as_str()), (200, Some("hi")));
                answered += 1;
                if answer.header("connection") == "close" {
                    client.expect_close().await;
                    break;
                }
            }
        }
        answered
    }

    /// A connection for every request.
    async fn one_by_one(&self, secure: bool) -> usize {
        let mut answered = 0;
        while !self.stopped() {
            let mut client = if secure { self.secure(&self.tls).await } else { self.edd.connect().await };
            client.send("GET /size/20000 HTTP/1.1\r\nHost: cloud.localhost\r\nConnection: close\r\n\r\n").await;
            let answer = client.response().await;
            assert_eq!((answer.status, answer.body.len()), (200, 20_000));
            answered += 1;
        }
        answered
    }

    /// Streams on one connection, until the server sends a GOAWAY.
    async fn http2(&self, secure: bool) -> usize {
        let mut answered = 0;
        while !self.stopped() {
            let connection = if secure { self.secure(&self.tls_h2).await } else { self.edd.connect().await };
            let client = H2Client::over(connection).await;
            while !self.stopped() {
                let request = http::Request::get("https://cloud.localhost/size/20000").body(()).expect("a request");
                // RFC 9113 §6.8: what is beyond the GOAWAY's last stream was not begun.
                let Ok(response) = client.ask(request).await else { break };
                let answer = match h2_client::read(response).await {
                    Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                    answer => answer.expect("an answer"),
                };
                assert_eq!((answer.status, answer.body.len()), (200, 20_000));
                answered += 1;
            }
        }
        answered
    }

    async fn admin(&self) -> usize {
        let mut answered = 0;
        while !self.stopped() {
            assert_eq!(self.edd.admin("/readyz").await.status, 200);
            answered += 1;
        }
        answered
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_in_a_row_lose_nothing() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_DRAIN_SECONDS", "5").start().await;
    let root = edd.local_authority();
    let trusting = |protocol| Client::trusting(&root).alpn(&[protocol]);
    let clients =
        Clients { edd: &edd, tls: trusting("http/1.1"), tls_h2: trusting("h2"), stop: AtomicBool::new(false) };
    let takeovers = async {
        let mut processes: Vec<Edd> = Vec::new();
        for _ in 0..3 {
            let serving = processes.last().unwrap_or(&edd);
            let successor = succeed(&edd).await;
            serving.wait_log("the handover", |line| line.field("message").contains("a successor serves")).await;
            let busy = |m: &Metrics| m.value("edd_http_requests_total", &[]) >= Some(100.0);
            successor.wait_metrics("a hundred requests to the successor", busy).await;
            processes.push(successor);
        }
        clients.stop.store(true, Ordering::Relaxed);
        processes
    };
    let h1 = join_all([false, true].map(|secure| clients.keep_alive(secure)));
    let new = join_all([false, true].map(|secure| clients.one_by_one(secure)));
    let h2 = join_all([false, true].map(|secure| clients.http2(secure)));
    let (h1, new, h2, admin, mut processes) = tokio::join!(h1, new, h2, clients.admin(), takeovers);
    let counts: Vec<_> = [h1, new, h2].concat().into_iter().chain([admin]).collect();
    assert!(counts.iter().all(|&count| count > 10), "{counts:?}");
    let mut first = edd;
    let mut last = processes.pop().expect("three");
    for edd in [&mut first].into_iter().chain(&mut processes) {
        retires(edd).await;
    }
    assert_eq!(last.get("a.test", "/x").await.status, 200);
    last.signal(Signal::TERM);
    assert_eq!(last.wait_exit().await.code(), Some(0));
    for edd in [&first, &last].into_iter().chain(&processes) {
        let failed: Vec<_> = edd.log().into_iter().filter(|line| !line.field("reason").is_empty()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

#[tokio::test]
async fn streams_of_the_predecessor_have_the_drain_time() {
    const DRAIN: Duration = Duration::from_secs(3);
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_DRAIN_SECONDS", &DRAIN.as_secs().to_string());
    let mut edd = edd.start().await;
    let mut socket = edd.websocket("a.test").await;
    let mut idle = edd.connect().await;
    idle.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(idle.response().await.header("connection"), "keep-alive");
    let mut waiting = edd.connect().await;
    waiting.send("GET /gate/end HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    upstream.wait("the request", |seen| seen.target == "/gate/end" && seen.is_whole()).await;
    edd.may_exit();
    let started = async |edd: &Edd| edd.metrics().await.value("edd_process_start_time_seconds", &[]);
    let before = started(&edd).await;
    let since = Instant::now();
    let successor = succeed(&edd).await;
    edd.wait_log("the handover", |line| line.field("message").contains("a successor serves")).await;
    // It serves alone, and it is the one that the admin listener speaks of.
    for _ in 0..20 {
        let answer = successor.get("a.test", "/x").await;
        successor.access_line(answer.header("x-request-id")).await;
        assert_ne!(started(&successor).await, before);
    }
    socket.echo("still here").await;
    // Who has kept a connection open may ask once more on it.
    idle.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let answer = idle.response().await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    upstream.open("end");
    assert_eq!(waiting.response().await.text(), "open");
    assert_eq!(socket.next().await, None);
    assert!(since.elapsed() >= DRAIN, "cut after {:?}", since.elapsed());
    assert_eq!(edd.access_line(&socket.request_id).await.field("reason"), "shutting_down");
    retires(&mut edd).await;
    successor.websocket("a.test").await.echo("new").await;
}

#[tokio::test]
async fn a_listener_whose_address_changed_is_bound_anew() {
    let upstream = Upstream::start().await;
    let mut edd = Edd::gateway(upstream.routes()).start().await;
    let successor = edd.again().args(&["--takeover"]).env("EDD_HTTP_LISTEN", "127.0.0.2:0").start().await;
    assert_eq!(successor.http.ip().to_string(), "127.0.0.2");
    assert_eq!((successor.https, successor.admin), (edd.https, edd.admin));
    assert_eq!(successor.get("a.test", "/x").await.status, 200);
    retires(&mut edd).await;
    tokio::net::TcpStream::connect(edd.http).await.expect_err("nobody listens where the predecessor did");
}

#[tokio::test]
async fn a_successor_that_cannot_start_changes_nothing() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut socket = edd.websocket("a.test").await;
    let mut kept = edd.connect().await;
    let successor = || edd.again().args(&["--takeover"]);
    // Neither process can serve these, so the one that serves what came before goes on.
    edd.write_routes("routes: [{host: a.test, targett: x}]\n");
    let bad_certs = successor().env("EDD_CERTS_DIR", "routes.yaml");
    for (successor, code, told) in [
        (successor(), 78, "routes.yaml:1:"),
        (successor().env("EDD_DRAIN_SECONDS", "soon"), 2, "--drain-seconds"),
        (successor().env("EDD_TRUSTED_PROXIES", "10.0.0.0/33"), 2, "10.0.0.0/33"),
        (bad_certs, 78, "routes.yaml"),
    ] {
        eprintln!("case: {told}");
        let output = successor.run().await;
        assert_eq!(output.code, Some(code), "{output:#?}");
        assert!(output.stderr.contains(told), "{output:#?}");
        kept.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(kept.response().await.header("connection"), "keep-alive");
        socket.echo("still here").await;
    }
    assert_eq!(edd.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_successor_to_nobody_says_so() {
    let upstream = Upstream::start().await;
    let builder = Edd::gateway(upstream.routes());
    let output = builder.clone().args(&["--takeover"]).run().await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(69), ""));
    assert!(output.stderr.contains("gateway.sock") && output.stderr.contains("without --takeover"), "{output:#?}");
    // Also where one was, whatever it has left behind.
    let mut edd = builder.start().await;
    edd.signal(Signal::KILL);
    edd.wait_exit().await;
    let output = edd.again().args(&["--takeover"]).run().await;
    assert_eq!(output.code, Some(69), "{output:#?}");
    let again = edd.again().start().await;
    assert_eq!(again.get("a.test", "/x").await.status, 200);
    let mut again = again;
    let successor = succeed(&again).await;
    retires(&mut again).await;
    assert_eq!(successor.get("a.test", "/x").await.status, 200);
}

/// One that dies between taking the sockets and saying that it serves.
#[tokio::test]
async fn a_successor_that_dies_on_the_way_is_forgotten() {
    let upstream = Upstream::start().await;
    let mut edd = Edd::gateway(upstream.routes()).start().await;
    let path = edd.path("data/gateway.sock");
    let take = || {
        let mut stream = UnixStream::connect(&path).expect("edd listens for a successor");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut roles = [0; 256];
        // The sockets come with these bytes, and are closed with them.
        let length = stream.read(&mut roles).expect("the sockets' names");
        assert_eq!(&roles[..length], br#"["http","https","admin"]"#);
        stream
    };
    for number in 0..3 {
        let mut dying = take();
        assert_eq!(edd.get("a.test", "/x").await.status, 200);
        if number == 1 {
            dying.write_all(b"rea").expect("an open socket");
        }
        drop(dying);
        let begun = |log: &[LogLine]| {
            log.iter().filter(|line| line.field("message").contains("begun and not finished")).count()
        };
        let told = async {
            while begun(&edd.log()) <= number {
                tokio::task::yield_now().await
            }
        };
        within("the failed takeover to be told", told).await;
    }
    assert_eq!(edd.admin("/readyz").await.status, 200);
    let successor = succeed(&edd).await;
    retires(&mut edd).await;
    assert_eq!(successor.get("a.test", "/x").await.status, 200);
}
