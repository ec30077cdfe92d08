//! `edd up`, as a newcomer meets it: it prints where to look, and what is there answers.

use std::net::TcpListener;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::browser::{self, Browser};
use crate::harness::tls::Client;
use crate::harness::{Connection, Edd, LogLine, Output, Program, Running, Workdir, within};

/// The routes that `edd up` brings along.
const EXAMPLE: &str = include_str!("../../routes.yaml");
/// The last thing that it prints when it is ready.
const READY: &str = "Ctrl-C stops it.";

/// `edd up` with an environment that holds nothing at all, on free ports.
fn bare(dir: &Path, arguments: &[&str]) -> Program {
    let listeners = ["--http-listen", "--https-listen", "--admin-listen"].map(|flag| format!("{flag}=127.0.0.1:0"));
    let program = Program::new("env").dir(dir).args(&["-i", env!("CARGO_BIN_EXE_edd"), "up"]);
    program.args(&listeners.each_ref().map(String::as_str)).args(arguments)
}

/// Everything that it says until it is ready.
async fn greeting(edd: &Running) -> String {
    edd.stdout.wait(READY, |lines| lines.last().filter(|line| *line == READY).map(|_| lines.join("\n"))).await
}

/// The URLs in a text, in order.
fn urls(text: &str) -> Vec<String> {
    text.split_whitespace().filter(|word| word.starts_with("http")).map(str::to_owned).collect()
}

async fn curl(root: &Path, arguments: &[&str]) -> Output {
    let trust = ["--cacert", root.to_str().expect("a plain path")];
    let program = Program::new("curl").args(&["--silent", "--show-error", "--max-time", "15"]);
    program.args(&trust).args(arguments).run().await
}

async fn interrupt(edd: Running) -> Output {
    let pid = Pid::from_raw(edd.pid().try_into().expect("a process id")).expect("no process is 0");
    kill_process(pid, Signal::INT).expect("it runs");
    edd.output().await
}

#[tokio::test]
async fn a_newcomer_needs_nothing_else() {
    let home = Workdir::new();
    let root = home.path().join("data/ca/root.pem");
    let edd = bare(home.path(), &[]).start();
    let text = greeting(&edd).await;
    let urls = urls(&text);
    let [http, https, admin, dashboard] = urls.as_slice() else { panic!("four addresses in {text}") };
    assert!(http.starts_with("http://demo.cloud.localhost:"), "{text}");
    assert!(https.starts_with("https://demo.cloud.localhost:"), "{text}");
    assert!(dashboard.starts_with("https://cloud.localhost:"), "{text}");
    assert!(admin.starts_with("http://127.0.0.1:") && admin.ends_with("/readyz?verbose"), "{text}");
    // No name is given to curl: whoever follows the text has none to give either.
    for (url, part) in [(http, "<html"), (https, "<html"), (admin, "[+] routes"), (dashboard, "<form")] {
        let output = curl(&root, &["--fail", "--location", url]).await;
        assert!(output.ok().contains(part), "{url}: {output:#?}");
    }
    let echo = curl(&root, &["--http2", &format!("{https}echo?q")]).await.json();
    assert_eq!((echo["path"].as_str(), echo["query"].as_str()), (Some("/echo"), Some("q")));
    assert_eq!(echo["headers"]["x-forwarded-proto"], "https");

    // What it wrote may be edited, and is read again next time.
    let routes = home.path().join("data/routes.yaml");
    assert!(text.contains("data/routes.yaml"), "{text}");
    assert_eq!(std::fs::read_to_string(&routes).expect("the example"), EXAMPLE);
    let authority = std::fs::read(&root).expect("the local authority");
    assert_eq!(interrupt(edd).await.code, Some(0));
    std::fs::write(&routes, "routes: [{host: demo.cloud.localhost, redirect: {to: 'http://elsewhere.test'}}]\n")
        .expect("a file");
    let edd = bare(home.path(), &[]).start();
    let https = self::urls(&greeting(&edd).await).remove(1);
    let moved = ["--output", "/dev/null", "--write-out", "%{ssl_verify_result} %{redirect_url}", &https];
    assert_eq!(curl(&root, &moved).await.ok(), "0 http://elsewhere.test/\n");
    assert!(std::fs::read(&root).expect("the local authority") == authority, "another authority");
    assert_eq!(interrupt(edd).await.code, Some(0));
}

/// A directory of routes of its own is left as it is.
#[tokio::test]
async fn routes_that_are_there_are_used() {
    let home = Workdir::new();
    home.write("routes.yaml", "routes: [{host: mine.localhost, target: 'edd-demo:80'}]\n");
    let edd = bare(home.path(), &["--json"]).start();
    let line = edd.stdout.wait("the listeners", |lines| lines.first().cloned()).await;
    let listeners: Value = serde_json::from_str(&line).expect("one line of JSON");
    let names: Vec<_> = listeners.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["admin", "http", "https", "ssh"]);
    let http = listeners["http"].as_str().expect("an address").parse().expect("an address");
    for (host, status) in [("mine.localhost", 200), ("other.localhost", 404)] {
        let mut client = Connection::open(http).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, status, "{host}");
    }
    assert!(!home.path().join("data/routes.yaml").exists());
    let output = interrupt(edd).await;
    assert_eq!((output.code, output.stdout.lines().count()), (Some(0), 1), "{output:#?}");
}

