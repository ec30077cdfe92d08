//! The share over HTTP.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::ServerArgs;
use super::localhost::Resolver;
use super::trouble::Trouble;
use crate::admin_client::encode;
use crate::exit::Failure;
use crate::secret::{self, Secret};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the head of an answer once all of the request is sent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer read whole, in bytes. A page of a thousand entries is a tenth of it.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Entries of a page.
const PAGE: u32 = 1000;
const NEXT_CURSOR: &str = "x-next-cursor";

/// What is sent.
pub type Payload = BoxBody<Bytes, io::Error>;

/// One installation. Clones share connections.
#[derive(Clone)]
pub struct Server {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Payload>,
    /// Without a slash at its end.
    pub base: String,
    token: Option<Secret>,
    was_reached: Arc<AtomicBool>,
}

impl Server {
    pub fn new(args: &ServerArgs) -> Result<Self, Failure> {
        let base = args.url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|error| Failure::config(format!("--url {base}: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(Failure::config(format!("--url {base}: write it as https://cloud.example.org")));
        }
        let token = secret::resolve("EDD_TOKEN", args.token.clone(), args.token_file.clone())?;
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new());
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new().with_native_roots();
        let tls = tls.map_err(|error| Failure::config(format!("the system's certificate authorities: {error}")))?;
        let client =
            Client::builder(TokioExecutor::new()).build(tls.https_or_http().enable_http1().wrap_connector(tcp));
        Ok(Self { client, base, token, was_reached: Arc::default() })
    }

    /// Whether it has answered anything.
    pub fn was_reached(&self) -> bool {
        self.was_reached.load(Ordering::Relaxed)
    }

    /// A request with our credentials. `path` may be a URL of the same server.
    pub fn request(&self, method: Method, path: &str) -> Builder {
        let builder = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let builder = builder.header(ACCEPT, "application/json, application/problem+json");
        match &self.token {
            Some(token) => builder.header(AUTHORIZATION, format!("Bearer {}", token.reveal())),
            None => builder,
        }
    }

    /// Sends it and waits for the head of the answer, as long as that takes.
    pub async fn open(&self, request: Request<Payload>) -> Result<Response<Incoming>, Trouble> {
        let base = &self.base;
        let answer = self.client.request(request).await;
        self.was_reached.fetch_or(answer.is_ok(), Ordering::Relaxed);
        answer.map_err(|error| match Trouble::broken(&error) {
            Trouble::Broken(message) => Trouble::Broken(format!("{base}: {message}")),
            other => other,
        })
    }

    /// The same; what is no success is an error.
    pub async fn send(&self, request: Request<Payload>) -> Result<Response<Incoming>, Trouble> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.open(request)).await;
        let late = |_| Trouble::Broken(format!("{}: no answer within {} s", self.base, ANSWER_TIMEOUT.as_secs()));
        succeeded(answer.map_err(late)??).await
    }

    /// Sends JSON, if there is any, and reads the JSON that is answered.
    pub async fn ask(&self, method: Method, path: &str, json: Option<&Value>) -> Result<Value, Trouble> {
        Ok(self.exchange(method, path, json).await?.1)
    }

    /// All pages of a list whose `path` has a query already.
    pub async fn pages<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Trouble> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let next = cursor.map(|cursor| format!("&cursor={}", encode(&cursor))).unwrap_or_default();
            let (headers, page) = self.exchange(Method::GET, &format!("{path}&limit={PAGE}{next}"), None).await?;
            let page: Vec<T> = serde_json::from_value(page).map_err(Failure::from)?;
            let is_empty = page.is_empty();
            all.extend(page);
            cursor = headers.get(NEXT_CURSOR).and_then(|value| value.to_str().ok()).map(str::to_owned);
            if cursor.is_none() || is_empty {
                return Ok(all);
            }
        }
    }

    async fn exchange(&self, method: Method, path: &str, json: Option<&Value>) -> Result<(HeaderMap, Value), Trouble> {
        let request = self.request(method, path);
        let request = match json {
            Some(json) => request.header(CONTENT_TYPE, "application/json").body(full(json.to_string().into())),
            None => request.body(nothing()),
        };
        let answer = self.send(request.map_err(Failure::from)?).await?;
        let headers = answer.headers().clone();
        let body = whole(answer).await?;
        let value = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
        Ok((headers, value.map_err(Failure::from)?))
    }
}

/// An answer that is a success; else what it says.
pub async fn succeeded(answer: Response<Incoming>) -> Result<Response<Incoming>, Trouble> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(answer);
    }
    Err(Trouble::of(status, &whole(answer).await?))
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, Trouble> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, body).await;
    let body = body.map_err(|_| Trouble::Broken("the answer does not come to its end".to_owned()))?;
    Ok(body.map_err(|error| Trouble::broken(&*error))?.to_bytes())
}

pub fn nothing() -> Payload {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub fn full(bytes: Bytes) -> Payload {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// The SHA-256 that an answer's entity tag is.
pub fn checksum(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(hyper::header::ETAG)?.to_str().ok()?;
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| digits.to_ascii_lowercase())
}
