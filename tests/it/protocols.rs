//! HTTP/1.1, HTTP/2 and TLS on either side, told apart and put together.

use futures_util::future::join_all;

use crate::harness::tls::{Authority, Client};
use crate::harness::{Edd, H2Client, H2Upstream, Program, Upstream};

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for _ in 0..3 {
        let mut client = edd.connect().await;
        for size in [0, 1, 70_000] {
            client.send(format!("GET /size/{size} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
            let got = client.response().await;
            assert_eq!(got.body.len(), size);
            client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc").await;
            let posted = client.response().await;
            assert_eq!(posted.json()["body"], "abc");
            // Once it is logged, its connection is free: the client may be faster.
            for answer in [got, posted] {
                edd.access_line(answer.header("x-request-id")).await;
            }
        }
        assert!(!client.is_closed().await);
    }
    let seen = upstream.take();
    assert_eq!(seen.len(), 18);
    // All requests of each engine follow each other on one, whoever sends them.
    for (at, of_one) in seen.iter().enumerate() {
        assert_eq!(of_one.connection, seen[at % 2].connection, "{seen:#?}");
    }
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let root = edd.local_authority_file();
    let root = root.to_str().expect("a plain path");
    let url = format!("https://cloud.localhost:{}/x?y", edd.https.port());
    let write_out = "\n%{http_version} %{http_code} %{ssl_verify_result}";
    for (flag, version, proto) in [("--http2", "2", "HTTP/2"), ("--http1.1", "1.1", "HTTP/1.1")] {
        let output = edd.curl(&["--cacert", root, flag, "--write-out", write_out, &url]).run().await;
        let (body, told) = output.ok().trim_end().rsplit_once('\n').expect("a body, then what --write-out asks for");
        assert_eq!(told, format!("{version} 200 0"));
        let account: serde_json::Value = serde_json::from_str(body).expect("the upstream's account");
        assert_eq!(account["target"], "/x?y");
        assert_eq!(account["headers"]["host"], format!("cloud.localhost:{}", edd.https.port()));
        assert_eq!(account["headers"]["x-forwarded-proto"], "https");
        let id = account["headers"]["x-request-id"].as_str().expect("an id").to_owned();
        let line = edd.access_line(&id).await;
        let told = ["listener", "proto", "tls_version", "host", "path"].map(|name| line.field(name));
        assert_eq!(told, ["https", proto, "1.3", "cloud.localhost", "/x"]);
    }
}

#[tokio::test]
async fn http2_is_spoken_in_the_clear_with_prior_knowledge() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let url = format!("http://a.test:{}/x", edd.http.port());
    let version = ["--output", "/dev/null", "--write-out", "%{http_version} %{http_code}", &url];
    let output = edd.curl(&["--http2-prior-knowledge"]).args(&version).run().await;
    assert_eq!(output.ok().trim(), "2 200");
    let output = edd.curl(&["--http2-prior-knowledge", "--data", "abc"]).args(&version).run().await;
    assert_eq!(output.ok().trim(), "2 200");
    assert_eq!(upstream.take()[1].body, b"abc");
    // The upgrade of RFC 7540 is gone from RFC 9113, and a tunnel past every rule: it is ignored.
    let output = edd.curl(&["--http2"]).args(&version).run().await;
    assert_eq!(output.ok().trim(), "1.1 200");
    let seen = upstream.take();
    assert_eq!((seen[0].header("upgrade"), seen[0].header("http2-settings")), (String::new(), String::new()));
    // Another implementation, with ten requests on one connection.
    let url = format!("http://{}/size/10000", edd.http);
    let output = Program::new("h2load").args(&["--requests=10", "--max-concurrent-streams=5", &url]).run().await;
    assert!(output.ok().contains("10 succeeded, 0 failed, 0 errored, 0 timeout"), "{}", output.stdout);
}

#[tokio::test]
async fn streams_of_one_connection_wait_for_none_of_the_others() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let client = H2Client::over(edd.connect().await).await;
    let first = client.get("http://a.test/gate/first");
    let others = async {
        upstream.wait("the request at the gate", |seen| seen.target == "/gate/first" && seen.is_whole()).await;
        let urls: Vec<_> = (0..50).map(|number| format!("http://a.test/size/{}", number * 1000)).collect();
        let answers = join_all(urls.iter().map(|url| client.get(url))).await;
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!((answer.status, answer.body.len()), (200, number * 1000));
        }
        upstream.open("first");
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.text(), "open");
}

