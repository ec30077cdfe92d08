//! The users, as every service but auth keeps them: `user_cache`.
//!
//! The kernel knows no service, and this is its one exception: every service has this projection, and none may import
//! another that could lend it. auth, which owns the users, makes the entries of its snapshots here as well, so that
//! both sides have the same digest.

use std::time::UNIX_EPOCH;

use edd_proto::common::EventMetadata;
use edd_proto::{AnyEvent, Envelope, NamesUser, UserId};

use crate::consumer::{Failure, decode};
use crate::database::Step;
use crate::message::Message;
use crate::projection::{Column, Entry, Key, Projection, Shape, Value};

/// The column of the number that auth_db and edd-cloud's older publishers have for a user.
const NUMBER: &str = "user_number";

/// The table. A service that has it adds [`STEP`] to the steps of its database.
pub static SHAPE: Shape = Shape {
    name: STEP.name,
    sql: STEP.sql,
    key: "user_id",
    columns: &[Column::text("username"), Column::text("display_name"), Column::number(NUMBER).fixed()],
    filters: &["auth.user.*.created", "auth.user.*.updated", "auth.user.*.deleted"],
};

/// Creates the table.
pub const STEP: Step = Step {
    version: 21,
    name: "user_cache",
    sql: "
CREATE TABLE {table} (
    user_id {key},
    username TEXT NOT NULL,
    display_name TEXT NOT NULL,
    -- The number that older publishers know a user by.
    user_number BIGINT,
    version BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    synced_at BIGINT NOT NULL,
    round BIGINT NOT NULL
);
CREATE INDEX {table}_username ON {table} (username);
CREATE INDEX {table}_user_number ON {table} (user_number);
",
};

/// The projection of users.
///
/// # Events of older publishers
/// *With the number alone:* the row that has the number is meant. An event that comes before any row has it is tried
/// again, because the event or the snapshot that tells both ids may be on its way, and is a dead letter after that.
/// One that names nobody is a dead letter at once.
///
/// *Without versions:* their publisher's time orders them among themselves, and a creation, a change and a deletion
/// of the same moment come in this order. Any version that counts is above them. edd-cloud numbered creations with 1
/// and nothing else; so the first version of a publisher that tells no `schema_version` counts as none. Two changes
/// within the resolution of the publisher's time (a second in JSON) cannot be told apart, and the first that comes
/// stays until a snapshot settles it.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserCache;

impl Projection for UserCache {
    fn shape(&self) -> &'static Shape {
        &SHAPE
    }

    fn read(&self, message: &Message) -> Result<Option<Entry<Key>>, Failure> {
        let permanent = |error: &dyn std::fmt::Display| Failure::Permanent(error.to_string());
        let (event, envelope) = decode(message)?;
        let metadata = event.metadata().cloned().unwrap_or_default();
        let (user, kind, names) = match event {
            AnyEvent::UserCreated(event) => (event.user(), Kind::Created, Some((event.username, event.display_name))),
            AnyEvent::UserUpdated(event) => (event.user(), Kind::Updated, Some((event.username, event.display_name))),
            AnyEvent::UserDeleted(event) => (event.user(), Kind::Deleted, None),
            _ => return Ok(None),
        };
        let user = user.map_err(|error| permanent(&error))?;
        let in_subject = message.subject.split('.').nth(2).and_then(|id| id.parse().ok());
        let uid = user.uid.or(in_subject).or_else(|| envelope.entity_id.parse().ok());
        let key = match (uid, user.number) {
            (Some(uid), _) => Key::Is(uid.to_string()),
            (None, Some(number)) => Key::Of(NUMBER, number),
            (None, None) => return Err(Failure::Permanent("the event names no user".to_owned())),
        };
        Ok(Some(state(key, version(&envelope, &metadata, kind), user.number, names)))
    }
}

/// A user as a row of the projection: `names` are the name to log in with and the name to show, none of a user who is
/// gone. `version` is that of the user's last event.
pub fn entry(id: UserId, version: i64, number: Option<i64>, names: Option<(String, String)>) -> Entry {
    state(id.to_string(), version, number, names)
}

fn state<K>(key: K, version: i64, number: Option<i64>, names: Option<(String, String)>) -> Entry<K> {
    let deleted = names.is_none();
    // Nothing but the ids stays of who is gone.
    let (username, display_name) = names.unwrap_or_default();
    Entry { key, version, deleted, fields: vec![Value::Text(username), Value::Text(display_name), number.into()] }
}

#[derive(Clone, Copy)]
enum Kind {
    Created,
    Updated,
    Deleted,
}

/// The version if it counts; otherwise one below all that do, by time and then by kind.
fn version(envelope: &Envelope, metadata: &EventMetadata, kind: Kind) -> i64 {
    if envelope.version > 1 || envelope.version == 1 && metadata.schema_version > 0 {
        return envelope.version;
    }
    const BELOW: i64 = -(1 << 62);
    let at = envelope.at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    // Until the year 36000.
    let at = i64::try_from(at.as_micros()).unwrap_or(i64::MAX).min(1 << 60);
    BELOW + 3 * at + kind as i64
}

#[cfg(test)]
mod tests;
