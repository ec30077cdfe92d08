//! Hosts that ask their clients for a certificate, and every way around the question.

use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::harness::tls::{Authority, Client};
use crate::harness::{Cases, Connection, Edd, H2Client, Upstream, WebSocket};

/// Authorities of servers and clients, and an upstream that must see authenticated requests alone.
struct Site {
    servers: Authority,
    clients: Authority,
    strangers: Authority,
    open: Upstream,
    closed: Upstream,
}

impl Site {
    async fn new() -> Self {
        Self {
            servers: Authority::new("servers"),
            clients: Authority::new("clients"),
            strangers: Authority::new("strangers"),
            open: Upstream::named("open").await,
            closed: Upstream::named("closed").await,
        }
    }

    /// `open.test` asks for nothing, `closed.test` and all below it for a certificate, `other.test` for one of
    /// strangers, `optional.test` takes one.
    fn routes(&self) -> String {
        let (open, closed) = (self.open.address, self.closed.address);
        format!(
            "routes:
            - {{host: open.test, target: '{open}'}}
            - {{host: open.closed.test, target: '{open}'}}
            - {{host: closed.test, target: '{closed}', client_cert: {{ca_file: clients.pem}}}}
            - {{host: '*.closed.test', target: '{closed}', client_cert: {{ca_file: clients.pem}}}}
            - {{host: other.test, target: '{closed}', client_cert: {{ca_file: strangers.pem}}}}
            - {{host: optional.test, target: '{open}', client_cert: {{ca_file: clients.pem, required: false}}}}"
        )
    }

    async fn start(&self, routes: &str) -> Edd {
        let names = ["open.test", "closed.test", "*.closed.test", "other.test", "optional.test", "127.0.0.1"];
        let server = self.servers.sign(&names);
        Edd::gateway(routes)
            .file("certs/site.crt", &server.certificate)
            .file("certs/site.key", &server.key)
            .file("clients.pem", &self.clients.pem())
            .file("strangers.pem", &self.strangers.pem())
            .start()
            .await
    }

    fn nobody(&self) -> Client {
        Client::trusting(&self.servers.pem())
    }

    fn client(&self, authority: &Authority) -> Client {
        Client::with_identity(&self.servers.pem(), &authority.sign(&["client"]))
    }
}

async fn ask(connection: &mut Connection, host: &str) -> u16 {
    connection.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    connection.response().await.status
}

/// The status of a request for `host` on a connection of its own; none when TLS refused the client, which one of
/// TLS 1.3 learns only when it reads.
async fn get(edd: &Edd, client: &Client, host: &str) -> Option<u16> {
    let (mut connection, _) = client.connect(edd.https, host).await.ok()?;
    // The refusal may close the connection before the request is written.
    connection.try_send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.ok()?;
    connection.try_response("GET").await.ok().map(|answer| answer.status)
}

#[tokio::test]
async fn hosts_that_ask_serve_only_whom_their_authorities_know() {
    let site = Site::new().await;
    let edd = site.start(&site.routes()).await;
    let forged = Authority::new("clients");
    let mut cases = Cases::default();
    for version in [&TLS12, &TLS13] {
        for (who, client, welcome) in [
            ("nobody", site.nobody(), &["open.test", "open.closed.test", "optional.test"][..]),
            (
                "a client",
                site.client(&site.clients),
                &["open.test", "open.closed.test", "optional.test", "closed.test", "x.closed.test"],
            ),
            ("a stranger", site.client(&site.strangers), &["open.test", "open.closed.test", "other.test"]),
            ("an impostor", site.client(&forged), &["open.test", "open.closed.test"]),
        ] {
            let client = client.version(version);
            for host in ["open.test", "open.closed.test", "optional.test", "closed.test", "x.closed.test", "other.test"]
            {
                let case = async {
                    let want = welcome.contains(&host).then_some(200);
                    assert_eq!(get(&edd, &client, host).await, want);
                };
                cases.case(&format!("{who} at {host} over {:?}", version.version), case).await;
            }
        }
    }
    cases.finish();
    assert_eq!(site.closed.take().len(), 6);
    let refused = [("result", "failed")];
    assert_eq!(edd.metrics().await.value("edd_tls_handshakes_total", &refused), Some(22.0));
}

