//! Sessions and API tokens that ended before their time, and users who are gone: what an access token is held
//! against wherever it is read.
//!
//! The set is in memory, and a look-up takes no lock. It is fed by the events of the auth service: by the durable
//! consumer, which writes the table behind it, and by each process's own follower, which is at once; see [`feed`]. A
//! version gates every entry, so the order of events does not matter, nor how often one comes.

pub mod feed;
mod mark;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use edd_events::clock::{Micros, micros};
use edd_events::consumer::{Failure, Handler};
use edd_events::database::{Database, Step};
use edd_events::message::Message;
use edd_proto::auth::{SessionInvalidated, UserDeleted};
use edd_proto::{Encoding, Event, EventKind, InvalidId, NamesUser, UserId};
use sqlx::{AnyConnection, Row};

/// The tables behind the set, in the database of every service that reads access tokens.
pub const STEP: Step = Step {
    version: 1900,
    name: "revocations",
    sql: "
-- Sessions and API tokens by the id of their record. Without expires_at: for ever.
CREATE TABLE revoked_sessions (
    session_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    expires_at BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX revoked_sessions_expiry ON revoked_sessions (expires_at) WHERE expires_at IS NOT NULL;

-- Users who are gone, and all of their tokens with them. Kept: an id is never given again.
CREATE TABLE revoked_users (
    user_id TEXT PRIMARY KEY,
    version BIGINT NOT NULL
);

-- One row, once the tables have been complete: up to where the stream of events is in them. Without epoch: not known.
CREATE TABLE revocation_mark (
    id BIGINT PRIMARY KEY,
    epoch BIGINT,
    seq BIGINT NOT NULL,
    snapshots BIGINT NOT NULL
);
",
};

/// The events that feed the set, as filters of subjects.
pub const SUBJECTS: &[&str] = &["auth.session.*.invalidated", "auth.user.*.deleted"];

/// How long a revocation outlives its session: longer than any access token that the session's last moment gave out.
pub const KEPT_AFTER_EXPIRY: std::time::Duration = std::time::Duration::from_secs(3600);

/// Rows that are read, or removed, in one go.
const PAGE_ROWS: i64 = 5000;

/// What is no longer good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// A session or an API token.
    Session {
        /// The id of its record.
        session_id: String,
        /// Whose it was, if the event says so.
        user: Option<UserId>,
        /// When it would have ended by itself; none: never.
        expires_at: Option<Micros>,
        /// Of the session, after the change.
        version: i64,
    },
    /// Everything that a user ever had.
    User {
        user: UserId,
        /// Of the user, after the change.
        version: i64,
    },
}

impl Revocation {
    /// What `message` revokes; none if it is about something else.
    ///
    /// # Errors
    /// It is an event that revokes, and nobody can tell what: [`Failure::Permanent`].
    pub fn of(message: &Message) -> Result<Option<Self>, Failure> {
        match EventKind::of(&message.subject) {
            Ok((SessionInvalidated::KIND, _)) => Self::of_session(message).map(Some),
            Ok((UserDeleted::KIND, Some(id))) => Self::of_user(message, id).map(Some),
            _ => Ok(None),
        }
    }

    fn of_session(message: &Message) -> Result<Self, Failure> {
        let event: SessionInvalidated = decode(message)?;
        let user = event.user().map_err(permanent)?.uid;
        // A moment that the clock cannot tell is one that does not come.
        let expires_at = event.expires_at.and_then(|at| {
            let since = std::time::SystemTime::try_from(at).ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            Some(micros(since))
        });
        if event.session_id.is_empty() {
            return Err(Failure::Permanent("the event names no session".to_owned()));
        }
        Ok(Self::Session { session_id: event.session_id, user, expires_at, version: message.version })
    }

    fn of_user(message: &Message, id: &str) -> Result<Self, Failure> {
        let event: UserDeleted = decode(message)?;
        let named = event.user().map_err(permanent)?.uid;
        let user = named.map_or_else(|| id.parse::<UserId>(), Ok).map_err(permanent)?;
        Ok(Self::User { user, version: message.version })
    }

    /// Writes it to the table behind the set, in the caller's transaction.
    ///
    /// # Errors
    /// The database fails.
    pub async fn store(&self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        let statement = match self {
            Self::Session { session_id, user, expires_at, version } => {
                let upsert = sqlx::query(
                    "INSERT INTO revoked_sessions (session_id, user_id, expires_at, version) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (session_id) DO UPDATE SET user_id = excluded.user_id, \
                     expires_at = excluded.expires_at, version = excluded.version \
                     WHERE excluded.version > revoked_sessions.version",
                );
                let user = user.map(|user| user.to_string()).unwrap_or_default();
                upsert.bind(session_id).bind(user).bind(*expires_at).bind(*version)
            }
            Self::User { user, version } => {
                let insert =
                    sqlx::query("INSERT INTO revoked_users (user_id, version) VALUES ($1, $2) ON CONFLICT DO NOTHING");
                insert.bind(user.to_string()).bind(*version)
            }
        };
        statement.execute(connection).await.map(drop)
    }
}

fn decode<M: edd_proto::Message>(message: &Message) -> Result<M, Failure> {
    let encoding = Encoding::from_content_type(Some(&message.content_type)).map_err(permanent)?;
    encoding.decode(&message.payload).map_err(permanent)
}

fn permanent(error: impl fmt::Display) -> Failure {
    Failure::Permanent(error.to_string())
}

/// What is revoked, at one moment; a copy shares all but what changes in it.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    sessions: imbl::HashMap<Arc<str>, Ended>,
    users: imbl::HashSet<UserId>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    expires_at: Option<Micros>,
    version: i64,
}

