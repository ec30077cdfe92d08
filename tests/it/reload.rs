//! routes.yaml while it changes: how a change is noticed, what a bad one does, and what outlives it.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::harness::{Connection, Edd, H2Client, LogLine, Upstream, WebSocket, within};

/// A change is looked for this often where no event tells of it.
const POLL: Duration = Duration::from_secs(10);

/// Waits until the table of this revision serves, which takes an event and not a look.
async fn until_revision(edd: &Edd, revision: u64) {
    let (revision, since) = (revision.to_string(), Instant::now());
    let published = |line: &LogLine| line.field("revision") == revision && line.json["status"].is_null();
    edd.wait_log(format!("revision {revision}"), published).await;
    assert!(since.elapsed() < POLL, "noticed after {:?}", since.elapsed());
}

/// Which upstream answers.
async fn asked(edd: &Edd, host: &str) -> String {
    let answer = edd.get(host, "/x").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-upstream").to_owned()
}

async fn readiness(edd: &Edd) -> String {
    let answer = edd.admin("/readyz?verbose").await;
    // Serving the last good routes beats an outage.
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().to_owned()
}

#[tokio::test]
async fn edits_in_place_and_renames_are_noticed() {
    let [one, two] = [Upstream::named("one").await, Upstream::named("two").await];
    let edd = Edd::gateway(one.routes()).start().await;
    let file = edd.path("routes.yaml");
    for (number, upstream) in [&two, &one, &two].into_iter().enumerate() {
        match number {
            0 | 2 => std::fs::write(&file, upstream.routes()).expect("the file is there"),
            _ => edd.write_routes(&upstream.routes()),
        }
        until_revision(&edd, number as u64 + 2).await;
        assert_eq!(asked(&edd, "a.test").await, if number == 1 { "one" } else { "two" });
    }
}

/// What the kubelet does when a ConfigMap changes: the file itself is a link that never moves.
#[tokio::test]
async fn config_maps_are_followed() {
    let upstreams = [Upstream::named("0").await, Upstream::named("1").await, Upstream::named("2").await];
    let builder = Edd::gateway("").file("..0/routes.yaml", &upstreams[0].routes());
    let file = builder.path("routes.yaml");
    std::fs::remove_file(&file).expect("the harness wrote one");
    symlink("..0", builder.path("..data")).expect("a link");
    symlink("..data/routes.yaml", &file).expect("a link");
    let edd = builder.start().await;
    assert_eq!(asked(&edd, "a.test").await, "0");
    for (number, upstream) in upstreams.iter().enumerate().skip(1) {
        let directory = format!("..{number}");
        std::fs::create_dir(edd.path(&directory)).expect("a directory");
        std::fs::write(edd.path(&directory).join("routes.yaml"), upstream.routes()).expect("a file");
        symlink(&directory, edd.path("..data_tmp")).expect("a link");
        std::fs::rename(edd.path("..data_tmp"), edd.path("..data")).expect("a rename");
        std::fs::remove_dir_all(edd.path(&format!("..{}", number - 1))).expect("the old directory");
        until_revision(&edd, number as u64 + 1).await;
        assert_eq!(asked(&edd, "a.test").await, number.to_string());
    }
}