/// TLS asks before the request names its host, so a connection counts for the name that it was opened for alone.
#[tokio::test]
async fn no_connection_for_another_host_reaches_one_that_asks() {
    let site = Site::new().await;
    let edd = site.start(&site.routes()).await;
    let nobody = |site: &Site| site.nobody();
    let stranger = |site: &Site| site.client(&site.strangers);
    let client = |site: &Site| site.client(&site.clients);
    let mut cases = Cases::default();
    for (who, opened_for, host) in [
        (nobody as fn(&Site) -> Client, "open.test", "closed.test"),
        (nobody, "open.test", "CLOSED.test:8443"),
        (nobody, "open.test", "closed.test."),
        (nobody, "open.test", "x.closed.test"),
        (nobody, "open.closed.test", "x.closed.test"),
        (nobody, "optional.test", "closed.test"),
        (nobody, "open.test", "optional.test"),
        // Without a name in the handshake.
        (nobody, "127.0.0.1", "closed.test"),
        // One that has proved itself, to somebody else.
        (stranger, "other.test", "closed.test"),
        (stranger, "other.test", "x.closed.test"),
        (client, "x.closed.test", "closed.test"),
        // Nobody asked for the certificate that it has.
        (client, "open.test", "closed.test"),
    ] {
        let case = async {
            let connect = async |alpn: &[&str]| {
                let (connection, _) = who(&site).alpn(alpn).connect(edd.https, opened_for).await.expect("a handshake");
                connection
            };
            let mut h1 = connect(&["http/1.1"]).await;
            for target in ["/x".to_owned(), format!("https://{host}/x")] {
                h1.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
                edd.refusal(&mut h1, 421, "misdirected").await;
            }
            assert_eq!(WebSocket::open(connect(&[]).await, host, "/ws").await.err(), Some(421));
            // Browsers use one connection for all hosts of a certificate, and another after a 421 (RFC 9113 §9.1.1).
            let h2 = H2Client::over(connect(&["h2"]).await).await;
            let answer = h2.get(&format!("https://{host}/x")).await;
            edd.check_refusal(&answer, 421, "misdirected").await;
        };
        cases.case(&format!("opened for {opened_for}, asked for {host}"), case).await;
    }
    cases.finish();
    let mut plain = edd.connect().await;
    plain.send("GET /x HTTP/1.1\r\nHost: closed.test\r\n\r\n").await;
    edd.refusal(&mut plain, 421, "misdirected").await;
    assert!(site.closed.take().is_empty());
    // The other way round nothing is lost.
    let (mut connection, _) = client(&site).connect(edd.https, "closed.test").await.expect("a handshake");
    assert_eq!((ask(&mut connection, "closed.test").await, ask(&mut connection, "open.test").await), (200, 200));
}

#[tokio::test]
async fn no_session_is_resumed_where_more_is_asked() {
    let site = Site::new().await;
    let edd = site.start(&site.routes()).await;
    for version in [&TLS12, &TLS13] {
        for (client, at, elsewhere) in [
            (site.nobody(), "open.test", "closed.test"),
            (site.nobody(), "optional.test", "closed.test"),
            (site.client(&site.strangers), "other.test", "closed.test"),
        ] {
            let client = client.version(version).careless();
            assert_eq!(get(&edd, &client, at).await, Some(200), "{at}");
            let (mut connection, agreed) = client.connect(edd.https, at).await.expect("a handshake");
            assert!(agreed.resumed, "no session of {at} over {:?}", version.version);
            assert_eq!(ask(&mut connection, at).await, 200);
            assert_eq!(get(&edd, &client, elsewhere).await, None, "{elsewhere} after {at}");
        }
        // A session of one who has proved itself is worth as much as the first time.
        let client = site.client(&site.clients).version(version);
        for resumed in [false, true] {
            let (mut connection, agreed) = client.connect(edd.https, "closed.test").await.expect("a handshake");
            assert_eq!((ask(&mut connection, "closed.test").await, agreed.resumed), (200, resumed));
        }
    }
}

