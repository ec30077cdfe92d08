//! Ports of a whole gateway, over real sockets.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edd_proto::ContainerId;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::access_log::AccessLog;
use crate::certs::{CertsConfig, LocalCaConfig};
use crate::gateway::{Config, Gateway, Stop};
use crate::health::Health;
use crate::ingress::Machine;
use crate::live::LiveRoute;
use crate::metrics::Metrics;
use crate::proxy::http1::HeadLimits;
use crate::route::{Action, Authority, HostName, HostPattern, PathPrefix, Protocol, Route, Source, Target};
use crate::router::Router;
use crate::table::containers::Zone;
use crate::table::ports::{PortProtocol, PortRule};
use crate::upstream::Upstreams;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_millis(100);

fn id(number: usize) -> ContainerId {
    format!("c{number:09}").parse().unwrap()
}

fn host(number: usize) -> String {
    format!("{}.compute.cloud.localhost", id(number))
}

/// A port that nobody has.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What the gateway has logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A gateway that serves.
struct Edge {
    router: Router,
    ports: ListenerSet,
    log: Log,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Edge {
    async fn start(dir: &Path, router: Router, takeover: bool) -> Self {
        // Another test may have done so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = HostName::parse("cloud.localhost").unwrap();
        router.update(|snapshot| snapshot.containers.set_zone(Zone::of(&base).unwrap()));
        let routes_file = dir.join("routes.yaml");
        std::fs::write(&routes_file, "routes: []\n").unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let log = Log::default();
        let second = Duration::from_secs(1);
        let metrics = Arc::new(Metrics::new().unwrap());
        let config = Config {
            http: any,
            https: any,
            admin: any,
            ssh: None,
            dynamic_bind: any.ip(),
            routes_file,
            data_dir: dir.to_owned(),
            certs: CertsConfig {
                certs_dir: None,
                local_ca: Some(LocalCaConfig { dir: dir.join("ca"), names: vec![base] }),
            },
            trusted_proxies: Vec::new(),
            limits: HeadLimits { max_head_bytes: 32 * 1024, header_timeout: second, keepalive_timeout: PATIENCE },
            max_connections: 1000,
            handshake_timeout: second,
            drain_timeout: DRAIN,
            shutdown_delay: Duration::ZERO,
            access_log: AccessLog::start(Some(Box::new(log.clone())), Arc::clone(&metrics)).unwrap(),
            builtin_targets: HashMap::new(),
            builtin_routes: Vec::new(),
            metrics,
            router: router.clone(),
            containers: None,
            static_routes: watch::channel(None).1,
            health: Health::default(),
            takeover,
            worker_threads: 1,
        };
        let gateway = Gateway::start(config).await.unwrap();
        let ports = gateway.ports().clone();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(gateway.run(async {
            let _ = stopped.await;
            Stop::Now
        }));
        Self { router, ports, log, stop: Some(stop), running }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, self.running).await.expect("it ends").unwrap();
    }

    async fn opened(&self, port: u16) {
        self.until(|reports| reports.iter().any(|it| it.port == port && it.state == PortState::Bound)).await;
    }

    async fn until(&self, condition: impl Fn(&[PortReport]) -> bool) {
        wait(|| condition(&self.ports.report())).await;
    }

    /// The lines of the log, as soon as `condition` holds for them.
    async fn logged(&self, condition: impl Fn(&[serde_json::Value]) -> bool) -> Vec<serde_json::Value> {
        let lines = || -> Vec<serde_json::Value> {
            let text = self.log.0.lock().unwrap().clone();
            String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        wait(|| condition(&lines())).await;
        lines()
    }
}

async fn wait(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.expect("it comes to be");
}

/// What a container has on a port.
fn set(router: &Router, port: u16, number: usize, rule: Option<(PortProtocol, SocketAddr)>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let upstreams = Upstreams::new(HashMap::new(), Arc::clone(&metrics));
    let rule = rule.map(|(protocol, target)| {
        let authority = Authority::parse(&target.to_string()).unwrap();
        let action = Action::Proxy { targets: vec![Target { authority, weight: 1 }], protocol: Protocol::H1 };
        let (any, root) = (HostPattern::Any, PathPrefix::parse("/").unwrap());
        let live = LiveRoute::new(Route::new(any, root, action, Source::Compute), None, &upstreams, &metrics).unwrap();
        (PortRule { container: id(number), port, target_port: target.port(), protocol }, Arc::new(live))
    });
    router.update(|snapshot| snapshot.ports.set(port, id(number), rule));
}

/// A server that answers every request with `body`.
async fn http_server(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while stream.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
                    if buffer.ends_with(b"\r\n\r\n") {
                        buffer.clear();
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// A server that speaks first, then says at the end what it has received.
async fn raw_server(banner: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut received = Vec::new();
                let talk = async {
                    stream.write_all(banner.as_bytes()).await?;
                    stream.read_to_end(&mut received).await?;
                    stream.write_all(&received).await
                };
                // A client that is cut off ends it.
                let _ = talk.await;
            });
        }
    });
    address
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Asks over an open connection: status and body.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), host: &str) -> (u16, String) {
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return (head[9..12].parse().unwrap(), body.to_owned());
            }
        }
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{:?}", String::from_utf8_lossy(&answer));
    }
}

