//! A WebSocket to a service.

use edd_control::compute::remote_session::{Beat, MAX_FRAME_BYTES, Socket};
use edd_events::projection::OwnerError;
use futures_util::{SinkExt, TryStreamExt};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::{ANSWER_TIMEOUT, Remote, with_causes};

impl Remote {
    /// Opens the one at `path`.
    pub(super) async fn socket(&self, path: &str) -> Result<impl Socket + use<>, OwnerError> {
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, async {
            let key = generate_key();
            let mut response = self.ask_for_socket(path, &key).await?;
            let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.refused(path, response.status(), b""));
            }
            if accepted.is_none_or(|accepted| *accepted != derive_accept_key(key.as_bytes())) {
                return Err(self.away(&format!("{path}: the answer is no WebSocket's")));
            }
            hyper::upgrade::on(&mut response).await.map_err(|error| self.away(&with_causes(&error)))
        });
        let opened = opened.await;
        let opened = opened.map_err(|_| self.away(&format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))??;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES))
            .max_write_buffer_size(4 * MAX_FRAME_BYTES);
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(opened), Role::Client, Some(limits)).await;
        let heard = socket.map_ok(|message| match message {
            Message::Binary(bytes) => Some(bytes),
            // No frame is empty.
            Message::Text(_) => Some(Bytes::new()),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
        });
        Ok(heard.with(|beat: Beat| std::future::ready(Ok(beat.map_or(Message::Ping(Bytes::new()), Message::Binary)))))
    }

    async fn ask_for_socket(&self, path: &str, key: &str) -> Result<Response<hyper::body::Incoming>, OwnerError> {
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(|error| self.away(&error))?;
        let request = Request::get(uri)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key)
            .header("x-service-key", self.key.reveal())
            .body(Full::new(Bytes::new()));
        let request = request.map_err(|error| self.away(&error))?;
        self.client.request(request).await.map_err(|error| self.away(&with_causes(&error)))
    }
}