async fn until_reloaded(edd: &Edd, times: f64) {
    let labels = [("result", "success")];
    edd.wait_metrics("the reload", |metrics| metrics.value("edd_config_reloads_total", &labels) == Some(times)).await;
}

/// What was agreed upon before counts for nothing afterwards.
#[tokio::test]
async fn a_host_that_begins_to_ask_asks_everyone() {
    let site = Site::new().await;
    let free = site.routes().replace(", client_cert: {ca_file: clients.pem}", "");
    for version in [&TLS12, &TLS13] {
        let edd = site.start(&free).await;
        let client = site.nobody().version(version);
        let (mut before, _) = client.connect(edd.https, "closed.test").await.expect("a handshake");
        assert_eq!(ask(&mut before, "closed.test").await, 200);
        edd.write_routes(&site.routes());
        until_reloaded(&edd, 2.0).await;
        before.send("GET /x HTTP/1.1\r\nHost: closed.test\r\n\r\n").await;
        edd.refusal(&mut before, 403, "client_certificate_required").await;
        assert_eq!(get(&edd, &client, "closed.test").await, None);
        assert_eq!(get(&edd, &site.client(&site.clients).version(version), "closed.test").await, Some(200));
    }
}

#[tokio::test]
async fn new_authorities_let_their_clients_in_and_the_old_ones_out() {
    let site = Site::new().await;
    let mut edd = site.start(&site.routes()).await;
    let (old, new) = (site.client(&site.clients), site.client(&site.strangers));
    for host in ["closed.test", "x.closed.test"] {
        assert_eq!((get(&edd, &old, host).await, get(&edd, &new, host).await), (Some(200), None));
    }
    edd.write("clients.pem", &site.strangers.pem());
    edd.signal(rustix::process::Signal::HUP);
    until_reloaded(&edd, 2.0).await;
    // The old client offers the sessions that it has, which would save it from being asked.
    for host in ["closed.test", "x.closed.test"] {
        assert_eq!((get(&edd, &old, host).await, get(&edd, &new, host).await), (None, Some(200)));
    }
    // A file that is no good changes nothing.
    edd.write("clients.pem", "nonsense");
    edd.signal(rustix::process::Signal::HUP);
    edd.wait_log("the refusal", |line| line.field("level") == "ERROR" && line.text.contains("clients.pem")).await;
    assert_eq!((get(&edd, &old, "closed.test").await, get(&edd, &new, "closed.test").await), (None, Some(200)));
}

#[tokio::test]
async fn curl_proves_itself() {
    let site = Site::new().await;
    let edd = site.start(&site.routes()).await;
    let (client, stranger) = (site.clients.sign(&["client"]), site.strangers.sign(&["client"]));
    for (name, text) in [
        ("servers.pem", site.servers.pem()),
        ("client.pem", format!("{}{}", client.certificate, client.key)),
        ("stranger.pem", format!("{}{}", stranger.certificate, stranger.key)),
    ] {
        edd.write(name, &text);
    }
    let path = |name: &str| edd.path(name).to_str().expect("a plain path").to_owned();
    let url = format!("https://closed.test:{}/x", edd.https.port());
    for (identity, welcome) in [(Some("client.pem"), true), (Some("stranger.pem"), false), (None, false)] {
        for version in ["--http2", "--http1.1"] {
            let mut curl = edd.curl(&["--cacert", &path("servers.pem"), version, "--fail", &url]);
            if let Some(identity) = identity {
                curl = curl.args(&["--cert", &path(identity)]);
            }
            let output = curl.run().await;
            assert_eq!(output.code == Some(0), welcome, "{identity:?} {version}: {output:?}");
        }
    }
    assert_eq!(site.closed.take().len(), 2);
}
