//! Where settings come from, and what is said of wrong ones; completions and the manual, made from the same list.

use std::net::TcpListener;

use crate::harness::{Cases, Edd, Program, Workdir};

/// Flag before environment before file before default.
#[tokio::test]
async fn the_nearest_setting_counts() {
    let settings = |flag: Option<&str>, variable: Option<&str>, file: Option<&str>| {
        let mut edd = Edd::gateway("routes: []").without_env("EDD_BASE_DOMAIN");
        if let Some(value) = flag {
            edd = edd.args(&["--base-domain", value]);
        }
        if let Some(value) = variable {
            edd = edd.env("EDD_BASE_DOMAIN", value);
        }
        match file {
            Some(value) => edd.file("edd.env", &format!("# settings\nEDD_BASE_DOMAIN = '{value}'\n")),
            None => edd,
        }
    };
    for (flag, variable, file, want) in [
        (Some("flag.test"), Some("variable.test"), Some("file.test"), "flag.test"),
        (None, Some("variable.test"), Some("file.test"), "variable.test"),
        (None, None, Some("file.test"), "file.test"),
        (None, None, None, "localhost"),
    ] {
        let edd = settings(flag, variable, file).start().await;
        let certificates = edd.admin("/certs").await.json();
        let names = certificates["certificates"][0]["names"].as_array().expect("the names of the local authority");
        assert_eq!(names.last().and_then(|name| name.as_str()), Some(want), "{names:?}");
    }
    // Another file than the one in the directory, named either way.
    for named in [
        Edd::gateway("routes: []").args(&["--config", "mine.env"]),
        Edd::gateway("routes: []").env("EDD_CONFIG", "mine.env"),
    ] {
        let edd = named.file("mine.env", "EDD_BASE_DOMAIN=mine.test").file("edd.env", "nonsense").start().await;
        assert!(edd.admin("/certs").await.text().contains("mine.test"));
    }
}

#[tokio::test]
async fn mistakes_in_the_file_are_shown_in_their_line() {
    let mut cases = Cases::default();
    for (text, told) in [
        (
            "# settings\nEDD_HTTP_LISTEN = nonsense\n",
            "\
error: edd.env is not valid
error: `nonsense` is no value for EDD_HTTP_LISTEN: invalid socket address syntax
  --> edd.env:2:19
   |
 2 | EDD_HTTP_LISTEN = nonsense
   |                   ^^^^^^^^
   = hint: `edd gateway --help` tells what each setting takes
",
        ),
        (
            "EDD_ACCESS_LOG=stdout",
            "\
error: edd.env is not valid
error: `stdout` is no value for EDD_ACCESS_LOG
  --> edd.env:1:16
   |
 1 | EDD_ACCESS_LOG=stdout
   |                ^^^^^^
   = hint: write one of `stderr`, `off`
",
        ),
        (
            "\n  EDD_HTP_LISTEN=127.0.0.1:0",
            "\
error: edd.env is not valid
error: unknown setting `EDD_HTP_LISTEN`
  --> edd.env:2:3
   |
 2 |   EDD_HTP_LISTEN=127.0.0.1:0
   |   ^^^^^^^^^^^^^^
   = hint: did you mean `EDD_HTTP_LISTEN`?
",
        ),
        (
            "export",
            "\
error: edd.env is not valid
error: `export` is no setting
  --> edd.env:1:1
   |
 1 | export
   | ^^^^^^
   = hint: write it as `NAME=value`
",
        ),
    ] {
        let case = async {
            let output = Edd::gateway("routes: []").file("edd.env", text).run().await;
            assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(78), "", told));
        };
        cases.case(text, case).await;
    }
    cases.finish();
    let missing = Edd::gateway("routes: []").args(&["--config", "nowhere.env"]).run().await;
    assert_eq!(missing.code, Some(78));
    assert!(missing.stderr.contains("cannot read nowhere.env"), "{missing:#?}");
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_usage() {
    let dir = Workdir::new();
    let mut cases = Cases::default();
    for (arguments, told) in [
        (&["gateway", "--http-listn", "x"][..], "'--http-listen'"),
        (&["gateway", "--http-listen", "80"], "invalid socket address"),
        (&["gateway", "--max-header-bytes", "1"], "1 is not in 1024..=524288"),
        (&["gateway", "--drain-seconds", "1h"], "a number of seconds from 0 to 3600"),
        (&["gateway", "--trusted-proxies", "10.0.0.0/40"], "`10.0.0.0/40` is no network"),
        (&["gateway", "--log", "nonsense=x=y"], "'--log <FILTER>'"),
        (&["gateways"], "a similar subcommand exists: 'gateway'"),
        (&["routes"], "Usage: edd routes"),
        (&["completions", "tcsh"], "[possible values: bash"),
        (&[], "Usage: edd"),
    ] {
        let case = async {
            let output = Program::edd(arguments).dir(dir.path()).run().await;
            assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""));
            assert!(output.stderr.contains(told), "{output:#?}");
        };
        cases.case(&arguments.join(" "), case).await;
    }
    cases.finish();
    let version = Program::edd(&["--version"]).run().await;
    assert_eq!(version.ok(), format!("edd {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_ways_out() {
    for (listener, name) in [("EDD_HTTP_LISTEN", "http"), ("EDD_HTTPS_LISTEN", "https"), ("EDD_ADMIN_LISTEN", "admin")]
    {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = taken.local_addr().expect("a bound socket has an address").to_string();
        let output = Edd::gateway("routes: []").env(listener, &address).run().await;
        assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""));
        assert!(
            output.stderr.contains(&format!("cannot listen on {address} ({name}): Address already in use")),
            "{output:#?}"
        );
        for way in ["stop it", "choose another address", "--takeover"] {
            assert!(output.stderr.contains(way), "{output:#?}");
        }
    }
}

