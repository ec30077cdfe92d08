//! Services of other processes: over HTTP, with the key that services share.

mod auth;
mod compute;
mod socket;

use std::fmt;
use std::time::Duration;

use edd_events::projection::OwnerError;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

pub use auth::RemoteAuth;
pub use compute::RemoteCompute;

use crate::exit::Failure;
use crate::secret::Secret;

/// Longest wait for a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes. A page of rows has a tenth of it.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// What the service shows on a wrong key, and we in our error.
const MAX_SHOWN_CHARS: usize = 200;

/// A client of one service; clones share its connections.
#[derive(Clone)]
struct Remote {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without a slash at its end.
    base: String,
    key: Secret,
    service: &'static str,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("service", &self.service).field("base", &self.base).finish_non_exhaustive()
    }
}

impl Remote {
    fn new(service: &'static str, base: &str, key: Secret) -> Result<Self, Failure> {
        let tls = HttpsConnectorBuilder::new().with_native_roots();
        let tls = tls.map_err(|error| Failure::config(format!("the system's certificate authorities: {error}")))?;
        let connector = tls.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), key, service })
    }

    /// What a page of the service says, as JSON.
    async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, OwnerError> {
        let body = self.fetch(path_and_query).await?;
        serde_json::from_slice(&body)
            .map_err(|error| OwnerError::Invalid(format!("{path_and_query}: {error} in {}", shown(&body))))
    }

    async fn fetch(&self, path_and_query: &str) -> Result<Bytes, OwnerError> {
        match self.ask(Method::GET, path_and_query, Bytes::new()).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, body) => Err(self.refused(path_and_query, status, &body)),
        }
    }

    /// Sends JSON, empty for nothing. What the service answers, whatever its status.
    async fn ask(&self, method: Method, path: &str, json: Bytes) -> Result<(StatusCode, Bytes), OwnerError> {
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(|error| self.away(&error))?;
        let mut request = Request::builder().method(method).uri(uri).header("accept", "application/json");
        if !json.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.header("x-service-key", self.key.reveal()).body(Full::new(json));
        let request = request.map_err(|error| self.away(&error))?;
        let ask = async {
            let response = self.client.request(request).await.map_err(|error| self.away(&with_causes(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| self.away(&error))?.to_bytes()))
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask).await;
        answer.map_err(|_| self.away(&format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))?
    }

    fn refused(&self, path: &str, status: StatusCode, body: &[u8]) -> OwnerError {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => OwnerError::Invalid(format!(
                "{path}: {status}: SERVICE_API_KEY is not the one that the {} service has",
                self.service
            )),
            _ => self.away(&format!("{path}: {status}: {}", shown(body))),
        }
    }

    fn away(&self, error: &dyn fmt::Display) -> OwnerError {
        OwnerError::Unavailable(format!("{}: {error}", self.base))
    }
}

/// The beginning of an answer that was not expected.
fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(MAX_SHOWN_CHARS).collect()
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