#[tokio::test]
async fn a_signal_reads_the_file_whether_it_changed_or_not() {
    let [one, two] = [Upstream::named("one").await, Upstream::named("two").await];
    let mut edd = Edd::gateway(one.routes()).start().await;
    edd.signal(Signal::HUP);
    until_revision(&edd, 2).await;
    assert_eq!(edd.admin("/routes").await.json()["revision"], 2);
    assert_eq!(asked(&edd, "a.test").await, "one");
    edd.write_routes(&two.routes());
    edd.signal(Signal::HUP);
    until_revision(&edd, 3).await;
    assert_eq!(asked(&edd, "a.test").await, "two");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_of() {
    let upstream = Upstream::start().await;
    let target = upstream.address;
    let good = format!("routes:\n  - {{host: a.test, target: '{target}'}}\n");
    let edd = Edd::gateway(&good).start().await;
    let missing = format!("routes: [{{host: a.test, target: 'https://{target}', tls: {{ca_file: missing.pem}}}}]\n");
    for (number, (bad, told)) in [
        ("routes:\n  - host: a.test\n    targett: '127.0.0.1:1'\n", "routes.yaml:3:5"),
        ("routes:\n  - {host: a.test, target: '127.0.0.1:1'\n", "routes.yaml:"),
        ("", "routes.yaml:1:1"),
        (&missing, "missing.pem"),
    ]
    .into_iter()
    .enumerate()
    {
        eprintln!("case: {told}");
        edd.write_routes(bad);
        let failures = (number + 1) as f64;
        let failed = [("result", "failure")];
        edd.wait_metrics("a failure", |m| m.value("edd_config_reloads_total", &failed) == Some(failures)).await;
        let metrics = edd.metrics().await;
        assert_eq!(metrics.value("edd_config_last_reload_successful", &[]), Some(0.0));
        let logged =
            edd.wait_log(told, |line| line.field("level") == "ERROR" && line.field("message").contains(told)).await;
        assert!(logged.field("file").ends_with("routes.yaml"), "{logged:?}");
        let serving = format!("still serving revision {}", number + 1);
        let shown = |text: &str| text.contains("[!] routes") && text.contains(told) && text.contains(&serving);
        within("the rejection to show", async { while !shown(&readiness(&edd).await) {} }).await;
        assert_eq!(asked(&edd, "a.test").await, "upstream");
        // Also the very text that was served before ends it.
        edd.write_routes(&good);
        until_revision(&edd, number as u64 + 2).await;
        let readiness = readiness(&edd).await;
        assert!(readiness.contains("[+] routes") && !readiness.contains(told), "{readiness}");
        let metrics = edd.metrics().await;
        assert_eq!(metrics.value("edd_config_last_reload_successful", &[]), Some(1.0));
        assert_eq!(metrics.value("edd_config_reloads_total", &failed), Some(failures));
    }
}

#[tokio::test]
async fn a_file_that_is_gone_is_waited_for() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    std::fs::remove_file(edd.path("routes.yaml")).expect("the file is there");
    let logged = edd.wait_log("the loss", |line| line.field("level") == "ERROR").await;
    assert!(logged.field("message").contains("routes.yaml"), "{logged:?}");
    within("the loss to show", async { while !readiness(&edd).await.contains("[!] routes") {} }).await;
    assert_eq!(asked(&edd, "a.test").await, "upstream");
    edd.write_routes(&upstream.routes());
    until_revision(&edd, 2).await;
    assert!(readiness(&edd).await.contains("[+] routes"));
}

/// One stream of each kind to one host.
struct Streams {
    host: &'static str,
    socket: WebSocket,
    events: Connection,
    download: Connection,
    ids: [String; 3],
}

/// More than sockets can hold, so that it does not end before it is read.
const DOWNLOAD_BYTES: usize = 48 * 1024 * 1024;

impl Streams {
    async fn open(edd: &Edd, host: &'static str) -> Self {
        let socket = edd.websocket(host).await;
        let (events, event_id) = Self::begin(edd, host, "/sse").await;
        let (download, download_id) = Self::begin(edd, host, &format!("/chunked/{DOWNLOAD_BYTES}")).await;
        let ids = [socket.request_id.clone(), event_id, download_id];
        Self { host, socket, events, download, ids }
    }

    async fn begin(edd: &Edd, host: &str, target: &str) -> (Connection, String) {
        let mut connection = edd.connect().await;
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let head = connection.head().await.expect("a head");
        assert_eq!(head.status, 200);
        (connection, head.headers["x-request-id"].to_str().expect("ASCII").to_owned())
    }

