//! An upstream that does what no HTTP library would let it do.

use std::future::Future;
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::record::Record;

/// Runs one script for every connection; keeps every byte that came.
pub struct RawUpstream {
    pub address: SocketAddr,
    connections: Record<Received>,
}

/// What one connection brought.
#[derive(Clone, Debug)]
pub struct Received {
    /// Counts the connections of one upstream from 0.
    pub number: u64,
    pub bytes: Vec<u8>,
    /// edd closed it, or its sending side.
    pub closed: bool,
}

impl RawUpstream {
    /// `script` is called for each connection with its number, from 0. The connection closes when the
    /// script lets go of it.
    pub async fn start<F, S>(script: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(RawConnection) -> F + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let connections = Record::default();
        let record = connections.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { break };
                record.push(Received { number, bytes: Vec::new(), closed: false });
                let unread = BytesMut::new();
                tokio::spawn(script(RawConnection { number, stream, unread, record: record.clone() }));
            }
        });
        Self { address, connections }
    }

    /// Answers each request head with `answer`, on every connection, until edd closes it.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |mut connection| {
            let answer = answer.clone();
            async move {
                while connection.head().await.is_some() {
                    connection.send(&answer).await;
                }
            }
        })
        .await
    }

    /// A port that nobody listens on, and nobody else can take while this socket lives.
    pub fn refusing() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port on loopback");
        let address = socket.local_addr().expect("a bound socket has an address");
        (socket, address)
    }

    /// routes.yaml with one route, from every host and path to here.
    pub fn routes(&self) -> String {
        format!("routes: [{{host: '*', path: /, target: '{}'}}]\n", self.address)
    }

    pub fn connections(&self) -> Vec<Received> {
        self.connections.all()
    }

    /// All bytes that came, over all connections.
    pub fn bytes(&self) -> Vec<u8> {
        self.connections.all().into_iter().flat_map(|c| c.bytes).collect()
    }

    /// Waits until some connection satisfies `found`.
    #[track_caller]
    pub fn wait(&self, what: &str, found: impl Fn(&Received) -> bool) -> impl Future<Output = Received> {
        self.connections.wait(what, move |all| all.iter().find(|c| found(c)).cloned())
    }
}

/// The upstream's end of a connection that edd opened.
pub struct RawConnection {
    pub number: u64,
    stream: TcpStream,
    unread: BytesMut,
    record: Record<Received>,
}

impl RawConnection {
    fn note(&self, change: impl Fn(&mut Received)) {
        self.record.edit(|received| {
            if received.number == self.number {
                change(received);
            }
        });
    }

    /// Reads more; false at the end.
    pub async fn fill(&mut self) -> bool {
        let before = self.unread.len();
        match self.stream.read_buf(&mut self.unread).await {
            Ok(1..) => {
                let new = self.unread[before..].to_vec();
                self.note(|received| received.bytes.extend_from_slice(&new));
                true
            }
            Ok(0) | Err(_) => {
                self.note(|received| received.closed = true);
                false
            }
        }
    }

    /// The next request head, with its empty line; none when edd closes first.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                return Some(String::from_utf8_lossy(&self.unread.split_to(end + 4)).into_owned());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads `length` bytes of body; none when edd closes first.
    pub async fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.unread.split_to(length).to_vec())
    }

    /// Reads and forgets as many bytes of body, and keeps no record of them; returns how many came.
    pub async fn discard(&mut self, length: u64) -> u64 {
        let mut left = length - (self.unread.len() as u64).min(length);
        self.unread.clear();
        let mut block = vec![0; 256 * 1024];
        while left > 0 {
            match self.stream.read(&mut block).await {
                Ok(read @ 1..) => left = left.saturating_sub(read as u64),
                Ok(0) | Err(_) => break,
            }
        }
        length - left
    }

    /// Writes; edd may have gone, which the script learns when it next reads.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes).await;
    }

    /// Writes; false when edd has gone.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Ends the sending direction and keeps the other.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Answers no more, and reads until edd gives up.
    pub async fn hang(&mut self) {
        while self.fill().await {}
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a connected socket takes options");
    }
}
