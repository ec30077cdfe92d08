//! Containers behind a whole gateway, with real sockets.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::access_log::AccessLog;
use crate::certs::CertsConfig;
use crate::containers::tests::scene::{ANN, Scene, id, record};
use crate::containers::{Change, Origin, Record, Timing};
use crate::gateway::{Config, Gateway, Stop};
use crate::health::Health;
use crate::live::Status;
use crate::proxy::http1::HeadLimits;

const PATIENCE: Duration = Duration::from_secs(20);

/// A container's server: each answer names the connection that it came by, and how long the request's body was.
struct Server {
    address: SocketAddr,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::<Mutex<usize>>::default());
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    *count
                };
                tokio::spawn(serve(stream, number));
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn serve(stream: TcpStream, number: usize) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut upgrades) = (0, false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            upgrades |= line == "upgrade: websocket";
            if line.is_empty() {
                break;
            }
        }
        if upgrades {
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                stream.write_all(&byte).await?;
            }
            return Ok(());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = format!("connection {number}, {length} bytes");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Where the access log goes.
struct Lines(SyncSender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A gateway that serves the containers of a scene.
struct Served {
    scene: Scene,
    http: SocketAddr,
    lines: Receiver<Vec<u8>>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        let timing = Timing { page_after: Duration::from_millis(20), ..Timing::default() };
        let (scene, dir) = (Scene::with(timing, Duration::ZERO), tempfile::tempdir().unwrap());
        let routes_file = dir.path().join("routes.yaml");
        tokio::fs::write(&routes_file, "routes: []\n").await.unwrap();
        let (sink, lines) = sync_channel(1000);
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            http: local,
            https: local,
            admin: local,
            ssh: None,
            dynamic_bind: std::net::Ipv4Addr::LOCALHOST.into(),
            routes_file,
            data_dir: dir.path().to_owned(),
            certs: CertsConfig::default(),
            trusted_proxies: Vec::new(),
            limits: HeadLimits { max_head_bytes: 32 * 1024, header_timeout: PATIENCE, keepalive_timeout: PATIENCE },
            max_connections: 1000,
            handshake_timeout: PATIENCE,
            drain_timeout: Duration::from_secs(5),
            shutdown_delay: Duration::ZERO,
            access_log: AccessLog::start(Some(Box::new(Lines(sink))), Arc::clone(&scene.metrics)).unwrap(),
            builtin_targets: Default::default(),
            builtin_routes: Vec::new(),
            metrics: Arc::clone(&scene.metrics),
            router: scene.router.clone(),
            static_routes: tokio::sync::watch::channel(None).1,
            containers: Some(scene.containers.clone()),
            health: Health::default(),
            takeover: false,
            worker_threads: 2,
        };
        let gateway = Gateway::start(config).await.unwrap();
        let (http, (stop, stopped)) = (gateway.addresses.http, oneshot::channel());
        let running = tokio::spawn(gateway.run(async move {
            // Dropped by a test that fails: the gateway ends then, too.
            let _ = stopped.await;
            Stop::Now
        }));
        scene.containers.set_complete();
        Self { scene, http, lines, stop, running, _dir: dir }
    }

    /// Sends a request for a container; the connection, from which the answer can be read.
    async fn send(&self, number: u32, request: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let host = format!("Host: {}.compute.cloud.localhost", id(number));
        let text = format!("{request} HTTP/1.1\r\n{host}\r\n{headers}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn get(&self, number: u32, headers: &str) -> String {
        let stream = self.send(number, "GET /", &format!("Connection: close\r\n{headers}")).await;
        read(stream).await
    }

    /// Ends the gateway; the lines of its access log.
    async fn end(self) -> Vec<serde_json::Value> {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.running).await.expect("the gateway ends").unwrap();
        let bytes: Vec<u8> = self.lines.try_iter().flatten().collect();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// All that comes until the end.
async fn read(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.expect("an answer").unwrap();
    text
}

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A WebSocket that has been opened, its answer's head read.
async fn opened(mut stream: TcpStream) -> (TcpStream, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an answer");
        head.push(byte.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"x").await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an echo").unwrap(), b'x');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_wakes_its_container_and_is_answered_by_it() {
    let (served, server) = (Served::start().await, Server::start().await);
    served.scene.hear(record(1, 1, Status::Hibernated, 9));
    let headers = "Connection: close\r\nContent-Length: 5\r\n";
    let mut upload = served.send(1, "POST /", headers).await;
    upload.write_all(b"hello").await.unwrap();
    let socket = served.send(1, "GET /", HANDSHAKE).await;
    served.scene.script.was_asked(1).await;
    let page = served.get(1, "Accept: text/html\r\n").await;
    assert!(page.starts_with("HTTP/1.1 503 ") && page.contains("http-equiv=\"refresh\""), "{page}");
    assert_eq!(server.connections(), 0, "nothing is sent to who sleeps");
    served.scene.hear(record(1, 2, Status::Running, server.address.port()));
    let answer = read(upload).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(", 5 bytes"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nx-edd-cold-start: "), "{answer}");
    let (mut socket, head) = opened(socket).await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_ascii_lowercase().contains("x-edd-cold-start"), "{head}");
    echoes(&mut socket).await;
    let awake = served.get(1, "").await;
    assert!(awake.starts_with("HTTP/1.1 200 ") && !awake.to_ascii_lowercase().contains("cold-start"), "{awake}");
    assert_eq!(served.scene.script.woken(), [id(1)]);
    drop(socket);
    let lines = served.end().await;
    assert_eq!(lines.len(), 4);
    for line in &lines {
        let named = (&line["container"], &line["user"], &line["route"]);
        assert_eq!(named, (&id(1).to_string().into(), &ANN.into(), &"*.compute.cloud.localhost/".into()), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_container_takes_its_own_streams_along() {
    let (served, server) = (Served::start().await, Server::start().await);
    for number in [1, 2] {
        served.scene.hear(record(number, 1, Status::Running, server.address.port()));
    }
    let (mut doomed, _) = opened(served.send(1, "GET /", HANDSHAKE).await).await;
    let (mut other, _) = opened(served.send(2, "GET /", HANDSHAKE).await).await;
    echoes(&mut doomed).await;
    echoes(&mut other).await;
    served.scene.containers.apply([Change::Gone { id: id(1), version: 2 }], Origin::Event(1));
    let rest = tokio::time::timeout(PATIENCE, doomed.read(&mut [0; 8])).await.expect("it ends");
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
    echoes(&mut other).await;
    let gone = served.get(1, "").await;
    assert!(gone.starts_with("HTTP/1.1 404 ") && gone.contains("no_container"), "{gone}");
    served.scene.hear(record(2, 2, Status::Stopped, server.address.port()));
    let rest = tokio::time::timeout(PATIENCE, other.read(&mut [0; 8])).await.expect("it ends");
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
    let stopped = served.get(2, "").await;
    assert!(stopped.starts_with("HTTP/1.1 503 ") && stopped.contains("container_stopped"), "{stopped}");
    let lines = served.end().await;
    let mut reasons: Vec<_> = lines.iter().filter_map(|line| line["reason"].as_str()).collect();
    // A stream is told of once it has ended, which may be after the next request.
    reasons.sort_unstable();
    assert_eq!(reasons, ["container_stopped", "no_container", "route_removed", "route_removed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_do_not_share_connections_to_one_address() {
    let (served, server) = (Served::start().await, Server::start().await);
    for number in [1, 2] {
        served.scene.hear(record(number, 1, Status::Running, server.address.port()));
    }
    let connection = |answer: String| answer.split_once("connection ").unwrap().1.split(',').next().unwrap().to_owned();
    let mut seen = Vec::new();
    for number in [1, 2, 1, 2] {
        seen.push(connection(served.get(number, "").await));
    }
    assert_eq!(seen, ["1", "2", "1", "2"]);
    // The address is another's from now on: what the first left behind is not for them.
    served.scene.containers.apply([Change::Gone { id: id(1), version: 2 }], Origin::Event(1));
    served.scene.hear(Record { version: 1, ..record(3, 1, Status::Running, server.address.port()) });
    assert_eq!(connection(served.get(3, "").await), "3");
    served.end().await;
}