#[tokio::test]
async fn the_demo_answers_on_every_protocol() {
    let edd = Edd::up(EXAMPLE).start().await;
    let root = edd.local_authority_file();
    let root = root.to_str().expect("a plain path");
    let [http, https] = [edd.http.port(), edd.https.port()];
    for (url, flags, version) in [
        (format!("http://demo.cloud.localhost:{http}/echo"), &["--http1.1"][..], "1.1"),
        (format!("http://demo.cloud.localhost:{http}/echo"), &["--http2-prior-knowledge"], "2"),
        (format!("https://demo.cloud.localhost:{https}/echo"), &["--http1.1", "--tls-max", "1.2"], "1.1"),
        (format!("https://demo.cloud.localhost:{https}/echo"), &["--http2"], "2"),
        (format!("https://demo.cloud.localhost:{https}/api/echo"), &["--http2"], "2"),
        (format!("https://anything.cloud.localhost:{https}/echo"), &["--http2"], "2"),
    ] {
        let told = "\n%{http_version} %{http_code} %{ssl_verify_result}";
        let output = edd.curl(&["--cacert", root, "--write-out", told, &url]).args(flags).run().await;
        let (body, told) = output.ok().trim_end().rsplit_once('\n').expect("a body, then what --write-out asks for");
        assert_eq!(told, format!("{version} 200 0"), "{url}");
        let echo: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(echo["path"], "/echo", "{url}");
    }
    let moved = edd.get("www.cloud.localhost", "/").await;
    assert_eq!((moved.status, moved.header("location")), (302, "http://demo.cloud.localhost:8080/"));
    assert_eq!(edd.get("elsewhere.test", "/").await.status, 404);
    edd.websocket("demo.cloud.localhost").await.echo("hello").await;
    let mut events = edd.connect().await;
    events.send("GET /sse HTTP/1.1\r\nHost: demo.cloud.localhost\r\n\r\n").await;
    assert_eq!(events.head().await.expect("a head").headers["content-type"], "text/event-stream");
    assert_eq!(events.chunk().await.expect("an event"), b"event: tick\ndata: 0\n\n");
}

#[tokio::test]
async fn the_authority_is_made_once() {
    let mut edd = Edd::up(EXAMPLE).start().await;
    let authority = edd.local_authority();
    let client = Client::trusting(&authority).alpn(&["h2"]);
    client.connect(edd.https, "cloud.localhost").await.expect("a handshake");
    edd.signal(Signal::TERM);
    assert_eq!(edd.wait_exit().await.code(), Some(0));
    let again = edd.again().start().await;
    assert!(again.local_authority() == authority, "another authority");
    client.connect(again.https, "anything.cloud.localhost").await.expect("a handshake");
    // Who serves the directory of another has an authority of another.
    let other = Edd::up(EXAMPLE).start().await;
    assert!(client.connect(other.https, "cloud.localhost").await.is_err());
}

/// Nothing that a newcomer starts is open to the network. Each port that is taken shows which address
/// was wanted for it.
#[tokio::test]
async fn it_keeps_to_this_machine_unless_told_otherwise() {
    // Whoever else has them already serves as well.
    let _held = [8080, 8443].map(|port| TcpListener::bind(("127.0.0.1", port)));
    for (variable, port) in [("EDD_HTTP_LISTEN", 8080), ("EDD_HTTPS_LISTEN", 8443)] {
        let up = || Edd::up(EXAMPLE).without_env(variable);
        let gateway = Edd::gateway("routes: [{redirect: {to: 'http://x.test'}}]").without_env(variable);
        for (builder, address) in [(up(), "127.0.0.1"), (up().args(&["--public"]), "0.0.0.0"), (gateway, "0.0.0.0")] {
            let output = builder.run().await;
            assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{output:#?}");
            assert!(output.stderr.contains(&format!("cannot listen on {address}:{port}")), "{output:#?}");
            assert!(output.stderr.contains("hint: something else listens there"), "{output:#?}");
        }
    }
}

#[tokio::test]
async fn a_directory_that_takes_nothing_is_named() {
    let home = Workdir::new();
    home.write("file", "in the way");
    std::fs::create_dir(home.path().join("taken")).expect("a directory");
    std::fs::write(home.path().join("taken/ca"), "in the way").expect("a file");
    for (data_dir, told) in [("file/data", "file/data"), ("/proc/edd", "/proc/edd"), ("taken", "taken/ca")] {
        for with_routes in [false, true] {
            eprintln!("case: {data_dir}, routes: {with_routes}");
            match with_routes {
                true => drop(home.write("routes.yaml", EXAMPLE)),
                false => drop(std::fs::remove_file(home.path().join("routes.yaml"))),
            }
            let output = bare(home.path(), &["--data-dir", data_dir]).run().await;
            assert_eq!((output.code, output.stdout.as_str()), (Some(78), ""), "{output:#?}");
            let told = output.stderr.lines().any(|line| line.starts_with("error: ") && line.contains(told));
            assert!(told, "{output:#?}");
        }
    }
}

/// The page and everything that its script does. Part of a full run, which has a browser.
#[tokio::test]
async fn a_browser_shows_the_page() {
    if !browser::wanted() {
        return;
    }
    let edd = Edd::up(EXAMPLE).start().await;
    for (scheme, port, proto) in [("http", edd.http.port(), "HTTP/1.1"), ("https", edd.https.port(), "HTTP/2")] {
        let mut browser = Browser::open(&format!("{scheme}://demo.cloud.localhost:{port}/")).await;
        for shown in ["echoed: hello", "tick ", "x-request-id"] {
            within(shown, async { while !browser.text().await.contains(shown) {} }).await;
        }
        let page = |line: &LogLine| line.field("path") == "/" && line.field("listener") == scheme;
        assert_eq!(edd.wait_log("the page", page).await.field("proto"), proto);
    }
}
