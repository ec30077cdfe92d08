//! The auth service as other processes reach it: over HTTP, with the key that services share.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use edd_control::access_token::{DEFAULT_ISSUER, KeySet};
use edd_control::caller::{KeySource, LoadError};
use edd_control::revocation::Revocation;
use edd_control::revocation::feed::{RevocationPage, RevocationSource};
use edd_events::clock::micros;
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

use crate::exit::Failure;
use crate::secret::Secret;

/// Longest wait for a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes. A page of users has a tenth of it.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// What the service shows on a wrong key, and we in our error.
const MAX_SHOWN_CHARS: usize = 200;

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
    async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, OwnerError> {
        let body = self.fetch(path_and_query).await?;
        serde_json::from_slice(&body)
            .map_err(|error| OwnerError::Invalid(format!("{path_and_query}: {error} in {}", shown(&body))))
    }

    async fn fetch(&self, path_and_query: &str) -> Result<Bytes, OwnerError> {
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
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(OwnerError::Invalid(format!(
                "{path_and_query}: {status}: SERVICE_API_KEY is not the one that the auth service has"
            ))),
            _ => Err(away(&format!("{path_and_query}: {status}: {}", shown(&body)))),
        }
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

#[async_trait]
impl KeySource for RemoteAuth {
    async fn load(&self) -> Result<KeySet, LoadError> {
        let json = self.fetch("/.well-known/jwks.json").await.map_err(|error| LoadError(error.to_string()))?;
        KeySet::from_json(DEFAULT_ISSUER, &json).map_err(|error| LoadError(format!("{}: {error}", self.base)))
    }
}

/// `GET /api/sessions/revoked`.
#[derive(Deserialize)]
struct Revoked {
    revoked: Vec<RevokedRow>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RevokedKind {
    Session,
    ApiToken,
    User,
}

#[derive(Deserialize)]
struct RevokedRow {
    kind: RevokedKind,
    record_id: String,
    user_id: UserId,
    version: i64,
    expires_at: String,
}

impl RevokedRow {
    fn read(self) -> Result<Revocation, String> {
        let Self { kind, record_id: session_id, user_id: user, version, expires_at } = self;
        if matches!(kind, RevokedKind::User) {
            return Ok(Revocation::User { user, version });
        }
        let at = humantime::parse_rfc3339(&expires_at).map_err(|error| format!("expires_at {expires_at}: {error}"))?;
        let expires_at = Some(micros(at.duration_since(UNIX_EPOCH).unwrap_or_default()));
        Ok(Revocation::Session { session_id, user: Some(user), expires_at, version })
    }
}

#[async_trait]
impl RevocationSource for RemoteAuth {
    async fn revoked(&self, after: i64, most: u32) -> Result<RevocationPage, OwnerError> {
        let page: Revoked = self.get(&format!("/api/sessions/revoked?after={after}&limit={most}")).await?;
        let invalid = |error: String| OwnerError::Invalid(format!("/api/sessions/revoked: {error}"));
        let revocations = page.revoked.into_iter().map(RevokedRow::read).collect::<Result<_, _>>().map_err(invalid)?;
        let next = page.next_cursor.map(|next| next.parse().map_err(|_| invalid(format!("next_cursor {next}"))));
        Ok(RevocationPage { revocations, next: next.transpose()? })
    }
}
