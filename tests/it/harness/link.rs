//! A network between a process and a server, that can be cut in either direction.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Bytes passed on in one go.
const BLOCK_BYTES: usize = 16 * 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    FromServer,
}

/// Passes TCP connections on to a server. What is sent in a direction that is cut arrives when it is mended, as TCP
/// repeats it until then; nobody is told that anything is wrong.
pub struct Link {
    /// The server's URL, by way of this.
    pub url: String,
    to_server: watch::Sender<bool>,
    from_server: watch::Sender<bool>,
    accepting: AbortHandle,
}

impl Link {
    /// To the server at `url`, such as `postgres://user@127.0.0.1:5432/name`.
    pub async fn to(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (place, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let server = place.rsplit('@').next().unwrap_or(place);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let here = listener.local_addr().expect("an address").to_string();
        let (to_server, from_server) = (watch::Sender::new(true), watch::Sender::new(true));
        let ways = (to_server.subscribe(), from_server.subscribe());
        let address = server.parse().unwrap_or_else(|error| panic!("{server}: {error}"));
        let accepting = tokio::spawn(accept(listener, address, ways)).abort_handle();
        Self { url: format!("{scheme}://{}{path}", place.replace(server, &here)), to_server, from_server, accepting }
    }

    pub fn cut(&self, way: Way) {
        self.way(way).send_replace(false);
    }

    pub fn mend(&self, way: Way) {
        self.way(way).send_replace(true);
    }

    fn way(&self, way: Way) -> &watch::Sender<bool> {
        match way {
            Way::ToServer => &self.to_server,
            Way::FromServer => &self.from_server,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Open = watch::Receiver<bool>;

async fn accept(listener: TcpListener, server: SocketAddr, (to_server, from_server): (Open, Open)) {
    // Those that are passed on end with this.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let ways = (to_server.clone(), from_server.clone());
        connections.spawn(connect(client, server, ways));
    }
}

async fn connect(client: TcpStream, server: SocketAddr, (to_server, from_server): (Open, Open)) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    // Each lasts until its side has ended, and takes the other with it if it breaks.
    tokio::try_join!(pass(client_read, server_write, to_server), pass(server_read, client_write, from_server))?;
    Ok(())
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_open: Open) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let bytes = from.read(&mut block).await?;
        is_open.wait_for(|is_open| *is_open).await.map_err(io::Error::other)?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        to.write_all(&block[..bytes]).await?;
    }
}
