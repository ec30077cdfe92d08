//! The command line: what each verb prints, where, and with what code it ends.

use serde_json::{Value, json};

use crate::harness::{Cases, Edd, Output, Program, RawUpstream, Upstream, Workdir};

/// Runs `edd` in `dir`.
async fn edd(dir: &Workdir, arguments: &[&str]) -> Output {
    Program::edd(arguments).dir(dir.path()).run().await
}

/// Three mistakes.
const BROKEN: &str = "routes:
  - host: a.test
    traget: up:80
  - host: 'a b'
    target: up
";

/// One route that can never match, since paths are compared by segments.
const SHADOWED: &str = "routes:
  - {host: a.test, path: /api, target: 'up:80'}
  - {host: A.Test, path: /api/, target: 'other:80'}
";

#[tokio::test]
async fn check_tells_every_mistake_with_its_place() {
    let dir = Workdir::new();
    dir.write("broken.yaml", BROKEN);
    let output = edd(&dir, &["routes", "check", "broken.yaml"]).await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(78), ""));
    assert_eq!(
        output.stderr,
        "\
error: unknown key `traget`
  --> broken.yaml:3:5
   |
 3 |     traget: up:80
   |     ^^^^^^
   = hint: did you mean `target`?
error: `a b` is not a host name: only letters, digits, `-` and `_` may stand in a label (write an international name in its xn-- form)
  --> broken.yaml:4:11
   |
 4 |   - host: 'a b'
   |           ^^^^^
   = hint: write a name such as `app.example.com`, or \"*.example.com\" for every name below it
error: the target `up` has no port
  --> broken.yaml:5:13
   |
 5 |     target: up
   |             ^^
   = hint: write `up:80`
broken.yaml: 3 errors; a running gateway would keep its last good routes
"
    );
    let report = edd(&dir, &["routes", "check", "broken.yaml", "--json"]).await;
    assert_eq!((report.code, report.json()["valid"].as_bool()), (Some(78), Some(false)));
    let places = |report: &Value| -> Vec<_> {
        report["errors"].as_array().expect("a list").iter().map(|e| (e["line"].clone(), e["column"].clone())).collect()
    };
    assert_eq!(places(&report.json()), [(json!(3), json!(5)), (json!(4), json!(11)), (json!(5), json!(13))]);
    // A running gateway refuses the same file in the same words.
    let refused = Edd::gateway(BROKEN).run().await;
    assert_eq!(refused.code, Some(78));
    assert!(refused.stderr.contains(":3:5") && refused.stderr.contains("did you mean `target`?"), "{refused:#?}");
}

#[tokio::test]
async fn check_warns_of_what_can_never_match() {
    let dir = Workdir::new();
    dir.write("routes.yaml", SHADOWED);
    // The file of the directory, one that is named, and stdin.
    for (arguments, file) in [
        (&["routes", "check"][..], "routes.yaml"),
        (&["routes", "check", "./routes.yaml"], "./routes.yaml"),
        (&["routes", "check", "-"], "/dev/stdin"),
    ] {
        let output = Program::edd(arguments).dir(dir.path()).stdin(SHADOWED).run().await;
        assert_eq!(output.ok(), format!("{file}: ok, 2 routes, 1 warnings\n"));
        assert_eq!(
            output.stderr,
            format!(
                "\
warning: this route can never match: `a.test/api` is taken
  --> {file}:3:6
   |
 3 |   - {{host: A.Test, path: /api/, target: 'other:80'}}
   |      ^^^^
   = hint: the route on line 2 takes its requests; remove one of them
"
            )
        );
    }
    let report = edd(&dir, &["routes", "check", "--json"]).await;
    report.ok();
    assert_eq!(report.json()["warnings"][0]["line"], 3);
}

