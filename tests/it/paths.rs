//! Which route takes a host and path, and the path that its upstream sees.

use crate::harness::{Cases, Edd, Upstream};

/// What becomes of a request target.
enum Want {
    /// The upstream of this name sees this target.
    Sent(&'static str, &'static str),
    /// edd answers itself.
    Refused(u16, &'static str),
}
use Want::{Refused, Sent};

async fn check(cases: &mut Cases, edd: &Edd, host: &str, target: &str, want: Want) {
    let case = async {
        let mut client = edd.connect().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        match want {
            Sent(upstream, seen) => {
                let response = client.response().await;
                assert_eq!(response.status, 200, "{}", response.text());
                assert_eq!((response.header("x-upstream"), response.json()["target"].as_str()), (upstream, Some(seen)));
            }
            Refused(status, reason) => {
                edd.refusal(&mut client, status, reason).await;
            }
        }
    };
    cases.case(&format!("{host} {target}"), case).await;
}

#[tokio::test]
async fn prefixes_end_on_segments_and_no_spelling_slips_past_them() {
    let [root, compute, api, admin] = [
        Upstream::named("root").await,
        Upstream::named("compute").await,
        Upstream::named("api").await,
        Upstream::named("admin").await,
    ];
    let edd = Edd::gateway(format!(
        "routes:
  - {{host: a.test, path: /, target: '{}'}}
  - {{host: a.test, path: /compute, target: '{}'}}
  - {{host: a.test, path: /api, target: '{}', strip_prefix: true}}
  - {{host: a.test, path: /api/admin, target: '{}', strip_prefix: true}}
",
        root.address, compute.address, api.address, admin.address
    ))
    .start()
    .await;
    let mut cases = Cases::default();
    for (target, want) in [
        ("/", Sent("root", "/")),
        ("/compute", Sent("compute", "/compute")),
        ("/compute/", Sent("compute", "/compute/")),
        ("/compute/x?y=1&z", Sent("compute", "/compute/x?y=1&z")),
        ("/compute?x", Sent("compute", "/compute?x")),
        ("/computex", Sent("root", "/computex")),
        ("/comput", Sent("root", "/comput")),
        ("/compute-x/y", Sent("root", "/compute-x/y")),
        ("/Compute", Sent("root", "/Compute")),
        ("/compute;v=1", Sent("root", "/compute;v=1")),
        ("//compute", Sent("root", "//compute")),
        // The prefix goes, its query stays, and what is left is a path.
        ("/api", Sent("api", "/")),
        ("/api/", Sent("api", "/")),
        ("/api?x", Sent("api", "/?x")),
        ("/api/x/y?z=/../", Sent("api", "/x/y?z=/../")),
        ("/apix", Sent("root", "/apix")),
        ("/api//evil.test/x", Sent("api", "/evil.test/x")),
        ("/api/admin", Sent("admin", "/")),
        ("/api/admin/x", Sent("admin", "/x")),
        ("/api/administrator", Sent("api", "/administrator")),
        // One path has one spelling: decoded where that changes nothing, dot segments resolved.
        ("/%63ompute/x", Sent("compute", "/compute/x")),
        ("/%63%4fmpute", Sent("root", "/cOmpute")),
        ("/api/%61dmin/x", Sent("admin", "/x")),
        ("/api/%61%64%6D%69%6e/x", Sent("admin", "/x")),
        ("/api/x/../admin/y", Sent("admin", "/y")),
        ("/api/./admin/y", Sent("admin", "/y")),
        ("/api/x/%2e%2e/admin/y", Sent("admin", "/y")),
        ("/api/x/.%2E/admin/y", Sent("admin", "/y")),
        ("/compute/../x", Sent("root", "/x")),
        ("/api/../x", Sent("root", "/x")),
        ("/api/x/..", Sent("api", "/")),
        ("/api/...", Sent("api", "/...")),
        ("/api/.well-known/x", Sent("api", "/.well-known/x")),
        ("/x/..y", Sent("root", "/x/..y")),
        ("/caf%c3%a9/%7e", Sent("root", "/caf%C3%A9/~")),
        ("/a%2fb", Sent("root", "/a%2Fb")),
        ("/compute%2Fx", Sent("root", "/compute%2Fx")),
        ("/api%2Fadmin", Sent("root", "/api%2Fadmin")),
        ("/api/x%2Fadmin", Sent("api", "/x%2Fadmin")),
        ("/%253Bx", Sent("root", "/%253Bx")),
        ("/api/%252e%252e/x", Sent("api", "/%252e%252e/x")),
        ("/x?../..%2f%00", Sent("root", "/x?../..%2f%00")),
        ("/@scope/name:1,2;3=4+5!$&'()*", Sent("root", "/@scope/name:1,2;3=4+5!$&'()*")),
        // What upstreams would resolve differently goes nowhere.
        ("/..", Refused(400, "bad_path")),
        ("/../x", Refused(400, "bad_path")),
        ("/%2e%2e/x", Refused(400, "bad_path")),
        ("/api/../../x", Refused(400, "bad_path")),
        ("/api/..%2fadmin", Refused(400, "bad_path")),
        ("/api/..%5Cadmin", Refused(400, "bad_path")),
        ("/api/%2e%2e%2fadmin", Refused(400, "bad_path")),
        ("/x%2f..%2fapi", Refused(400, "bad_path")),
        ("/api/..;/admin", Refused(400, "bad_path")),
        ("/api/..;x=1/admin", Refused(400, "bad_path")),
        ("/api/.;/admin", Refused(400, "bad_path")),
        ("/api\\..\\admin", Refused(400, "bad_path")),
        ("/a%00b", Refused(400, "bad_path")),
        ("/a%0d%0aX:y", Refused(400, "bad_path")),
        ("/a%7f", Refused(400, "bad_path")),
        ("/%", Refused(400, "bad_path")),
        ("/%4", Refused(400, "bad_path")),
        ("/%zz", Refused(400, "bad_path")),
        ("/a%u0041", Refused(400, "bad_path")),
        ("/a\"b", Refused(400, "bad_path")),
        ("/a<b", Refused(400, "bad_path")),
    ] {
        check(&mut cases, &edd, "a.test", target, want).await;
    }
    cases.finish();
}

/// Caddy's CVE-2026-27588 came with the hundredth host, so the table is tried small and large.
#[tokio::test]
async fn hosts_match_in_any_case_with_any_port() {
    let [exact, wild, deep, any] = [
        Upstream::named("exact").await,
        Upstream::named("wild").await,
        Upstream::named("deep").await,
        Upstream::named("any").await,
    ];
    let mut cases = Cases::default();
    for others in [0, 150] {
        let mut routes = format!(
            "routes:
  - {{host: App.Example.test, path: /, target: '{}'}}
  - {{host: '*.example.test', path: /, target: '{}'}}
  - {{host: '*.deep.example.test', path: /, target: '{}'}}
  - {{host: '*', path: /any, target: '{}'}}
",
            exact.address, wild.address, deep.address, any.address
        );
        for number in 0..others {
            routes += &format!("  - {{host: h{number}.other.test, path: /, target: '{}'}}\n", any.address);
        }
        let edd = Edd::gateway(routes).start().await;
        for (host, want) in [
            ("app.example.test", Sent("exact", "/any")),
            ("APP.EXAMPLE.TEST", Sent("exact", "/any")),
            ("aPp.eXample.teSt:8443", Sent("exact", "/any")),
            ("app.example.test.", Sent("exact", "/any")),
            ("app.example.test.:80", Sent("exact", "/any")),
            ("x.example.test", Sent("wild", "/any")),
            ("X.Example.Test.", Sent("wild", "/any")),
            ("x.app.example.test", Sent("wild", "/any")),
            ("x.deep.example.test", Sent("deep", "/any")),
            ("y.x.deep.example.test", Sent("deep", "/any")),
            ("deep.example.test", Sent("wild", "/any")),
            ("example.test", Sent("any", "/any")),
            ("xexample.test", Sent("any", "/any")),
            ("app.example.test.evil.test", Sent("any", "/any")),
            ("127.0.0.1", Sent("any", "/any")),
            ("[::1]:80", Sent("any", "/any")),
        ] {
            check(&mut cases, &edd, host, "/any", want).await;
        }
        if others > 0 {
            check(&mut cases, &edd, "H149.Other.Test", "/any", Sent("any", "/any")).await;
        }
        check(&mut cases, &edd, "nobody.test", "/", Refused(404, "no_route")).await;
    }
    cases.finish();
}

/// The host of an absolute target is matched as the Host header is.
#[tokio::test]
async fn absolute_targets_are_routed_by_their_host_and_path() {
    let [root, api] = [Upstream::named("root").await, Upstream::named("api").await];
    let edd = Edd::gateway(format!(
        "routes: [{{host: a.test, target: '{}'}}, {{host: a.test, path: /api, target: '{}', strip_prefix: true}}]",
        root.address, api.address
    ))
    .start()
    .await;
    let mut cases = Cases::default();
    for (target, want) in [
        ("http://a.test/api/x?y", Sent("api", "/x?y")),
        ("http://A.TEST:80/x", Sent("root", "/x")),
        ("http://a.test/y/../api/x", Sent("api", "/x")),
        ("http://a.test", Sent("root", "/")),
        ("http://a.test?y", Sent("root", "/?y")),
        ("http://a.test/..", Refused(400, "bad_path")),
    ] {
        check(&mut cases, &edd, "a.test", target, want).await;
    }
    cases.finish();
    assert_eq!(root.seen()[0].header("host"), "a.test");
}

/// The root is stripped to itself, and a stripped prefix may hold what is encoded.
#[tokio::test]
async fn prefixes_of_every_shape_are_stripped() {
    let upstream = Upstream::named("up").await;
    let route = |path: &str| {
        format!("  - {{host: a.test, path: '{path}', target: '{}', strip_prefix: true}}\n", upstream.address)
    };
    let routes: String = ["/slash/", "/a%2Fb", "/{x}", "/deep/er"].into_iter().map(route).collect();
    let edd = Edd::gateway(format!("routes:\n{routes}")).start().await;
    let mut cases = Cases::default();
    for (target, want) in [
        ("/slash", Sent("up", "/")),
        ("/slash/x", Sent("up", "/x")),
        ("/slashx", Refused(404, "no_route")),
        ("/a%2Fb/c", Sent("up", "/c")),
        ("/a%2fb/c", Sent("up", "/c")),
        ("/a/b/c", Refused(404, "no_route")),
        ("/{x}/y", Sent("up", "/y")),
        ("/anything/y", Refused(404, "no_route")),
        ("/deep/er/x", Sent("up", "/x")),
        ("/deep", Refused(404, "no_route")),
    ] {
        check(&mut cases, &edd, "a.test", target, want).await;
    }
    cases.finish();
}

#[tokio::test]
async fn plain_requests_are_sent_to_https_where_a_route_asks_for_it() {
    let upstream = Upstream::start().await;
    let routes = format!("routes: [{{host: '*', path: /safe, target: '{}', redirect: https}}]", upstream.address);
    let edd = Edd::gateway(routes).start().await;
    // A client that names a port reached the listener itself; one that names none came through 80.
    let with_port = format!("https://a.test:{}/safe", edd.https.port());
    let mut cases = Cases::default();
    for (host, target, location) in [
        ("a.test", "/safe/x?y=1", "https://a.test/safe/x?y=1"),
        ("A.Test:8080", "/safe", &with_port),
        ("a.test", "/safe/../safe/x", "https://a.test/safe/x"),
    ] {
        let case = async {
            let response = edd.get(host, target).await;
            assert_eq!((response.status, response.header("location")), (301, location));
            assert_eq!(edd.access_line(response.header("x-request-id")).await.field("status"), "301");
        };
        cases.case(&format!("{host} {target}"), case).await;
    }
    cases.finish();
    assert!(upstream.take().is_empty());
}
