//! The auth service: the users, the keys of access tokens, what was revoked.

use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use edd_control::access_token::{DEFAULT_ISSUER, KeySet};
use edd_control::caller::{KeySource, LoadError};
use edd_control::revocation::Revocation;
use edd_control::revocation::feed::{RevocationPage, RevocationSource};
use edd_events::clock::micros;
use edd_events::projection::{Digest, Owner, OwnerError, Page};
use edd_events::user_cache;
use edd_proto::UserId;
use serde::Deserialize;

use super::Remote;
use crate::exit::Failure;
use crate::secret::Secret;

/// A client of the auth service; clones share its connections.
#[derive(Clone, Debug)]
pub struct RemoteAuth(Remote);

impl RemoteAuth {
    pub fn new(base: &str, key: Secret) -> Result<Self, Failure> {
        Ok(Self(Remote::new("auth", base, key)?))
    }
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
        let users: Users = self.0.get(&format!("/api/users?deleted=true&limit={most}{after}")).await?;
        let entry = |user: User| {
            let names = (!user.deleted).then_some((user.username, user.display_name));
            user_cache::entry(user.user_id, user.version, Some(user.id), names)
        };
        Ok(Page { entries: users.users.into_iter().map(entry).collect(), more: users.next_cursor.is_some() })
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        let answer: UsersDigest = self.0.get("/api/users/digest").await?;
        answer.digest.parse().map_err(|error| OwnerError::Invalid(format!("/api/users/digest: {error}")))
    }
}

#[async_trait]
impl KeySource for RemoteAuth {
    async fn load(&self) -> Result<KeySet, LoadError> {
        let json = self.0.fetch("/.well-known/jwks.json").await.map_err(|error| LoadError(error.to_string()))?;
        KeySet::from_json(DEFAULT_ISSUER, &json).map_err(|error| LoadError(format!("{}: {error}", self.0.base)))
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
        let page: Revoked = self.0.get(&format!("/api/sessions/revoked?after={after}&limit={most}")).await?;
        let invalid = |error: String| OwnerError::Invalid(format!("/api/sessions/revoked: {error}"));
        let revocations = page.revoked.into_iter().map(RevokedRow::read).collect::<Result<_, _>>().map_err(invalid)?;
        let next = page.next_cursor.map(|next| next.parse().map_err(|_| invalid(format!("next_cursor {next}"))));
        Ok(RevocationPage { revocations, next: next.transpose()? })
    }
}
