//! Connections on which a protocol switch is asked for.
//!
//! pingora tells its upstream half that a request has ended, and that half takes the word of an end
//! for the end of the stream once it has seen a 101. A target that answers at once may be read before
//! the word arrives, and the WebSocket would be closed as it opens. So the first read after a write
//! lets everything else go first.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::ext;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Makes requests through `peer` go over such connections, which no other request shares.
pub fn prepare(peer: &mut HttpPeer) {
    peer.options.custom_l4 = Some(Arc::new(Connector));
    // Part of the key of pingora's pool, where connections of the other kind lie.
    peer.group_key = !peer.group_key;
}

#[derive(Debug)]
struct Connector;

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> pingora_error::Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Err(Error::explain(ErrorType::InternalError, "a target that has no IP address"));
        };
        let stream = ext::connect(address, None).await?;
        let socket = UpgradeSocket { stream, yields: false };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

#[derive(Debug)]
struct UpgradeSocket {
    stream: TcpStream,
    /// The next read waits for a turn.
    yields: bool,
}

impl VirtualSocket for UpgradeSocket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("{other:?}"))),
        }
    }
}

impl AsyncRead for UpgradeSocket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.yields) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for UpgradeSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.yields = true;
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