async fn get(port: u16, host: &str) -> (u16, String) {
    tokio::time::timeout(PATIENCE, async { ask(&mut connect(port).await, host).await }).await.expect("an answer")
}

async fn read_exactly(stream: &mut TcpStream, text: &str) {
    let mut read = vec![0; text.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut read)).await.expect("in time").unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), text);
}

/// The connection ends, one way or another.
async fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends");
    assert_eq!(rest, b"");
}

const ALICE: &str = "alice's";
const BOB: &str = "bob's";

#[tokio::test]
async fn containers_share_a_port_by_host() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path(), Router::default(), false).await;
    let port = free_port();
    set(&edge.router, port, 1, Some((PortProtocol::Sniff, http_server(ALICE).await)));
    set(&edge.router, port, 2, Some((PortProtocol::Http, http_server(BOB).await)));
    edge.opened(port).await;
    for _ in 0..2 {
        assert_eq!(get(port, &format!("{}:{port}", host(1))).await, (200, ALICE.to_owned()));
        assert_eq!(get(port, &host(2)).await, (200, BOB.to_owned()));
    }
    let (status, hint) = get(port, &host(3)).await;
    assert!(status == 421 && hint.contains(&format!("rule leads port {port} to {}", host(3))), "{status} {hint}");
    for stranger in ["127.0.0.1", "example.com"] {
        let (status, hint) = get(port, stranger).await;
        assert!(status == 421 && hint.contains("container id"), "{stranger}: {status} {hint}");
        assert!(!hint.contains(id(1).as_str()), "nobody is told who else is here: {hint}");
    }
    // Whoever is alone on a port is meant by those who name nobody, and by nobody who names another.
    set(&edge.router, port, 2, None);
    for stranger in ["127.0.0.1", "example.com"] {
        assert_eq!(get(port, stranger).await, (200, ALICE.to_owned()));
    }
    assert_eq!(get(port, &host(2)).await.0, 421);
    let logged = edge.logged(|lines| lines.len() >= 10).await;
    assert!(logged.iter().all(|line| line["listener"] == "dynamic"), "{logged:?}");
    edge.stop().await;
}

#[tokio::test]
async fn tls_is_terminated_for_the_name_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path(), Router::default(), false).await;
    let port = free_port();
    set(&edge.router, port, 1, Some((PortProtocol::Tls, http_server(ALICE).await)));
    set(&edge.router, port, 2, Some((PortProtocol::Sniff, http_server(BOB).await)));
    set(&edge.router, port, 3, Some((PortProtocol::Http, http_server("carol's").await)));
    edge.opened(port).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.path().join("ca/root.pem")).unwrap()).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let client = tokio_rustls::TlsConnector::from(Arc::new(client));
    let get_tls = async |number: usize| {
        let name = host(number).try_into().unwrap();
        let mut stream = client.connect(name, connect(port).await).await.unwrap();
        ask(&mut stream, &host(number)).await
    };
    assert_eq!(get_tls(1).await, (200, ALICE.to_owned()));
    assert_eq!(get_tls(2).await, (200, BOB.to_owned()));
    let (status, hint) = get_tls(3).await;
    assert!(status == 421 && hint.contains(&format!("http://{}:{port}", host(3))), "{status} {hint}");
    let (status, hint) = get(port, &host(1)).await;
    assert!(status == 400 && hint.contains(&format!("https://{}:{port}", host(1))), "{status} {hint}");
    assert_eq!(get(port, &host(2)).await, (200, BOB.to_owned()));
    edge.stop().await;
}

#[tokio::test]
async fn raw_bytes_pass_both_ways_until_both_sides_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path(), Router::default(), false).await;
    let port = free_port();
    set(&edge.router, port, 1, Some((PortProtocol::Tcp, raw_server("220 hello\r\n").await)));
    edge.opened(port).await;
    let mut client = connect(port).await;
    read_exactly(&mut client, "220 hello\r\n").await;
    // Far more than the buffers on the way hold: the server takes it all before it answers.
    let sent: Vec<u8> = (0..8_000_000u32).map(|number| number as u8).collect();
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    tokio::time::timeout(PATIENCE, client.read_to_end(&mut echoed)).await.expect("in time").unwrap();
    assert!(echoed == sent, "{} bytes came back", echoed.len());
    let line = edge.logged(|lines| !lines.is_empty()).await.remove(0);
    assert_eq!((&line["proto"], &line["listener"]), (&"TCP".into(), &"dynamic".into()), "{line}");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&8_000_000.into(), &8_000_011.into()), "{line}");
    assert!(line.get("reason").is_none(), "{line}");
    edge.stop().await;
}

