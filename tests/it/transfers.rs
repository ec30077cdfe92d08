//! Bodies that are large or slow: constant memory, and no deadline on what moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::harness::{Connection, Edd, RawUpstream, Upstream, within};

const MIB: u64 = 1024 * 1024;
/// Most that edd's memory may grow by, in KiB, however large a body is.
const MAX_GROWTH_KIB: u64 = 48 * 1024;
/// Most that may be on its way between an upstream and a client: socket buffers, and a little in edd.
const MAX_UNDERWAY: u64 = 48 * MIB;

/// The size of a large body: 10 GiB in a full run.
fn large() -> u64 {
    match std::env::var_os("EDD_TEST_FULL") {
        Some(_) => 10 * 1024 * MIB,
        None => 512 * MIB,
    }
}

fn check_memory(edd: &Edd, before_kib: u64) {
    let grown = edd.resident_kib().saturating_sub(before_kib);
    assert!(grown < MAX_GROWTH_KIB, "edd's memory grew by {grown} KiB");
}

/// Serves other requests for a while, so that whatever goes on meanwhile goes on.
async fn serve_others(edd: &Edd) {
    for _ in 0..100 {
        assert_eq!(edd.get("small.test", "/size/100000").await.body.len(), 100_000);
    }
}

#[tokio::test]
async fn large_downloads_move_in_constant_memory() {
    let size = large();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let generator = RawUpstream::start(move |mut connection| {
        let counter = counter.clone();
        async move {
            connection.head().await;
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await;
            let block = vec![b'x'; 256 * 1024];
            while counter.load(Ordering::Relaxed) < size && connection.try_send(&block).await {
                counter.fetch_add(block.len() as u64, Ordering::Relaxed);
            }
            connection.hang().await;
        }
    })
    .await;
    let small = Upstream::start().await;
    let edd = Edd::gateway(format!(
        "routes: [{{host: large.test, target: '{}'}}, {{host: small.test, target: '{}'}}]",
        generator.address, small.address
    ))
    .start()
    .await;
    serve_others(&edd).await;
    let before = edd.resident_kib();
    let mut client = edd.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: large.test\r\n\r\n").await;
    assert_eq!(client.head().await.expect("a head").headers["content-length"], size.to_string());
    let mut received = client.discard(1000).await;
    // The client reads no more: the upstream has to wait.
    serve_others(&edd).await;
    let underway = sent.load(Ordering::Relaxed) - received;
    assert!(underway < MAX_UNDERWAY, "{underway} bytes are on their way to a client that does not read");
    check_memory(&edd, before);
    while received < size {
        let step = (size - received).min(64 * MIB);
        assert_eq!(client.discard(step).await, step, "the body ended early");
        received += step;
        check_memory(&edd, before);
    }
    assert_eq!(edd.get("small.test", "/x").await.status, 200);
}

#[tokio::test]
async fn large_uploads_move_in_constant_memory() {
    let size = large();
    let (go, wait) = tokio::sync::watch::channel(false);
    let slow = RawUpstream::start(move |mut connection| {
        let mut wait = wait.clone();
        async move {
            connection.head().await;
            wait.wait_for(|go| *go).await.expect("the test lives");
            let received = connection.discard(size).await;
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Received: {received}\r\n\r\n")).await;
            connection.hang().await;
        }
    })
    .await;
    let small = Upstream::start().await;
    let edd = Edd::gateway(format!(
        "routes: [{{host: large.test, target: '{}'}}, {{host: small.test, target: '{}'}}]",
        slow.address, small.address
    ))
    .start()
    .await;
    serve_others(&edd).await;
    let before = edd.resident_kib();
    let mut client = edd.connect().await;
    client.send(format!("PUT /x HTTP/1.1\r\nHost: large.test\r\nContent-Length: {size}\r\n\r\n")).await;
    let (read, mut write) = tokio::io::split(client.into_stream());
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let upload = tokio::spawn(async move {
        let block = vec![b'y'; 256 * 1024];
        while counter.load(Ordering::Relaxed) < size {
            write.write_all(&block).await.expect("edd takes the body");
            counter.fetch_add(block.len() as u64, Ordering::Relaxed);
        }
        write
    });
    // The upstream does not read yet: the client has to wait.
    serve_others(&edd).await;
    let underway = sent.load(Ordering::Relaxed);
    assert!(underway < MAX_UNDERWAY, "{underway} bytes are on their way to an upstream that does not read");
    check_memory(&edd, before);
    go.send_replace(true);
    let write = within("the upload to end", upload).await.expect("the upload");
    check_memory(&edd, before);
    let answer = Connection::over(read.unsplit(write)).response().await;
    assert_eq!((answer.status, answer.header("x-received")), (200, size.to_string().as_str()));
}

