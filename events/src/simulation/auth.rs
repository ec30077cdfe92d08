//! The service that owns the users, and namespaces besides: what it writes, and what it says that it has.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use edd_proto::auth::{UserCreated, UserDeleted, UserUpdated};
use edd_proto::sfs::{NamespaceCreated, NamespaceDeleted};
use edd_proto::{Stream, UserId};
use sqlx::{AnyConnection, Row};

use super::arena::Store;
use super::ledger::{Event, Ledger};
use super::plan::{Fault, Plan};
use super::world::{World, lock};
use crate::clock::Micros;
use crate::database::Step;
use crate::projection::{Digest, DigestBuilder, Entry, Owner, OwnerError, Page};
use crate::publisher::{Cause, PublishError, Publisher};
use crate::user_cache;

/// Few, so that names move from one user to another.
const NAMES: [&str; 3] = ["ann", "bob", "eve"];

pub(super) const USERS: Step = Step {
    version: 1000,
    name: "users",
    sql: "CREATE TABLE users (number BIGINT PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT, version BIGINT NOT NULL)",
};

#[derive(Debug)]
pub(super) struct Auth {
    world: Arc<World>,
    ledger: Arc<Ledger>,
    store: Store,
    publisher: Publisher,
    page_rows: u32,
    entities: usize,
    /// Namespaces that are there.
    namespaces: Mutex<Vec<i64>>,
    /// The last row of the outbox that the ledger has.
    last_row: AtomicI64,
}

impl Auth {
    pub fn new(world: Arc<World>, ledger: Arc<Ledger>, store: Store, plan: &Plan) -> Arc<Self> {
        let publisher = Publisher::seeded("auth-service", plan.encoding, Arc::new(world.clock.clone()), world.seed());
        let (page_rows, entities) = (plan.page_rows, plan.entities);
        let (namespaces, last_row) = (Mutex::default(), AtomicI64::new(0));
        Arc::new(Self { world, ledger, store, publisher, page_rows, entities, namespaces, last_row })
    }

    /// A transaction with a change or two, which may be rolled back. What became of it.
    pub async fn write(&self) -> String {
        let changed = self.try_write().await;
        if let Err(error) = self.note_events().await {
            self.world.violate(format!("the ledger cannot be kept: {error}"));
        }
        changed.unwrap_or_else(|error| format!("not written: {error}"))
    }

    async fn try_write(&self) -> Result<String, PublishError> {
        let database = &self.store.database;
        let mut transaction = database.begin().await?;
        let mut said = Vec::new();
        for _ in 0..1 + self.world.below(2) {
            said.push(match self.world.chance(75) {
                true => self.change_user(&mut transaction).await?,
                false => self.change_namespace(&mut transaction).await?,
            });
        }
        if self.world.chance(15) {
            drop(transaction);
            said.push("rolled back".to_owned());
        } else {
            database.commit(transaction).await?;
        }
        Ok(said.join(", "))
    }

    async fn change_user(&self, connection: &mut AnyConnection) -> Result<String, PublishError> {
        let number = 1 + self.world.below(self.entities) as i64;
        let name = NAMES[self.world.below(NAMES.len())];
        let known = sqlx::query_scalar::<_, Option<String>>("SELECT name FROM users WHERE number = $1").bind(number);
        let known = known.fetch_optional(&mut *connection).await?;
        let is_there = matches!(known, Some(Some(_)));
        let is_deleting = is_there && self.world.chance(30);
        let (user_uid, user_id, metadata) = (uid(number).to_string(), number, None);
        let (username, display_name) = (name.to_owned(), name.to_uppercase());
        let cause = Cause::default();
        let version = match (is_there, is_deleting) {
            (false, _) => {
                let event = UserCreated { metadata, user_id, username, display_name, user_uid };
                self.publisher.add(&mut *connection, event, &cause).await?
            }
            (true, false) => {
                let event = UserUpdated { metadata, user_id, username, display_name, user_uid };
                self.publisher.add(&mut *connection, event, &cause).await?
            }
            (true, true) => {
                let event = UserDeleted { metadata, user_id, username, user_uid };
                self.publisher.add(&mut *connection, event, &cause).await?
            }
        };
        let name = (!is_deleting).then_some(name);
        let upsert = sqlx::query(
            "INSERT INTO users (number, id, name, version) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (number) DO UPDATE SET name = excluded.name, version = excluded.version",
        );
        let upsert = upsert.bind(number).bind(uid(number).to_string()).bind(name.map(str::to_owned)).bind(version);
        upsert.execute(connection).await?;
        Ok(format!("user {number} v{version} is {}", name.unwrap_or("deleted")))
    }