#[tokio::test]
async fn what_cannot_be_reached_or_understood_is_closed_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path(), Router::default(), false).await;
    let (raw, shared) = (free_port(), free_port());
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port()));
    set(&edge.router, raw, 1, Some((PortProtocol::Tcp, dead)));
    set(&edge.router, shared, 1, Some((PortProtocol::Http, dead)));
    edge.opened(raw).await;
    edge.opened(shared).await;
    ends(&mut connect(raw).await).await;
    assert_eq!(get(shared, &host(1)).await.0, 502);
    let lines = edge.logged(|lines| lines.len() >= 2).await;
    assert!(lines.iter().all(|line| line["reason"] == "upstream_refused"), "{lines:?}");
    let mut ssh = connect(shared).await;
    ssh.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    ends(&mut ssh).await;
    // A client that says nothing is not waited for longer than for a handshake.
    ends(&mut connect(shared).await).await;
    edge.stop().await;
}

#[tokio::test]
async fn ports_come_and_go_without_touching_others() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path(), Router::default(), false).await;
    let (steady, fleeting) = (free_port(), free_port());
    let (alice, bob) = (http_server(ALICE).await, raw_server("hello").await);
    set(&edge.router, steady, 1, Some((PortProtocol::Http, alice)));
    edge.opened(steady).await;
    let mut kept = connect(steady).await;
    for _ in 0..10 {
        set(&edge.router, fleeting, 1, Some((PortProtocol::Http, alice)));
        edge.opened(fleeting).await;
        assert_eq!(ask(&mut kept, &host(1)).await, (200, ALICE.to_owned()));
        let mut idle = connect(fleeting).await;
        assert_eq!(ask(&mut idle, &host(1)).await, (200, ALICE.to_owned()));
        set(&edge.router, fleeting, 1, None);
        ends(&mut idle).await;
        assert_eq!(ask(&mut kept, &host(1)).await, (200, ALICE.to_owned()));
    }
    wait(|| std::net::TcpStream::connect(("127.0.0.1", fleeting)).is_err()).await;
    // A stream has the drain time to come to an end.
    set(&edge.router, fleeting, 2, Some((PortProtocol::Tcp, bob)));
    edge.opened(fleeting).await;
    let mut stream = connect(fleeting).await;
    read_exactly(&mut stream, "hello").await;
    set(&edge.router, fleeting, 2, None);
    ends(&mut stream).await;
    let lines = edge.logged(|lines| lines.iter().any(|line| line["proto"] == "TCP")).await;
    let cut = lines.iter().find(|line| line["proto"] == "TCP").unwrap();
    assert!(["route_removed", "shutting_down"].contains(&cut["reason"].as_str().unwrap()), "{cut}");
    assert_eq!(ask(&mut kept, &host(1)).await, (200, ALICE.to_owned()));
    edge.stop().await;
}

#[tokio::test]
async fn a_port_that_changes_hands_drains_what_its_old_owner_had() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path(), Router::default(), false).await;
    let port = free_port();
    set(&edge.router, port, 1, Some((PortProtocol::Tcp, raw_server("one").await)));
    edge.opened(port).await;
    let mut old = connect(port).await;
    read_exactly(&mut old, "one").await;
    set(&edge.router, port, 2, Some((PortProtocol::Tcp, raw_server("two").await)));
    set(&edge.router, port, 1, None);
    ends(&mut old).await;
    let mut new = connect(port).await;
    read_exactly(&mut new, "two").await;
    edge.stop().await;
}

#[tokio::test]
async fn a_port_that_another_program_holds_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path(), Router::default(), false).await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    assert_eq!(edge.ports.offers(port).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    set(&edge.router, port, 1, Some((PortProtocol::Tcp, raw_server("hello").await)));
    edge.until(|reports| reports[0].state == PortState::Failed).await;
    let report = edge.ports.report().remove(0);
    assert!(report.error.unwrap().contains("in use"), "says why");
    assert_eq!(
        report.rules,
        [ReportedRule { container: id(1), target_port: report.rules[0].target_port, protocol: "tcp" }]
    );
    drop(other);
    edge.ports.offers(port).unwrap();
    edge.opened(port).await;
    edge.ports.offers(port).unwrap();
    read_exactly(&mut connect(port).await, "hello").await;
    edge.stop().await;
}

#[tokio::test]
async fn a_successor_takes_the_ports_over() {
    let dir = tempfile::tempdir().unwrap();
    let old = Edge::start(dir.path(), Router::default(), false).await;
    let (port, target) = (free_port(), raw_server("hello").await);
    set(&old.router, port, 1, Some((PortProtocol::Tcp, target)));
    old.opened(port).await;
    let router = Router::default();
    set(&router, port, 1, Some((PortProtocol::Tcp, target)));
    let new = Edge::start(dir.path(), router, true).await;
    tokio::time::timeout(PATIENCE, old.running).await.expect("the old one ends").unwrap();
    assert_eq!(new.ports.report()[0].state, PortState::Bound);
    read_exactly(&mut connect(port).await, "hello").await;
    new.stop().await;
}
