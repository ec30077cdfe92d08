//! Asking a running gateway: plain HTTP to its admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Builder;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::exit::{Code, Failure};

/// Longest wait for the head of an answer, and for the whole of one that has an end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer read whole, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Runs `work` on a runtime of one thread, as the short verbs need.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Sends a GET and returns the answer as its head arrives.
pub async fn open(admin: SocketAddr, path: &str) -> Result<Response<Incoming>, Failure> {
    send(admin, Request::get(path), Bytes::new()).await
}

async fn send(admin: SocketAddr, request: Builder, body: Bytes) -> Result<Response<Incoming>, Failure> {
    let nobody = |error: &dyn std::fmt::Display| {
        Failure::unavailable(format!(
            "no gateway answers at {admin}: {error}\nhint: start one with `edd up`, or say where it is with --admin"
        ))
    };
    let ask = async {
        let stream = TcpStream::connect(admin).await.map_err(|error| nobody(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| nobody(&error))?;
        tokio::spawn(connection);
        let request = request
            .header(hyper::header::HOST, admin.to_string())
            .header(hyper::header::ACCEPT, "application/json")
            .body(Full::new(body))?;
        sender.send_request(request).await.map_err(|error| nobody(&error))
    };
    tokio::time::timeout(ANSWER_TIMEOUT, ask).await.map_err(|_| nobody(&"it does not answer in time"))?
}

/// Sends a GET and returns status and body.
pub async fn get(admin: SocketAddr, path: &str) -> Result<(u16, Bytes), Failure> {
    read(open(admin, path).await?).await
}

async fn read(response: Response<Incoming>) -> Result<(u16, Bytes), Failure> {
    let status = response.status().as_u16();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect());
    let body = body.await.map_err(|_| Failure::unavailable("the gateway's answer does not come to its end in time"))?;
    let body = body.map_err(|error| Failure::unavailable(format!("the gateway's answer broke off: {error}")))?;
    Ok((status, body.to_bytes()))
}

/// Sends a POST of `body` and decodes the JSON of a successful answer.
pub async fn post(admin: SocketAddr, path: &str, body: &serde_json::Value) -> Result<serde_json::Value, Failure> {
    let request = Request::post(path).header(hyper::header::CONTENT_TYPE, "application/json");
    done(send(admin, request, body.to_string().into()).await?).await
}

/// Sends a DELETE and decodes the JSON of a successful answer.
pub async fn delete(admin: SocketAddr, path: &str) -> Result<serde_json::Value, Failure> {
    done(send(admin, Request::delete(path), Bytes::new()).await?).await
}

async fn done(response: Response<Incoming>) -> Result<serde_json::Value, Failure> {
    match read(response).await? {
        (200..=299, body) => Ok(serde_json::from_slice(&body)?),
        (status, body) => Err(refusal(status, &body)),
    }
}

/// Sends a GET and decodes the JSON of a successful answer.
pub async fn get_json<T: serde::de::DeserializeOwned>(admin: SocketAddr, path: &str) -> Result<T, Failure> {
    let (status, body) = get(admin, path).await?;
    if status == 200 {
        return Ok(serde_json::from_slice(&body)?);
    }
    Err(refusal(status, &body))
}

/// What a problem document says.
pub fn refusal(status: u16, body: &[u8]) -> Failure {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = problem["detail"].as_str().map_or_else(|| format!("the gateway answered {status}"), str::to_owned);
    Failure::new(Code::Failure, detail)
}

/// `text` as the value of a query parameter.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