#[tokio::test]
async fn check_looks_at_the_files_that_routes_name() {
    let dir = Workdir::new();
    dir.write("routes.yaml", "routes: [{host: a.test, target: 'up:80', client_cert: {ca_file: missing.pem}}]");
    let output = edd(&dir, &["routes", "check"]).await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(78), ""));
    assert!(output.stderr.contains("missing.pem") && output.stderr.contains("routes.yaml: 1 errors"), "{output:#?}");
    assert_eq!(edd(&dir, &["routes", "check", "--json"]).await.json()["valid"], false);
    let nowhere = edd(&dir, &["routes", "check", "nowhere.yaml"]).await;
    assert_eq!(nowhere.code, Some(78));
    assert!(nowhere.stderr.contains("cannot read the routes from nowhere.yaml: No such file"), "{nowhere:#?}");
}

const ROUTES: &str = "routes:
  - {host: a.test, target: 'root:80'}
  - {host: a.test, path: /api, target: 'api:80', strip_prefix: true, name: api}
  - {host: a.test, path: /other, target: 'api:80'}
  - {host: '*.test', target: 'wild:80'}
  - {host: b.example, redirect: {to: 'https://a.test'}}
";

#[tokio::test]
async fn explain_names_the_winner_and_why_the_others_lost() {
    let dir = Workdir::new();
    dir.write("routes.yaml", ROUTES);
    let url = "https://A.Test:8443/x/../api/y?z=1";
    let want = "\
a.test/api/y
  taken by  api  (a.test /api)
  goes to   api:80
  seen as   /y
  not       a.test/  (a.test /): a longer prefix matches
  not       *.test/  (*.test /): a more specific host was chosen
  not       a.test/other  (a.test /other): its prefix does not contain the path
  and 1 routes for other hosts
";
    assert_eq!(edd(&dir, &["routes", "explain", url, "--routes", "routes.yaml"]).await.ok(), want);
    // A running gateway says the same of what it serves.
    let running = Edd::gateway(ROUTES).start().await;
    assert_eq!(running.verb(&["routes", "explain", url]).run().await.ok(), want);
    let told = running.verb(&["routes", "explain", url, "--json"]).run().await;
    told.ok();
    assert_eq!(told.json()["winner"]["upstream_path"], "/y");
    assert_eq!(told.json(), edd(&dir, &["routes", "explain", url, "--routes", "routes.yaml", "--json"]).await.json());
    let nobody = running.verb(&["routes", "explain", "http://c.example/"]).run().await;
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stdout.contains("no route takes it: the answer is 404 (no_route)"), "{nobody:#?}");
    for (url, told) in [("http://a.test/..", "`/..`"), ("http:///x", "`` is no host"), ("a b", "`a b` is no host")] {
        for output in [
            running.verb(&["routes", "explain", url]).run().await,
            edd(&dir, &["routes", "explain", url, "--routes", "routes.yaml"]).await,
        ] {
            assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{url}");
            assert!(output.stderr.contains(told), "{output:#?}");
        }
    }
}

#[tokio::test]
async fn list_and_diff_show_routes_and_what_changes() {
    let dir = Workdir::new();
    dir.write("old.yaml", ROUTES);
    dir.write("new.yaml", &ROUTES.replace("root:80", "root:81").replace("*.test", "*.more.test"));
    dir.write("broken.yaml", BROKEN);
    let list = edd(&dir, &["routes", "list", "--routes", "old.yaml"]).await;
    let lines: Vec<_> = list.ok().lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["HOST", "PATH", "GOES", "TO", "ROUTE"]);
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["a.test", "/api", "api:80", "api"]);
    let running = Edd::gateway(ROUTES).start().await;
    let listed = running.verb(&["routes", "list"]).run().await;
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(listed.ok()), sorted(list.ok()));
    let served = running.verb(&["routes", "list", "--json"]).run().await;
    assert_eq!(served.json()["routes"].as_array().map(Vec::len), Some(5));

    let diff = edd(&dir, &["routes", "diff", "old.yaml", "new.yaml"]).await;
    assert_eq!(diff.code, Some(1));
    assert_eq!(diff.stdout, "~ a.test/\n    target: root:80 → root:81\n+ *.more.test/  wild:80\n- *.test/  wild:80\n");
    let changes = edd(&dir, &["routes", "diff", "old.yaml", "new.yaml", "--json"]).await.json();
    assert_eq!(changes["changes"][0]["fields"][0], json!({"field": "target", "old": "root:80", "new": "root:81"}));
    let same = edd(&dir, &["routes", "diff", "old.yaml", "old.yaml"]).await;
    assert_eq!((same.ok(), same.stderr.as_str()), ("", ""));
    assert_eq!(edd(&dir, &["routes", "diff", "old.yaml", "broken.yaml"]).await.code, Some(78));
    let schema: Value = serde_json::from_str(edd(&dir, &["routes", "schema"]).await.ok()).expect("a JSON Schema");
    assert_eq!(schema["title"], "routes.yaml");
}