    /// All of them go on to their end.
    async fn are_whole(mut self, upstream: &Upstream) {
        self.socket.echo("still here").await;
        upstream.event("still here");
        let event = self.events.chunk().await.unwrap_or_else(|broken| panic!("{}: {broken:?}", self.host));
        assert_eq!(event, b"data: still here\n\n");
        let mut received = 0;
        while let chunk @ 1.. = self.download.chunk().await.expect("a whole download").len() {
            received += chunk;
        }
        assert_eq!(received, DOWNLOAD_BYTES, "{}", self.host);
    }

    /// All of them are cut off, because of their route.
    async fn are_cut(mut self, edd: &Edd) {
        assert_eq!(self.socket.next().await, None, "{}", self.host);
        self.events.chunk().await.expect_err("no clean end");
        while let Ok(chunk) = self.download.chunk().await {
            assert!(!chunk.is_empty(), "{}: a clean end", self.host);
        }
        for (id, status) in self.ids.iter().zip(["101", "200", "200"]) {
            let line = edd.access_line(id).await;
            assert_eq!([line.field("status"), line.field("reason")], [status, "route_removed"], "{line:?}");
            // Of the events nothing came.
            assert_eq!(line.field("bytes_out") == "0", id == &self.ids[1], "{line:?}");
        }
    }
}

#[tokio::test]
async fn streams_end_with_their_own_route_alone() {
    const DRAIN: Duration = Duration::from_secs(2);
    let [upstream, other] = [Upstream::start().await, Upstream::named("other").await];
    let (here, there) = (upstream.address, other.address);
    let kept = format!("routes:\n- {{host: kept.test, target: '{here}'}}\n");
    let before = format!(
        "{kept}- {{host: tuned.test, target: '{here}'}}
- {{host: changed.test, target: '{here}'}}
- {{host: removed.test, target: '{here}'}}\n"
    );
    let after = format!(
        "{kept}- {{host: tuned.test, target: '{here}', body_limit: 1000}}
- {{host: changed.test, target: '{there}'}}
- {{host: added.test, target: '{there}'}}\n"
    );
    let edd = Edd::gateway(before).env("EDD_DRAIN_SECONDS", &DRAIN.as_secs().to_string()).start().await;
    let streams = join_all(["kept.test", "tuned.test", "changed.test", "removed.test"].map(|h| Streams::open(&edd, h)));
    let [kept, tuned, mut changed, mut removed] = streams.await.try_into().unwrap_or_else(|_| panic!("four hosts"));
    let changed_at = Instant::now();
    edd.write_routes(&after);
    until_revision(&edd, 2).await;
    // New requests follow the new routes while the old streams drain.
    assert_eq!(asked(&edd, "changed.test").await, "other");
    assert_eq!(edd.get("removed.test", "/x").await.status, 404);
    changed.socket.echo("draining").await;
    removed.socket.echo("draining").await;
    changed.are_cut(&edd).await;
    removed.are_cut(&edd).await;
    assert!(changed_at.elapsed() >= DRAIN, "cut after {:?}", changed_at.elapsed());
    kept.are_whole(&upstream).await;
    tuned.are_whole(&upstream).await;
}

#[tokio::test]
async fn a_removed_route_takes_its_series_along() {
    let upstream = Upstream::start().await;
    let route = |name: &str| format!("- {{name: {name}, host: {name}.test, target: '{}'}}\n", upstream.address);
    let both = format!("routes:\n{}{}", route("kept"), route("removed"));
    let edd = Edd::gateway(&both).env("EDD_DRAIN_SECONDS", "0.2").start().await;
    for host in ["kept.test", "removed.test"] {
        asked(&edd, host).await;
    }
    let mut socket = edd.websocket("removed.test").await;
    let count = |route| [("route", route), ("code", "200")];
    edd.wait_metrics("both routes", |m| {
        ["kept", "removed"].iter().all(|route| m.value("edd_http_requests_total", &count(route)) == Some(1.0))
    })
    .await;
    edd.write_routes(&format!("routes:\n{}", route("kept")));
    // Its end is counted, and even so nothing of it remains.
    assert_eq!(socket.next().await, None);
    edd.access_line(&socket.request_id).await;
    edd.wait_metrics("the series to vanish", |m| !m.label_values("route").contains("removed")).await;
    assert_eq!(edd.metrics().await.value("edd_http_requests_total", &count("kept")), Some(1.0));
    // It may come back, and counts from nothing.
    edd.write_routes(&both);
    until_revision(&edd, 3).await;
    asked(&edd, "removed.test").await;
    edd.wait_metrics("the route again", |m| m.value("edd_http_requests_total", &count("removed")) == Some(1.0)).await;
}

