//! HTTP for `object_store`: the client that all of edd has, with every wait bounded.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use tokio::time::{Instant, Sleep};

use super::StorageError;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the head of an answer. The request may be a part of several MiB on a slow line.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for more of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection is kept that nobody uses. Servers close theirs after some 20 s to a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// A client; clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Connector(Client<HttpsConnector<HttpConnector>, HttpRequestBody>);

impl Connector {
    pub(super) fn new() -> Result<Self, StorageError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new().with_native_roots();
        let tls =
            tls.map_err(|error| StorageError::Settings(format!("the system's certificate authorities: {error}")))?;
        let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self(client))
    }

    /// The text at a URL, which is signed.
    pub(super) async fn get(&self, url: &str) -> Result<String, StorageError> {
        let request = http::Request::get(url).body(HttpRequestBody::empty()).map_err(StorageError::away)?;
        let response = self.call(request).await.map_err(StorageError::away)?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(StorageError::away)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() { Ok(text) } else { Err(StorageError::away(format!("S3 answers {status}: {text}"))) }
    }
}

impl object_store::client::HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = tokio::time::timeout(ANSWER_TIMEOUT, self.0.request(request)).await;
        let response = response.map_err(|_| late("no answer", ANSWER_TIMEOUT))?.map_err(|error| {
            // Whatever we send may be sent again: objects are written under names of their own.
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, WithCauses::of(&error))
        })?;
        Ok(response.map(|body| HttpResponseBody::new(Patient { body, deadline: None })))
    }
}

fn late(what: &str, after: Duration) -> HttpError {
    let text = format!("{what} within {} s", after.as_secs());
    HttpError::new(HttpErrorKind::Timeout, io::Error::new(ErrorKind::TimedOut, text))
}

/// An error that says its causes, too: the client's own says "client error (Connect)" and no more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WithCauses(String);

impl WithCauses {
    fn of(error: &dyn Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        Self(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
    }
}

/// A body that is not waited for without end. Time in which nobody asks for more does not count.
struct Patient<B> {
    body: B,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.deadline = None;
            let broken = |error| HttpError::new(HttpErrorKind::Interrupted, WithCauses::of(&error));
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let deadline =
            self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + READ_TIMEOUT)));
        deadline.as_mut().poll(cx).map(|()| Some(Err(late("no more of an answer", READ_TIMEOUT))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
