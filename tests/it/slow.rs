//! Clients that take their time must cost the others none.

use crate::harness::{Connection, Edd, Upstream};

/// Slow connections held open at once; few enough for 1,024 descriptors with the upstream's ends of them.
const SLOW: usize = 150;
/// Full buffers in both directions, in a build without optimisation.
const MAX_KIB_PER_CONNECTION: u64 = 512;

/// Opens slow connections, each with these bytes, and looks whether others are served meanwhile.
async fn check_others_are_served(edd: &Edd, address: std::net::SocketAddr, first_bytes: &[u8]) -> Vec<Connection> {
    let before = edd.resident_kib();
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut client = Connection::open(address).await;
        client.send(first_bytes).await;
        slow.push(client);
    }
    for _ in 0..50 {
        assert_eq!(edd.get("a.test", "/fast").await.status, 200);
    }
    let grown = edd.resident_kib().saturating_sub(before);
    assert!(grown < SLOW as u64 * MAX_KIB_PER_CONNECTION, "{SLOW} slow connections cost {grown} KiB");
    slow
}

#[tokio::test]
async fn heads_that_never_end() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).env("EDD_HEADER_TIMEOUT", "2s").start().await;
    let slow = check_others_are_served(&edd, edd.http, b"GET /slow HTTP/1.1\r\nHost: a.test\r\nX-").await;
    for mut client in slow {
        edd.refusal(&mut client, 408, "header_timeout").await;
    }
    assert!(upstream.take().iter().all(|seen| seen.target == "/fast"));
}

#[tokio::test]
async fn bodies_that_never_end() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let head = b"POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nabc";
    check_others_are_served(&edd, edd.http, head).await;
}

#[tokio::test]
async fn answers_that_nobody_reads() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    check_others_are_served(&edd, edd.http, b"GET /chunked/10000000 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
}

#[tokio::test]
async fn handshakes_that_never_end() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    // The beginning of a ClientHello that announces 512 bytes.
    check_others_are_served(&edd, edd.https, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
}

#[tokio::test]
async fn http2_connections_that_say_nothing() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    check_others_are_served(&edd, edd.http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    check_others_are_served(&edd, edd.http, b"PRI * HTTP/2.0\r\n\r\nSM").await;
}