/// The set; clones share it. `Default` is one that is known to be empty.
#[derive(Clone, Debug, Default)]
pub struct Revocations(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    /// Nobody has told yet what was revoked before this service came to be.
    is_incomplete: AtomicBool,
}

impl Revocations {
    /// The set that `database` has. Needs the tables of [`STEP`].
    ///
    /// # Errors
    /// The database fails.
    pub async fn load(database: &Database) -> sqlx::Result<Self> {
        let set = Self::default();
        set.0.is_incomplete.store(mark::read(database).await?.is_none(), Ordering::Release);
        set.refresh(database).await?;
        Ok(set)
    }

    /// Whether it has ever been complete. Until then a token that is not in it may be revoked all the same.
    pub fn is_complete(&self) -> bool {
        !self.0.is_incomplete.load(Ordering::Acquire)
    }

    fn set_complete(&self) {
        self.0.is_incomplete.store(false, Ordering::Release);
    }

    /// Adds what `database` has besides: after the events between were missed.
    ///
    /// # Errors
    /// The database fails; what was read by then is in the set.
    pub async fn refresh(&self, database: &Database) -> sqlx::Result<()> {
        let mut last = String::new();
        loop {
            let select = sqlx::query(
                "SELECT session_id, expires_at, version FROM revoked_sessions WHERE session_id > $1 \
                 ORDER BY session_id LIMIT $2",
            );
            let rows = select.bind(&last).bind(PAGE_ROWS).fetch_all(database.reader()).await?;
            let Some(row) = rows.last() else { break };
            last = row.try_get("session_id")?;
            let revoked: Vec<_> = rows.iter().map(session).collect::<sqlx::Result<_>>()?;
            self.insert_all(&revoked);
        }
        last.clear();
        loop {
            let select =
                sqlx::query("SELECT user_id, version FROM revoked_users WHERE user_id > $1 ORDER BY user_id LIMIT $2");
            let rows = select.bind(&last).bind(PAGE_ROWS).fetch_all(database.reader()).await?;
            let Some(row) = rows.last() else { break };
            last = row.try_get("user_id")?;
            let revoked: Vec<_> = rows.iter().map(user).collect::<sqlx::Result<_>>()?;
            self.insert_all(&revoked);
        }
        Ok(())
    }

    /// Whether a token of `user` and of the session, or token record, `session_id` is refused.
    pub fn is_revoked(&self, user: UserId, session_id: &str) -> bool {
        let snapshot = self.0.snapshot.load();
        snapshot.users.contains(&user) || snapshot.sessions.contains_key(session_id)
    }

    /// Adds to the set in memory. [`Revocation::store`] makes it last.
    pub fn insert(&self, revocation: &Revocation) {
        self.insert_all(std::slice::from_ref(revocation));
    }

    /// Adds what `message` revokes to the set in memory: what each process's own follower calls for every message.
    ///
    /// # Errors
    /// See [`Revocation::of`].
    pub fn apply(&self, message: &Message) -> Result<(), Failure> {
        if let Some(revocation) = Revocation::of(message)? {
            self.insert(&revocation);
        }
        Ok(())
    }

    fn insert_all(&self, revocations: &[Revocation]) {
        self.0.snapshot.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            for revocation in revocations {
                snapshot.insert(revocation);
            }
            snapshot
        });
    }

    /// Forgets sessions that ended by themselves long enough before `now`. How many rows were removed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn prune(&self, database: &Database, now: Micros) -> sqlx::Result<u64> {
        let before = now.saturating_sub(micros(KEPT_AFTER_EXPIRY));
        self.0.snapshot.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            snapshot.sessions.retain(|_, ended| ended.expires_at.is_none_or(|at| at >= before));
            snapshot
        });
        let mut removed = 0;
        loop {
            let delete = sqlx::query(
                "DELETE FROM revoked_sessions WHERE session_id IN (SELECT session_id FROM revoked_sessions \
                 WHERE expires_at IS NOT NULL AND expires_at < $1 ORDER BY expires_at LIMIT $2)",
            );
            let rows = delete.bind(before).bind(PAGE_ROWS).execute(database.writer()).await?.rows_affected();
            removed += rows;
            if rows == 0 {
                return Ok(removed);
            }
        }
    }

    /// Revoked sessions and users that are remembered.
    pub fn len(&self) -> (usize, usize) {
        let snapshot = self.0.snapshot.load();
        (snapshot.sessions.len(), snapshot.users.len())
    }
}

impl Snapshot {
    fn insert(&mut self, revocation: &Revocation) {
        match revocation {
            Revocation::User { user, .. } => {
                self.users.insert(*user);
            }
            Revocation::Session { session_id, expires_at, version, .. } => {
                let known = self.sessions.get(session_id.as_str());
                if known.is_none_or(|known| known.version < *version) {
                    let ended = Ended { expires_at: *expires_at, version: *version };
                    self.sessions.insert(session_id.as_str().into(), ended);
                }
            }
        }
    }
}

fn session(row: &sqlx::any::AnyRow) -> sqlx::Result<Revocation> {
    Ok(Revocation::Session {
        session_id: row.try_get("session_id")?,
        user: None,
        expires_at: row.try_get("expires_at")?,
        version: row.try_get("version")?,
    })
}

fn user(row: &sqlx::any::AnyRow) -> sqlx::Result<Revocation> {
    let user: String = row.try_get("user_id")?;
    let user = user.parse().map_err(|error: InvalidId| sqlx::Error::Decode(error.into()))?;
    Ok(Revocation::User { user, version: row.try_get("version")? })
}

#[async_trait]
impl Handler for Revocations {
    /// The set has it before the commit: a revocation that is early, or that a failed transaction brings again, harms
    /// nobody.
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        if let Some(revocation) = Revocation::of(message)? {
            revocation.store(connection).await?;
            self.insert(&revocation);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
