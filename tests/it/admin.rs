//! The admin listener: health, what it tells of the routes, the live stream of requests, and mistakes in asking.

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::harness::{Cases, Connection, Edd, Upstream, within};

async fn ask(edd: &Edd, head: &str) -> Connection {
    let mut admin = Connection::open(edd.admin).await;
    admin.send(format!("{head} HTTP/1.1\r\nHost: admin\r\n\r\n")).await;
    admin
}

#[tokio::test]
async fn health_is_told_to_probes_people_and_programs() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for (page, text) in [("/livez", "ok\n"), ("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = edd.admin(page).await;
        assert_eq!((answer.status, answer.text()), (200, text), "{page}");
        let answer = ask(&edd, &format!("HEAD {page}")).await.try_response("HEAD").await.expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, ""), "{page}");
    }
    let verbose = edd.admin("/readyz?verbose").await;
    let lines: Vec<_> = verbose.text().lines().collect();
    assert!(lines.contains(&"[+] listeners: accepting") && lines.last() == Some(&"ready"), "{lines:?}");
    let routes = lines.iter().find(|line| line.starts_with("[+] routes: ")).expect("a line on the routes");
    assert!(routes.contains("revision 1, 1 routes from ") && routes.contains("routes.yaml, loaded 20"), "{routes}");
    let mut admin = Connection::open(edd.admin).await;
    admin.send("GET /readyz?verbose HTTP/1.1\r\nHost: admin\r\nAccept: application/json\r\n\r\n").await;
    let report = admin.response().await.json();
    assert_eq!(report["ready"], true);
    let states = report["checks"].as_array().expect("a list").iter().map(|c| (&c["name"], &c["state"]));
    assert!(states.eq([
        (&json!("listeners"), &json!("ok")),
        (&json!("routes"), &json!("ok")),
        (&json!("certificates"), &json!("ok"))
    ]));
}

/// Serving what was good beats an outage, so the gateway stays ready.
#[tokio::test]
async fn a_refused_edit_is_told_with_its_place() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    edd.write_routes("routes:\n  - {host: a.test, traget: 'x:80'}\n");
    let failure = [("result", "failure")];
    edd.wait_metrics("the refusal", |m| m.value("edd_config_reloads_total", &failure) == Some(1.0)).await;
    assert_eq!(edd.metrics().await.value("edd_config_last_reload_successful", &[]), Some(0.0));
    let verbose = edd.admin("/readyz?verbose").await;
    assert_eq!(verbose.status, 200);
    for part in ["[!] routes: a change was rejected at 20", "still serving revision 1", "routes.yaml:2:20", "^^^^^^"] {
        assert!(verbose.text().contains(part), "no {part:?} in {}", verbose.text());
    }
    let told = edd.wait_log("the refusal", |line| line.text.contains("the routes were not taken")).await;
    assert!(told.field("level") == "ERROR" && told.text.contains("did you mean `target`?"), "{}", told.text);
    assert_eq!(edd.get("a.test", "/x").await.status, 200);
    edd.write_routes(&upstream.routes());
    edd.wait_metrics("the recovery", |m| m.value("edd_config_last_reload_successful", &[]) == Some(1.0)).await;
    assert!(edd.admin("/readyz?verbose").await.text().contains("[+] routes: "));
}

#[tokio::test]
async fn routes_are_listed_and_explained() {
    let edd = Edd::gateway(
        "routes:
        - {host: b.test, redirect: {to: 'https://a.test', status: 308}}
        - {host: a.test, target: 'x:80', name: root}
        - {host: a.test, path: /api, targets: [{target: 'x:80'}, {target: 'y:80', weight: 2}], strip_prefix: true}
        - {host: '*.test', target: 'z:80'}",
    )
    .start()
    .await;
    let list = edd.admin("/routes").await.json();
    assert_eq!(list["revision"], 1);
    let rows: Vec<[&str; 4]> = list["routes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| ["host", "path", "action", "route"].map(|key| row[key].as_str().expect("text")))
        .collect();
    assert_eq!(
        rows,
        [
            ["*.test", "/", "z:80", "*.test/"],
            ["a.test", "/", "x:80", "root"],
            ["a.test", "/api", "x:80 (1), y:80 (2)", "a.test/api"],
            ["b.test", "/", "308 https://a.test", "b.test/"],
        ]
    );
    let told = edd.admin("/routes/explain?url=https%3A%2F%2FA.Test%3A8443%2Fapi%2Fx%2F..%2Fy%3Fz").await.json();
    assert_eq!((&told["host"], &told["path"]), (&json!("a.test"), &json!("/api/y")));
    assert_eq!((&told["winner"]["route"], &told["winner"]["upstream_path"]), (&json!("a.test/api"), &json!("/y")));
    let losers: Vec<_> = told["losers"].as_array().expect("a list").iter().map(|l| (&l["route"], &l["why"])).collect();
    let (shorter, host) = ((json!("root"), json!("shorter_prefix")), (json!("*.test/"), json!("host_less_specific")));
    assert_eq!(losers, [(&shorter.0, &shorter.1), (&host.0, &host.1)]);
    assert_eq!(told["other_hosts"], 1);
    let nobody = edd.admin("/routes/explain?url=nobody.example").await.json();
    assert_eq!((&nobody["winner"], &nobody["other_hosts"]), (&Value::Null, &json!(4)));
}

#[tokio::test]
async fn mistakes_in_asking_are_problems_too() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut cases = Cases::default();
    for (head, status, detail) in [
        ("GET /", 404, "/metrics"),
        ("GET /livez/", 404, "no such page"),
        ("GET /Metrics", 404, "no such page"),
        ("GET /../etc/passwd", 404, "no such page"),
        ("POST /livez", 405, "GET"),
        ("DELETE /ports", 405, "GET"),
        ("PUT /tap", 405, "GET"),
        ("BREW /metrics", 405, "GET"),
        ("GET /routes/explain", 400, "say which URL"),
        ("GET /routes/explain?url=", 400, "is no host"),
        ("GET /routes/explain?url=http%3A%2F%2Fa%20b%2F", 400, "`a b` is no host"),
        ("GET /routes/explain?url=a.test%2F..%2F..", 400, "`/../..`"),
        ("GET /routes/explain?url=a&url=b", 400, "duplicate field `url`"),
        ("GET /readyz?verbose&verbose", 400, "duplicate field `verbose`"),
        ("GET /tap?status=6xx", 400, "`6xx` is no status"),
        ("GET /tap?status=5xx&status=4xx", 400, "duplicate field `status`"),
        ("GET /tap?host=a%20b", 400, "`a b` is no host"),
    ] {
        let case = async {
            let answer = ask(&edd, head).await.response().await;
            assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"));
            let problem = answer.json();
            assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!("about:blank")));
            assert!(problem["detail"].as_str().expect("a sentence").contains(detail), "{problem}");
            assert_eq!(problem["request_id"].as_str().map(str::len), Some(36), "{problem}");
            assert_eq!(answer.header("allow"), if status == 405 { "GET,HEAD" } else { "" });
        };
        cases.case(head, case).await;
    }
    cases.finish();
}

