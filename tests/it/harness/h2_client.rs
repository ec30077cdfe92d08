//! An HTTP/2 client, by a library that keeps the rules.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::task::JoinHandle;

use super::connection::Connection;
use super::record::within;
use super::response::Response;

/// One connection.
pub struct H2Client {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl H2Client {
    /// Speaks HTTP/2 over `connection` at once, as with prior knowledge or after ALPN.
    pub async fn over(connection: Connection) -> Self {
        let handshake = h2::client::handshake(connection.into_stream());
        let (requests, connection) = within("the HTTP/2 preface", handshake).await.expect("HTTP/2");
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Sends a head; the body follows through the stream.
    pub async fn open(&self, request: Request<()>) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut requests = within("room for a stream", self.requests.clone().ready()).await?;
        requests.send_request(request, false)
    }

    /// Sends a request without a body.
    pub async fn ask(&self, request: Request<()>) -> Result<ResponseFuture, h2::Error> {
        let mut requests = within("room for a stream", self.requests.clone().ready()).await?;
        Ok(requests.send_request(request, true)?.0)
    }

    /// Sends a request without a body and reads the answer.
    pub async fn send(&self, request: Request<()>) -> Result<Response, h2::Error> {
        read(self.ask(request).await?).await
    }

    /// GET, or the test fails.
    pub async fn get(&self, url: &str) -> Response {
        self.send(get(url)).await.unwrap_or_else(|e| panic!("GET {url}: {e}"))
    }

    /// Waits until the server closes the connection, and says how: none for a clean end.
    pub async fn closed(self) -> Option<h2::Error> {
        // Its own handle would keep the connection open.
        drop(self.requests);
        within("the connection to close", self.connection).await.expect("the connection's task").err()
    }
}

pub fn get(url: &str) -> Request<()> {
    Request::get(url).body(()).unwrap_or_else(|e| panic!("{url}: {e}"))
}

/// The head of an answer; its body is left unread.
#[track_caller]
pub fn head(response: ResponseFuture) -> impl Future<Output = Result<http::Response<RecvStream>, h2::Error>> {
    within("an answer's head", response)
}

/// Reads an answer to its end.
pub async fn read(response: ResponseFuture) -> Result<Response, h2::Error> {
    let (head, mut body) = head(response).await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = piece(&mut body).await {
        bytes.extend_from_slice(&data?);
    }
    let trailers = within("trailers", body.trailers()).await?.unwrap_or_else(HeaderMap::new);
    Ok(Response { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers, interim: Vec::new() })
}

/// The next piece of a body; none at its end.
pub async fn piece(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = within("a piece of the body", body.data()).await?;
    Some(data.and_then(|data| body.flow_control().release_capacity(data.len()).map(|()| data)))
}