    async fn change_namespace(&self, connection: &mut AnyConnection) -> Result<String, PublishError> {
        let namespace_id = 1 + self.world.below(self.entities) as i64;
        let is_there = lock(&self.namespaces).contains(&namespace_id);
        let (cause, owner_uid) = (Cause::default(), uid(1).to_string());
        let version = if is_there {
            let event = NamespaceDeleted { namespace_id, owner_uid, ..Default::default() };
            self.publisher.add(connection, event, &cause).await?
        } else {
            let event = NamespaceCreated { namespace_id, owner_uid, ..Default::default() };
            self.publisher.add(connection, event, &cause).await?
        };
        // Also if this is rolled back: then the next change is of the other kind, and the version tells either way.
        let mut namespaces = lock(&self.namespaces);
        namespaces.retain(|id| *id != namespace_id);
        namespaces.extend((!is_there).then_some(namespace_id));
        Ok(format!("namespace {namespace_id} v{version}"))
    }

    /// Has the ledger know what is committed, whatever the service was told of it.
    async fn note_events(&self) -> sqlx::Result<()> {
        let select = sqlx::query(
            "SELECT seq, event_id, subject, entity, version, created_at FROM outbox WHERE seq > $1 ORDER BY seq",
        );
        let last = self.last_row.load(Ordering::Relaxed);
        for row in select.bind(last).fetch_all(self.store.truth.reader()).await? {
            let is_user = row.try_get::<String, _>("subject")?.starts_with("auth.");
            let stream = if is_user { Stream::AUTH.name } else { Stream::SFS.name };
            let (entity, version) = (row.try_get("entity")?, row.try_get("version")?);
            let event = Event { stream, entity, version, created_at: row.try_get("created_at")?, is_old: false };
            self.ledger.commit(row.try_get("event_id")?, event);
            self.last_row.store(row.try_get("seq")?, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn entries(&self, after: &str, most: u32) -> sqlx::Result<Vec<Entry>> {
        let select = "SELECT number, id, name, version FROM users WHERE id > $1 ORDER BY id LIMIT $2";
        let select = sqlx::query_as::<_, (i64, String, Option<String>, i64)>(select);
        let rows = select.bind(after.to_owned()).bind(i64::from(most)).fetch_all(self.store.database.reader()).await?;
        let entry = |(number, _, name, version): (i64, String, Option<String>, Micros)| {
            let names = name.map(|name| (name.clone(), name.to_uppercase()));
            user_cache::entry(uid(number), version, Some(number), names)
        };
        Ok(rows.into_iter().map(entry).collect())
    }

    /// # Errors
    /// Nobody hears the owner's answer.
    async fn answer(&self) -> Result<(), OwnerError> {
        self.world.pause().await;
        if self.world.strikes(Fault::Unreachable) {
            return Err(OwnerError::Unavailable("connection refused".to_owned()));
        }
        Ok(())
    }
}

pub(super) fn uid(number: i64) -> UserId {
    format!("user-{number:016}").parse().expect("21 characters of the alphabet")
}

#[async_trait]
impl Owner for Auth {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        self.world.pause().await;
        let most = most.min(self.page_rows);
        let entries = self.entries(&after.unwrap_or_default(), most + 1).await;
        let mut entries = entries.map_err(|error| OwnerError::Unavailable(error.to_string()))?;
        let more = entries.len() > most as usize;
        entries.truncate(most as usize);
        self.answer().await?;
        Ok(Page { entries, more })
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        self.world.pause().await;
        let entries = self.entries("", 1000).await.map_err(|error| OwnerError::Unavailable(error.to_string()))?;
        let mut builder = DigestBuilder::default();
        for entry in &entries {
            builder.add(entry).map_err(|error| OwnerError::Invalid(error.to_string()))?;
        }
        self.answer().await?;
        Ok(builder.finish())
    }
}