/// Every client protocol meets every upstream protocol.
#[tokio::test]
async fn upstreams_are_spoken_to_as_their_route_says() {
    let authority = Authority::new("upstreams");
    let identity = authority.sign(&["127.0.0.1"]);
    let clear = Upstream::start().await;
    let h2c = H2Upstream::start().await;
    let tls = Upstream::over_tls(identity.server(&["http/1.1"])).await;
    let tls_h2 = H2Upstream::over_tls(identity.server(&["h2", "http/1.1"])).await;
    let tls_old = Upstream::over_tls(identity.server(&[])).await;
    let edd = Edd::gateway(format!(
        "routes:
        - {{host: clear.test, target: '{}'}}
        - {{host: h2c.test, target: 'h2c://{}'}}
        - {{host: tls.test, target: '{}', protocol: https, tls: {{ca_file: ca.pem}}}}
        - {{host: tls-h2.test, target: 'https://{}', tls: {{ca_file: ca.pem}}}}
        - {{host: tls-old.test, target: 'https://{}', tls: {{ca_file: ca.pem}}}}",
        clear.address, h2c.address, tls.address, tls_h2.address, tls_old.address
    ))
    .file("ca.pem", &authority.pem())
    .start()
    .await;
    let h2 = H2Client::over(edd.connect().await).await;
    for host in ["clear.test", "h2c.test", "tls.test", "tls-h2.test", "tls-old.test"] {
        let mut client = edd.connect().await;
        for body in ["", "hello"] {
            let length = body.len();
            client.send(format!("PUT /x HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}")).await;
            let answer = client.response().await;
            assert_eq!(answer.status, 200, "{host}: {}", answer.text());
        }
        assert_eq!(h2.get(&format!("http://{host}/x")).await.status, 200, "{host}");
    }
    let bodies = |seen: Vec<crate::harness::Seen>| {
        seen.into_iter().map(|seen| String::from_utf8(seen.body).expect("text")).collect::<Vec<_>>()
    };
    for seen in [clear.take(), h2c.take(), tls.take(), tls_h2.take(), tls_old.take()] {
        assert!(seen.iter().all(|seen| seen.target == "/x"), "{seen:#?}");
        assert_eq!(bodies(seen), ["", "hello", ""]);
    }
}

#[tokio::test]
async fn upstreams_that_cannot_prove_who_they_are_get_nothing() {
    let authority = Authority::new("upstreams");
    let named = Upstream::over_tls(authority.sign(&["internal.test"]).server(&["http/1.1"])).await;
    let clear = Upstream::start().await;
    let to = |host: &str, tls: &str| format!("- {{host: {host}, target: 'https://{}', tls: {tls}}}\n", named.address);
    let routes = [
        to("named.test", "{ca_file: ca.pem, server_name: internal.test}"),
        to("unverified.test", "{verify: false}"),
        to("other-name.test", "{ca_file: ca.pem, server_name: other.test}"),
        to("no-name.test", "{ca_file: ca.pem}"),
        to("other-authority.test", "{ca_file: other.pem, server_name: internal.test}"),
        to("system.test", "{server_name: internal.test}"),
        format!("- {{host: no-tls.test, target: 'https://{}'}}\n", clear.address),
    ];
    let edd = Edd::gateway(format!("routes:\n{}", routes.concat()))
        .file("ca.pem", &authority.pem())
        .file("other.pem", &Authority::new("another").pem())
        .start()
        .await;
    for host in ["named.test", "unverified.test"] {
        assert_eq!(edd.get(host, "/x").await.status, 200, "{host}");
    }
    assert_eq!(named.take().len(), 2);
    for host in ["other-name.test", "no-name.test", "other-authority.test", "system.test", "no-tls.test"] {
        eprintln!("case: {host}");
        let mut client = edd.connect().await;
        client.send(format!("POST /x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc")).await;
        edd.refusal(&mut client, 502, "upstream_tls").await;
    }
    assert!(named.take().is_empty() && clear.take().is_empty());
}

#[tokio::test]
async fn answers_keep_their_meaning_over_http2() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let root = edd.local_authority();
    let (connection, agreed) =
        Client::trusting(&root).alpn(&["h2"]).connect(edd.https, "cloud.localhost").await.expect("a handshake");
    assert_eq!(agreed.alpn, "h2");
    let client = H2Client::over(connection).await;
    for status in [204, 304, 404, 503] {
        let answer = client.get(&format!("https://cloud.localhost/status/{status}")).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    let head = http::Request::head("https://cloud.localhost/size/1000").body(()).expect("a request");
    let answer = client.send(head).await.expect("an answer");
    assert_eq!((answer.header("content-length"), answer.body.len()), ("1000", 0));
    let cookies = http::Request::get("https://cloud.localhost/x").header("cookie", "a=1").header("cookie", "b=2");
    client.send(cookies.body(()).expect("a request")).await.expect("an answer");
    // RFC 9113 §8.2.3: in pieces over HTTP/2, in one before HTTP/1.1.
    assert_eq!(upstream.take().pop().expect("the last request").header("cookie"), "a=1; b=2");
}
