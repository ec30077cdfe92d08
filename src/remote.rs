//! The auth service as other processes reach it: over HTTP, with the key that services share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edd_events::projection::{Digest, Owner, OwnerError, Page};
use edd_events::user_cache;
use edd_proto::UserId;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cli::OwnerArgs;
use crate::exit::Failure;
use crate::plane::Plane;
use crate::secret::Secret;

/// Longest wait for a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes. A page of users has a tenth of it.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// What the service shows on a wrong key, and we in our error.
const MAX_SHOWN_CHARS: usize = 200;

impl OwnerArgs {
    /// The owner of the users, if it is known where it is and by which key.
    pub fn remote(&self, plane: &Plane) -> Result<Option<Arc<dyn Owner>>, Failure> {
        match (&self.auth_service_url, &plane.service_key) {
            (Some(url), Some(key)) => Ok(Some(Arc::new(RemoteAuth::new(&url.to_string(), key.clone())?))),
            _ => Ok(None),
        }
    }
}

/// A client of the auth service; clones share its connections.
#[derive(Clone)]
pub struct RemoteAuth {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// Without a slash at its end.
    base: String,
    key: Secret,
}

impl fmt::Debug for RemoteAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteAuth").field("base", &self.base).finish_non_exhaustive()
    }
}

impl RemoteAuth {
    pub fn new(base: &str, key: Secret) -> Result<Self, Failure> {
        let tls = HttpsConnectorBuilder::new().with_native_roots();
        let tls = tls.map_err(|error| Failure::config(format!("the system's certificate authorities: {error}")))?;
        let connector = tls.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), key })
    }

    /// What a page of the service says, as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, OwnerError> {
        let away = |error: &dyn fmt::Display| OwnerError::Unavailable(format!("{}: {error}", self.base));
        let uri: Uri = format!("{}{path_and_query}", self.base).parse().map_err(|error| away(&error))?;
        let request = Request::get(uri).header("accept", "application/json").header("x-service-key", self.key.reveal());
        let request = request.body(Empty::new()).map_err(|error| away(&error))?;
        let ask = async {
            let response = self.client.request(request).await.map_err(|error| away(&with_causes(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| away(&error))?.to_bytes();
            Ok((status, body))
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask).await;
        let (status, body) =
            answer.map_err(|_| away(&format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))??;
        let shown = || String::from_utf8_lossy(&body).chars().take(MAX_SHOWN_CHARS).collect::<String>();
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map_err(|error| OwnerError::Invalid(format!("{path_and_query}: {error} in {}", shown()))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(OwnerError::Invalid(format!(
                "{path_and_query}: {status}: SERVICE_API_KEY is not the one that the auth service has"
            ))),
            _ => Err(away(&format!("{path_and_query}: {status}: {}", shown()))),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// `GET /api/users`.
#[derive(Deserialize)]
struct Users {
    users: Vec<User>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct User {
    user_id: UserId,
    id: i64,
    #[serde(default)]
    username: String,
    #[serde(default)]
    display_name: String,
    version: i64,
    deleted: bool,
}

#[derive(Deserialize)]
struct UsersDigest {
    digest: String,
}

#[async_trait]
impl Owner for RemoteAuth {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        // The cursor is a user's id, whose characters mean nothing in a URL.
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        let users: Users = self.get(&format!("/api/users?deleted=true&limit={most}{after}")).await?;
        let entry = |user: User| {
            let names = (!user.deleted).then_some((user.username, user.display_name));
            user_cache::entry(user.user_id, user.version, Some(user.id), names)
        };
        Ok(Page { entries: users.users.into_iter().map(entry).collect(), more: users.next_cursor.is_some() })
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        let answer: UsersDigest = self.get("/api/users/digest").await?;
        answer.digest.parse().map_err(|error| OwnerError::Invalid(format!("/api/users/digest: {error}")))
    }
}
