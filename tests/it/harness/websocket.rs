//! A WebSocket client, by a library that keeps the rules.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::connection::{Connection, Stream};
use super::edd::Edd;
use super::record::within;

/// An open WebSocket to an upstream's `/ws`.
pub struct WebSocket {
    socket: WebSocketStream<Box<dyn Stream>>,
    /// Of the request that opened it.
    pub request_id: String,
}

impl WebSocket {
    /// Opens `ws://host/path` over `connection`, or tells with what status it was refused.
    pub async fn open(connection: Connection, host: &str, path: &str) -> Result<Self, u16> {
        let handshake = tokio_tungstenite::client_async(format!("ws://{host}{path}"), connection.into_stream());
        match within("a WebSocket", handshake).await {
            Ok((socket, response)) => {
                let id = response.headers().get("x-request-id").expect("an id on every answer");
                Ok(Self { socket, request_id: id.to_str().expect("ASCII").to_owned() })
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("open ws://{host}{path}: {error}"),
        }
    }

    pub async fn send(&mut self, message: Message) {
        within("room for a message", self.socket.send(message)).await.expect("an open socket");
    }

    /// The next message; none when the socket was closed, with or without a word.
    pub async fn next(&mut self) -> Option<Message> {
        match within("a message or the end", self.socket.next()).await {
            Some(Ok(Message::Close(_))) | Some(Err(_)) | None => None,
            Some(Ok(message)) => Some(message),
        }
    }

    /// Sends a message and awaits its echo.
    pub async fn echo(&mut self, text: &str) {
        self.send(Message::text(text)).await;
        assert_eq!(self.next().await, Some(Message::text(text)));
    }

    /// Closes it as browsers do, and waits until it is closed.
    pub async fn close(mut self) {
        within("room for a close", self.socket.close(None)).await.expect("an open socket");
        while self.next().await.is_some() {}
    }
}

impl Edd {
    /// A WebSocket to `/ws` of this host.
    pub async fn websocket(&self, host: &str) -> WebSocket {
        WebSocket::open(self.connect().await, host, "/ws").await.expect("a WebSocket")
    }
}