#[tokio::test]
async fn the_log_is_as_loud_as_it_is_told_to_be() {
    let log = async |edd: crate::harness::Edd| {
        edd.get("a.test", "/x").await;
        edd.wait_log("an access line", |line| line.field("target") == "access").await;
        edd.log().iter().any(|line| line.text.contains("routes published"))
    };
    let quiet = "RUST_LOG=error";
    assert!(log(Edd::gateway("routes: []").start().await).await);
    assert!(!log(Edd::gateway("routes: []").env("RUST_LOG", "error").start().await).await);
    assert!(!log(Edd::gateway("routes: []").file("edd.env", quiet).start().await).await);
    assert!(log(Edd::gateway("routes: []").file("edd.env", quiet).args(&["--log", "info"]).start().await).await);
}

#[tokio::test]
async fn certificates_are_shown_from_their_files() {
    let authority = crate::harness::tls::Authority::new("files");
    let site = authority.sign(&["a.test", "*.a.test"]);
    let edd = Edd::gateway("routes: []")
        .file("certs/site.crt", &site.certificate)
        .file("certs/site.key", &site.key)
        .file("certs/alone.crt", &site.certificate)
        .start()
        .await;
    let list = edd.verb(&["certs", "list"]).run().await;
    let row = |name: &str| list.ok().lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(row("certs/site.crt").starts_with("a.test, *.a.test  ok "), "{}", list.stdout);
    assert!(row("certs/alone.crt").contains("error") && list.stderr.contains("there is no key beside it"), "{list:#?}");
    assert!(row("root.pem").starts_with("localhost"), "{}", list.stdout);
    for (name, code) in [("a.test", 0), ("X.a.test", 0), ("y.x.a.test", 1), ("b.test", 1), ("a b", 1)] {
        let show = edd.verb(&["certs", "show", name]).run().await;
        assert_eq!(show.code, Some(code), "{show:#?}");
        assert_eq!(show.stdout.contains("issuer      CN=files"), code == 0, "{show:#?}");
    }
    let json = edd.verb(&["certs", "show", "a.test", "--json"]).run().await.json();
    assert_eq!(json["certificates"][0]["state"], "ok");
    // Looking makes nothing, and what is not there is not trusted: no test touches the machine's own store.
    let dir = Workdir::new();
    Program::edd(&["certs", "list"]).dir(dir.path()).run().await.ok();
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
    for undo in [&[][..], &["--remove"]] {
        let trust = Program::edd(&["certs", "trust"]).args(undo).dir(dir.path()).run().await;
        assert_eq!((trust.code, trust.stdout.as_str()), (Some(1), ""));
        assert!(trust.stderr.contains("there is no local authority yet; start `edd up` once"), "{trust:#?}");
    }
    assert!(Program::edd(&["certs", "trust", "--help"]).run().await.ok().contains("--remove"));
}

#[tokio::test]
async fn completions_and_manual_are_what_their_readers_take() {
    let script = Program::edd(&["completions", "bash"]).run().await;
    assert!(script.ok().contains("--status"), "completions of flags");
    Program::new("bash").args(&["-n"]).stdin(script.ok()).run().await.ok();
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(Program::edd(&["completions", shell]).run().await.ok().contains("healthcheck"), "{shell}");
    }
    let page = Program::edd(&["man"]).run().await;
    assert!(page.ok().lines().any(|line| line.starts_with(".TH edd 1")), "{}", page.stdout);
    let dir = Workdir::new();
    Program::edd(&["man", "--dir", "pages"]).dir(dir.path()).run().await.ok();
    let gateway = std::fs::read_to_string(dir.path().join("pages/edd-gateway.1")).expect("a page for each verb");
    assert!(gateway.contains("EDD\\_DRAIN\\_SECONDS") || gateway.contains("EDD_DRAIN_SECONDS"), "{gateway}");
}