/// A live stream: what it was asked for, and nothing from before.
#[tokio::test]
async fn tap_shows_requests_as_they_are_answered() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let before = edd.get("a.test", "/before").await;
    edd.access_line(before.header("x-request-id")).await;
    let taps = [
        ("/tap", &["/status/200 a.test", "/status/404 b.test", "/status/503 a.test", "/status/503 b.test"][..]),
        ("/tap?status=5xx", &["/status/503 a.test", "/status/503 b.test"]),
        ("/tap?host=B.test.", &["/status/404 b.test", "/status/503 b.test"]),
        ("/tap?host=b.test&status=503", &["/status/503 b.test"]),
        ("/tap?status=404", &["/status/404 b.test"]),
    ];
    let mut streams = Vec::new();
    for (page, wanted) in taps {
        let mut stream = ask(&edd, &format!("GET {page}")).await;
        let head = stream.head().await.expect("the head comes before the first request");
        assert_eq!(
            (head.status, &head.headers["content-type"]),
            (200, &"application/x-ndjson".parse().expect("a value"))
        );
        streams.push((page, wanted, stream));
    }
    let mut ids = Vec::new();
    for (host, target) in [
        ("a.test", "/status/200?secret"),
        ("a.test", "/status/503"),
        ("b.test", "/status/404"),
        ("b.test", "/status/503"),
    ] {
        ids.push(edd.get(host, target).await.header("x-request-id").to_owned());
    }
    let mut cases = Cases::default();
    for (page, wanted, mut stream) in streams {
        let case = async {
            let mut said = Vec::new();
            for _ in wanted {
                let line = stream.chunk().await.expect("a line");
                let record: Value = serde_json::from_slice(&line).expect("a line of JSON");
                said.push(format!("{} {}", record["path"], record["host"]).replace('"', ""));
                let id = record["request_id"].as_str().expect("an id");
                assert!(ids.iter().any(|known| known == id));
                // The very words of the access log.
                assert_eq!(record, edd.access_line(id).await.json);
                assert!(line.ends_with(b"\n") && !line.windows(6).any(|part| part == b"secret"));
            }
            // A request is told of when it has ended, which its client may have seen before.
            said.sort_unstable();
            assert_eq!(said, wanted);
        };
        cases.case(page, case).await;
    }
    cases.finish();
}

/// Whoever is too slow misses lines, and is told how many; requests wait for nobody.
#[tokio::test]
async fn a_tap_that_is_not_read_holds_nothing_up() {
    let edd = Edd::gateway("routes: []").env("EDD_ACCESS_LOG", "off").start().await;
    // Little fits between the two sides: 1,024 lines wait, and what the sockets hold.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a fresh socket takes options");
    let mut tap =
        Connection::over(within("the admin listener", socket.connect(edd.admin)).await.expect("a connection"));
    tap.send("GET /tap HTTP/1.1\r\nHost: admin\r\n\r\n").await;
    tap.head().await.expect("the head comes before the first request");
    let path = "x".repeat(12_000);
    let requests = async || {
        let mut client = edd.connect().await;
        for _ in 0..500 {
            client.send(format!("GET /{path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
            assert_eq!(client.response().await.status, 404);
        }
    };
    tokio::join!(requests(), requests(), requests(), requests());
    let mut shown = 0;
    let missed = loop {
        let line = tap.chunk().await.expect("a line");
        let record: Value = serde_json::from_slice(&line).expect("a line of JSON");
        match record["missed"].as_u64() {
            Some(missed) => break missed,
            None => shown += 1,
        }
    };
    assert!(shown > 0 && missed > 0 && shown + missed <= 2000, "{shown} shown, {missed} missed");
}
