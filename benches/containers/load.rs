//! Requests as fast as they are answered, and who answers them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Connections of the load.
const CONNECTIONS: usize = 16;
/// What the upstream says to everything.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The end of every answer that is whole, whatever lines the gateway adds.
const END: &[u8] = b"\r\n\r\nok";

/// A server for all containers, which does nearly nothing.
pub async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

/// Answers every head on a connection; the gateway's requests here have no bodies.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    while stream.read_buf(&mut buffer).await? > 0 {
        if buffer.ends_with(b"\r\n\r\n") {
            buffer.clear();
            stream.write_all(ANSWER).await?;
        }
    }
    Ok(())
}

/// Asks `gateway` for the pages of `hosts`, one after the other on each connection, for so long: requests per second.
pub async fn run(gateway: SocketAddr, hosts: &[String], length: Duration) -> f64 {
    let began = Instant::now();
    let clients = (0..CONNECTIONS).map(|client| {
        let requests: Vec<_> = hosts
            .iter()
            .skip(client % hosts.len())
            .step_by(CONNECTIONS.min(hosts.len()))
            .map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes())
            .collect();
        tokio::spawn(async move { ask(gateway, &requests, began + length).await.expect("a whole answer") })
    });
    let answered: u64 = join_all(clients).await.into_iter().map(|client| client.expect("a client")).sum();
    answered as f64 / began.elapsed().as_secs_f64()
}

async fn ask(gateway: SocketAddr, requests: &[Vec<u8>], end: Instant) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    let (mut answered, mut buffer) = (0, Vec::with_capacity(4096));
    for request in requests.iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        stream.write_all(request).await?;
        buffer.clear();
        while !buffer.ends_with(END) {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", buffer.escape_ascii());
        answered += 1;
    }
    Ok(answered)
}
