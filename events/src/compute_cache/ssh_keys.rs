//! The SSH keys of all users: `ssh_keys`.

use edd_proto::{AnyEvent, NamesUser, UserId};

use super::{keyed, missing, owner, read, text};
use crate::consumer::{Failure, decode};
use crate::database::Step;
use crate::message::Message;
use crate::projection::{Column, Entry, Key, Projection, Shape, Value};

/// The table.
pub static SHAPE: Shape = Shape {
    name: STEP.name,
    sql: STEP.sql,
    key: "key_id",
    columns: &[Column::text("user_id"), Column::text("name"), Column::text("fingerprint"), Column::text("public_key")],
    filters: &["compute.sshkey.>"],
};

/// Creates the table.
pub const STEP: Step = Step {
    version: 23,
    name: "ssh_key_cache",
    sql: "
CREATE TABLE {table} (
    -- compute's number, as text.
    key_id {key},
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    public_key TEXT NOT NULL,
    version BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    synced_at BIGINT NOT NULL,
    round BIGINT NOT NULL
);
CREATE INDEX {table}_fingerprint ON {table} (fingerprint);
CREATE INDEX {table}_user_id ON {table} (user_id);
",
};

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshKey {
    /// compute's number.
    pub id: i64,
    pub owner: UserId,
    pub name: String,
    /// `SHA256:` and the unpadded base64 of the key's hash, as OpenSSH prints it.
    pub fingerprint: String,
    /// As in `authorized_keys`, without options.
    pub public_key: String,
}

/// The projection of keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct SshKeys;

impl Projection for SshKeys {
    fn shape(&self) -> &'static Shape {
        &SHAPE
    }

    fn read(&self, message: &Message) -> Result<Option<Entry<Key>>, Failure> {
        let (event, envelope) = decode(message)?;
        let (id, key) = match event {
            AnyEvent::SshKeyDeleted(event) => (event.key_id, None),
            AnyEvent::SshKeyCreated(event) => {
                let owner = owner(event.user())?;
                let (name, fingerprint) = (event.name, event.fingerprint);
                (
                    event.key_id,
                    Some(SshKey { id: event.key_id, owner, name, fingerprint, public_key: event.public_key }),
                )
            }
            _ => return Ok(None),
        };
        if id <= 0 {
            return Err(missing("number of its key"));
        }
        Ok(Some(read(id.to_string(), &envelope, &SHAPE, key.map(fields))))
    }
}

/// A key as a row of the projection; none of one that is gone. `version` is that of its last event.
pub fn entry(id: i64, version: i64, key: Option<SshKey>) -> Entry {
    keyed(id.to_string(), version, &SHAPE, key.map(fields))
}

/// The key of a row; none of one that is gone.
pub fn key(entry: &Entry) -> Option<SshKey> {
    if entry.deleted {
        return None;
    }
    Some(SshKey {
        id: entry.key.parse().ok()?,
        owner: text(entry, 0).parse().ok()?,
        name: text(entry, 1),
        fingerprint: text(entry, 2),
        public_key: text(entry, 3),
    })
}

fn fields(key: SshKey) -> Vec<Value> {
    vec![
        Value::Text(key.owner.to_string()),
        Value::Text(key.name),
        Value::Text(key.fingerprint),
        Value::Text(key.public_key),
    ]
}
