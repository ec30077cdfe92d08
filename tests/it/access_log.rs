//! The access log: one line of JSON per request, with everything that helps and nothing that is secret.

use crate::harness::{Edd, Upstream};

#[tokio::test]
async fn a_line_has_all_that_is_known_of_a_request() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client
        .send(
            "POST /a/../x%41?token=hush HTTP/1.1\r\nHost: A.Test:8080\r\nContent-Length: 5\r\nCookie: session=hush\r\n\
             Authorization: Bearer hush\r\nReferer: http://b.test/?hush\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\nhush!",
        )
        .await;
    let answer = client.response().await;
    assert_eq!(answer.status, 200);
    let id = answer.json()["headers"]["x-request-id"].as_str().expect("an id").to_owned();
    let line = edd.access_line(&id).await;
    let mut fields: Vec<_> = line.json.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "bytes_in",
            "bytes_out",
            "client_ip",
            "duration_ms",
            "host",
            "level",
            "listener",
            "method",
            "path",
            "proto",
            "request_id",
            "revision",
            "route",
            "status",
            "target",
            "trace_id",
            "ts",
            "upstream",
            "upstream_ms"
        ]
    );
    for (name, want) in [
        ("level", "INFO"),
        ("target", "access"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("listener", "http"),
        ("client_ip", "127.0.0.1"),
        ("host", "a.test"),
        ("method", "POST"),
        ("path", "/a/../x%41"),
        ("proto", "HTTP/1.1"),
        ("status", "200"),
        ("bytes_in", "5"),
        ("bytes_out", &answer.body.len().to_string()),
        ("route", "*/"),
        ("revision", "1"),
        ("upstream", &upstream.address.to_string()),
    ] {
        assert_eq!(line.field(name), want, "{name}");
    }
    let (whole, part) = (line.json["duration_ms"].as_f64(), line.json["upstream_ms"].as_f64());
    assert!(part > Some(0.0) && whole >= part, "{whole:?} {part:?}");
    assert!(edd.log().iter().all(|line| !line.text.contains("hush")), "a secret in the log");
}

/// Whoever writes `a.test\n{...}` into a request writes it into one field of one line.
#[tokio::test]
async fn a_client_writes_no_lines_of_its_own() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for (host, target) in
        [("a\"b.test", "/x"), ("a.test", "/x%0a{\"status\":200}"), ("a.test", "/\u{1b}[2J"), ("a.test", "/é")]
    {
        let answer = edd.get(host, target).await;
        assert_eq!(answer.status, 400, "{host} {target}");
        let line = edd.access_line(answer.header("x-request-id")).await;
        assert_eq!(line.field("status"), "400");
        assert!(line.text.chars().all(|c| !c.is_control()), "{:?}", line.text);
    }
    assert!(edd.log().iter().all(|line| line.json.is_object()), "{:#?}", edd.log());
}

#[tokio::test]
async fn it_can_be_left_off() {
    let upstream = Upstream::start().await;
    let mut edd = Edd::gateway(upstream.routes()).env("EDD_ACCESS_LOG", "off").start().await;
    for target in ["/x", "/..", "/size/10"] {
        edd.get("a.test", target).await;
    }
    edd.signal(rustix::process::Signal::TERM);
    edd.wait_exit().await;
    edd.wait_log("the last line", |line| line.text.contains("stopped")).await;
    assert!(edd.log().iter().all(|line| line.field("target") != "access"), "{:#?}", edd.log());
}
