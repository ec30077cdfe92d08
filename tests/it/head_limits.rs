//! Request heads over HTTP/1: how long one may take, how large it may be, and how long a connection idles.

use crate::harness::{Broken, Cases, Connection, Edd, Flood, Upstream, within};

#[tokio::test]
async fn a_head_must_be_whole_in_time_however_it_drips() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_HEADER_TIMEOUT", "300ms").start().await;
    // At once, then nothing.
    let mut stalled = edd.connect().await;
    stalled.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-").await;
    edd.refusal(&mut stalled, 408, "header_timeout").await;
    stalled.expect_close().await;

    // A byte now and then: every single read is in time, the head never is.
    let (read, mut write) = tokio::io::split(edd.connect().await.into_stream());
    let drip = async {
        use tokio::io::AsyncWriteExt;
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(30));
        for byte in b"GET / HTTP/1.1\r\nHost: a.test\r\n".iter().chain(std::iter::repeat(&b'x')) {
            pace.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending().await
    };
    let mut reader = Connection::over(tokio::io::join(read, tokio::io::empty()));
    tokio::select! {
        () = drip => {}
        _ = edd.refusal(&mut reader, 408, "header_timeout") => {}
    }
    // The second request of a connection is under the same rule.
    let mut client = edd.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HT").await;
    assert_eq!(client.response().await.status, 200);
    edd.refusal(&mut client, 408, "header_timeout").await;
}

#[tokio::test]
async fn idle_connections_close_without_a_word() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes())
        .env("EDD_KEEPALIVE_TIMEOUT", "300ms")
        .env("EDD_HEADER_TIMEOUT", "600ms")
        .start()
        .await;
    let mut silent = edd.connect().await;
    let mut client = edd.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    client.expect_close().await;
    silent.expect_close().await;
}

#[tokio::test]
async fn large_heads_are_taken_up_to_the_limit() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let large = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    let many = |lines: usize| format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "X: y\r\n".repeat(lines));
    for head in [large(30 * 1024), many(90)] {
        let mut client = edd.connect().await;
        client.send(&head).await;
        assert_eq!(client.response().await.status, 200, "{} bytes", head.len());
    }
    upstream.take();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(40 * 1024));
    for head in [large(33 * 1024), large(1024 * 1024), many(101), long_target] {
        let mut client = edd.connect().await;
        // It may close before it has taken all of it.
        let _ = client.try_send(&head).await;
        edd.refusal(&mut client, 431, "headers_too_large").await;
        client.expect_close().await;
    }
    assert!(upstream.take().is_empty());
}

#[tokio::test]
async fn the_limit_of_a_head_can_be_set() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_MAX_HEADER_BYTES", "1024").start().await;
    let mut client = edd.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(1024))).await;
    edd.refusal(&mut client, 431, "headers_too_large").await;
}

#[tokio::test]
async fn endless_heads_end_and_cost_no_memory() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_HEADER_TIMEOUT", "1s").start().await;
    let before = edd.resident_kib();
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-";
    let mut cases = Cases::default();
    // Empty lines before a request are let pass, but not for ever.
    for (first, endless) in [(request, "X: y\r\n"), (request, "xxxxxxxx"), ("", "\r\n"), ("", "GET ")] {
        let case = async {
            let mut client = edd.connect().await;
            client.send(first).await;
            let block = endless.repeat(64 * 1024 / endless.len());
            assert_eq!(client.flood(block.as_bytes(), usize::MAX).await, Flood::Closed);
            let status = client.try_response("GET").await.map(|response| response.status);
            assert!(matches!(status, Ok(400 | 408 | 431) | Err(Broken::Closed)), "{status:?}");
        };
        cases.case(endless, within("the endless head to be cut off", case)).await;
    }
    cases.finish();
    let grown = edd.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "memory grew by {grown} KiB");
    assert!(upstream.take().is_empty());
}