/// HTTP/2 over TLS has windows of its own.
#[tokio::test]
async fn large_bodies_move_over_http2() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let root = edd.local_authority_file();
    let root = root.to_str().expect("a plain path");
    let size = 64 * MIB;
    let file = edd.path("body");
    std::fs::File::create(&file).and_then(|file| file.set_len(size)).expect("room in the temporary directory");
    let url = |path: &str| format!("https://cloud.localhost:{}{path}", edd.https.port());
    let before = edd.resident_kib();
    let told = "%{http_version} %{http_code} %{size_upload} %{size_download}";
    let common = ["--cacert", root, "--http2", "--output", "/dev/null", "--write-out", told];
    let download = edd.curl(&common).args(&[&url(&format!("/chunked/{size}"))]).run().await;
    assert_eq!(download.ok(), format!("2 200 0 {size}\n"));
    let upload = edd.curl(&common).args(&["--upload-file", file.to_str().expect("a plain path"), &url("/size/0")]);
    assert_eq!(upload.run().await.ok(), format!("2 200 {size} 0\n"));
    assert_eq!(upstream.take()[1].body_bytes, size);
    check_memory(&edd, before);
}

/// What moves may take as long as it likes: no deadline counts from the beginning.
#[tokio::test]
async fn uploads_may_take_longer_than_any_timeout() {
    let upstream = Upstream::start().await;
    let timeouts = "{read: 300ms, write: 300ms, stream_idle: 300ms}";
    let edd = Edd::gateway(format!("routes: [{{target: '{}', timeouts: {timeouts}}}]", upstream.address)).start().await;
    let mut client = edd.connect().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\n").await;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for byte in 1..=12 {
        pace.tick().await;
        client.send("x").await;
        upstream.wait("the byte", |seen| seen.body_bytes == byte).await;
    }
    assert_eq!(client.response().await.json()["body_bytes"], 12);
}

/// An answer whose length is known passes as it comes, too: head first, then byte by byte.
#[tokio::test]
async fn slow_answers_arrive_piece_by_piece() {
    let (sender, pieces) = mpsc::channel::<&str>(1);
    let pieces = Arc::new(tokio::sync::Mutex::new(pieces));
    let upstream = RawUpstream::start(move |mut connection| {
        let pieces = pieces.clone();
        async move {
            connection.head().await;
            while let Some(piece) = pieces.lock().await.recv().await {
                connection.send(piece).await;
            }
        }
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let say = async |piece| sender.send(piece).await.expect("the upstream listens");
    let mut client = edd.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").await;
    assert_eq!(client.head().await.expect("the head alone").status, 200);
    for byte in ["a", "b", "c"] {
        say(byte).await;
        assert_eq!(client.exactly(1).await.expect("the byte alone"), byte.as_bytes());
    }
}

#[tokio::test]
async fn ranges_and_conditions_are_the_upstreams_business() {
    const PARTIAL: &str = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\n\r\ncde";
    const UNCHANGED: &str = "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nContent-Length: 10\r\n\r\n";
    let upstream = RawUpstream::start(|mut connection| async move {
        while let Some(head) = connection.head().await {
            connection
                .send(if head.to_lowercase().contains("if-none-match: \"v1\"") { UNCHANGED } else { PARTIAL })
                .await;
        }
    })
    .await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    for _ in 0..2 {
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nRange: bytes=2-4\r\nIf-Range: \"v1\"\r\n\r\n").await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.text()), (206, "cde"));
        assert_eq!(answer.header("content-range"), "bytes 2-4/10");
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: \"v1\"\r\n\r\n").await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.header("etag")), (304, "\"v1\""));
    }
    let asked = String::from_utf8(upstream.bytes()).expect("text").to_lowercase();
    assert!(asked.contains("range: bytes=2-4\r\n") && asked.contains("if-range: \"v1\"\r\n"), "{asked}");
}