/// Asks over and over on one connection, until told to stop; returns how often.
async fn keep_asking(edd: &Edd, stop: &AtomicBool) -> usize {
    let mut client = edd.connect().await;
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello").await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.header("connection")), (200, "keep-alive"), "{}", answer.text());
        assert_eq!(answer.json()["body"], "hello");
        answered += 1;
    }
    answered
}

async fn keep_asking_over_http2(edd: &Edd, stop: &AtomicBool) -> usize {
    let client = H2Client::over(edd.connect().await).await;
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = client.get("http://a.test/size/50000").await;
        assert_eq!((answer.status, answer.body.len()), (200, 50_000));
        answered += 1;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_lose_nothing() {
    const RELOADS: u64 = 50;
    let [one, two] = [Upstream::named("one").await, Upstream::named("two").await];
    let mut edd = Edd::gateway(one.routes()).start().await;
    let mut waiting = edd.connect().await;
    waiting.send("GET /gate/end HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    one.wait("the request", |seen| seen.is_whole()).await;
    let stop = AtomicBool::new(false);
    let reload = async {
        for number in 0..RELOADS {
            let routes = if number % 2 == 0 { two.routes() } else { one.routes() };
            edd.write_routes(&routes);
            until_revision(&edd, number + 2).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let asking = join_all((0..3).map(|_| keep_asking(&edd, &stop)));
    let (answered, over_http2, ()) = tokio::join!(asking, keep_asking_over_http2(&edd, &stop), reload);
    assert!(answered.iter().chain([&over_http2]).all(|&count| count > 20), "{answered:?} {over_http2}");
    // One that waited through them all is answered by the upstream that it went to.
    one.open("end");
    assert_eq!(waiting.response().await.header("x-upstream"), "one");
    assert_eq!(edd.admin("/routes").await.json()["revision"], RELOADS + 1);
    edd.signal(Signal::TERM);
    edd.wait_exit().await;
    let failed: Vec<_> = edd.log().into_iter().filter(|line| !line.field("reason").is_empty()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn ten_thousand_routes_are_loaded() {
    const ROUTES: usize = 10_000;
    let upstream = Upstream::start().await;
    let routes = |last: usize| {
        let route = |number| format!("- {{host: h{number}.test, path: /p, target: '{}'}}\n", upstream.address);
        format!("routes:\n{}", (0..last).map(route).collect::<String>())
    };
    let edd = Edd::gateway(routes(ROUTES)).start().await;
    let asked = async |number: usize| edd.get(&format!("h{number}.test"), "/p/x").await.status;
    for number in [0, ROUTES / 2, ROUTES - 1] {
        assert_eq!(asked(number).await, 200);
    }
    assert_eq!(asked(ROUTES).await, 404);
    edd.write_routes(&routes(ROUTES + 1));
    until_revision(&edd, 2).await;
    assert_eq!(asked(ROUTES).await, 200);
    let metrics = edd.metrics().await;
    assert_eq!(metrics.value("edd_routes", &[("source", "file")]), Some((ROUTES + 1) as f64));
    // Routes that nobody asks for cost no series.
    assert!(metrics.series() < 1000, "{} series", metrics.series());
}