#[tokio::test]
async fn a_health_check_ends_as_the_gateway_is() {
    let running = Edd::gateway("routes: []").start().await;
    let well = running.verb(&["healthcheck"]).run().await;
    assert!(
        well.ok().ends_with("\nready\n") && well.stdout.starts_with("ok        listeners: accepting\n"),
        "{well:#?}"
    );
    assert_eq!(running.verb(&["healthcheck", "--json"]).run().await.json()["ready"], true);
    // A gateway that answers 503, as it does when it drains.
    let draining = RawUpstream::answering(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 58\r\n\r\n\
         {\"ready\":false,\"checks\":[{\"name\":\"x\",\"state\":\"failed\"}]}  ",
    )
    .await;
    let unwell = Program::edd(&["healthcheck", "--admin", &draining.address.to_string()]).run().await;
    assert_eq!((unwell.code, unwell.stdout.as_str()), (Some(1), "failed    x: \nnot ready\n"));
    // One that hangs keeps no probe waiting.
    let hanging = RawUpstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").await;
    let hung = Program::edd(&["healthcheck", "--admin", &hanging.address.to_string()]).run().await;
    assert_eq!((hung.code, hung.stdout.as_str()), (Some(69), ""), "{hung:#?}");
    let (_held, nobody) = RawUpstream::refusing();
    for verb in [&["healthcheck"][..], &["routes", "list"], &["routes", "explain", "a.test"], &["tap"]] {
        let output = Program::edd(verb).args(&["--admin", &nobody.to_string()]).run().await;
        assert_eq!((output.code, output.stdout.as_str()), (Some(69), ""), "{verb:?}");
        assert!(output.stderr.contains(&format!("no gateway answers at {nobody}")), "{output:#?}");
        assert!(output.stderr.contains("hint: start one with `edd up`"), "{output:#?}");
    }
}

#[tokio::test]
async fn tap_prints_what_it_was_asked_for_as_it_happens() {
    let upstream = Upstream::start().await;
    let mut running = Edd::gateway(upstream.routes()).start().await;
    let tap = running.verb(&["tap", "--status", "5xx", "--host", "a.test"]).start();
    // It says so once it follows.
    tap.stderr.wait("tap to follow", |lines| lines.first().cloned()).await;
    for (host, status) in [("a.test", 200), ("b.test", 503), ("a.test", 404), ("a.test", 503)] {
        assert_eq!(running.get(host, &format!("/status/{status}")).await.status, status);
    }
    let line = tap.stdout.wait("a line", |lines| lines.first().cloned()).await;
    let words: Vec<_> = line.split_whitespace().collect();
    let target = upstream.address.to_string();
    assert_eq!((words[1], &words[3..]), ("503", &["GET", "a.test/status/503", "->", &*target, "[*/]"][..]), "{line}");
    running.signal(rustix::process::Signal::TERM);
    let output = tap.output().await;
    assert_eq!((output.code, output.stdout.lines().count()), (Some(69), 1), "{output:#?}");
    assert!(output.stderr.contains("the gateway went away"), "{output:#?}");
}

#[tokio::test]
async fn a_wrong_filter_is_refused_with_the_right_one() {
    let running = Edd::gateway("routes: []").start().await;
    let mut cases = Cases::default();
    for (flag, value, told) in [("--status", "9xx", "write it as 404 or 5xx"), ("--host", "a b", "`a b` is no host")] {
        let case = async {
            let output = running.verb(&["tap", flag, value]).run().await;
            assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""));
            assert!(output.stderr.contains(told), "{output:#?}");
        };
        cases.case(value, case).await;
    }
    cases.finish();
}
