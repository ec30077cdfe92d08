//! What a service keeps of another's state: a table in its own database, fed by events.
//!
//! Every event of a projected entity carries the entity's whole state and its version, and a row takes only a
//! higher version than it has. A deletion is a state as well, the last one, and stays as a tombstone. So the table
//! depends on the set of events that came and neither on their order nor on how often each did.
//!
//! ```text
//! bus ─▶ Consumer ─▶ Projector ─▶ Table ◀─ Synchronizer ◀─ Owner     after a start, a loss, a difference
//!                                   ▲
//!                                Shadow ◀─ Replay ◀─ stream or Owner
//! ```
//!
//! A projection is derived and has no history of its own: no foreign key may point to it, because a replay puts
//! another table in its place.

mod digest;
mod dispatcher;
mod owner;
mod page_json;
mod projector;
mod reconciler;
mod replay;
mod shadow;
mod status;
mod synchronizer;
mod table;

use std::fmt::Debug;

pub use digest::{Digest, DigestBuilder, InvalidDigest, OutOfOrder};
pub use dispatcher::Dispatcher;
pub use owner::{Owner, OwnerError, Page};
pub use projector::Projector;
pub use reconciler::{ReconcileError, Reconciler, Verdict};
pub use replay::{Progress, Replay, ReplayError, Replayed, Source};
pub use status::{Status, list};
pub use synchronizer::{SyncError, Synced, Synchronizer, Timing};
pub use table::Table;

pub(crate) use status::STEP;

use crate::consumer::Failure;
use crate::message::Message;

/// Reads messages as states of rows. What it is made of is in its [`Shape`]; the rest is the same for all.
pub trait Projection: Debug + Send + Sync + 'static {
    /// Its table.
    fn shape(&self) -> &'static Shape;

    /// What `message` says of one row, or none if it says nothing.
    ///
    /// # Errors
    /// [`Failure::Permanent`]: no row can be made of it.
    fn read(&self, message: &Message) -> Result<Option<Entry<Key>>, Failure>;
}

/// The table of a projection.
///
/// Besides `key` and `columns` it has `version BIGINT`, `deleted BIGINT`, `synced_at BIGINT` and `round BIGINT`, none
/// of them NULL. `round` tells when the row was last touched in a way that no clock can spoil: see [`Synchronizer`].
#[derive(Debug)]
pub struct Shape {
    /// The projection's name and its table's: a lower-case word of at most 40 characters.
    pub name: &'static str,
    /// The statements that create it. They say `{table}` for the table's name and begin the name of each index with
    /// it, and `{key}` for the type of the key column, which sorts by bytes. Nothing but the key is unique: a name
    /// that is used again would be a poison message as soon as the two events come out of order.
    pub sql: &'static str,
    /// The column that holds the key.
    pub key: &'static str,
    /// The other columns, in the order of [`Entry::fields`].
    pub columns: &'static [Column],
    /// The subjects of the messages that it reads.
    pub filters: &'static [&'static str],
}

impl Shape {
    /// Whether `fields` are values of its columns.
    pub(crate) fn fits(&self, fields: &[Value]) -> bool {
        let fits = |(column, value): (&Column, &Value)| match value {
            Value::Null => true,
            Value::Text(_) => column.is_text,
            Value::Number(_) => !column.is_text,
        };
        fields.len() == self.columns.len() && self.columns.iter().zip(fields).all(fits)
    }
}

/// A column of a projection.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    is_text: bool,
    is_fixed: bool,
}

impl Column {
    pub const fn text(name: &'static str) -> Self {
        Self { name, is_text: true, is_fixed: false }
    }

    pub const fn number(name: &'static str) -> Self {
        Self { name, is_text: false, is_fixed: false }
    }

    /// What a tombstone has in it.
    pub(crate) fn blank(&self) -> Value {
        if self.is_text { Value::Text(String::new()) } else { Value::Null }
    }

    /// The same in all versions of an entity, though not every event tells it: once known, it stays.
    #[must_use]
    pub const fn fixed(self) -> Self {
        Self { is_fixed: true, ..self }
    }
}

/// One column's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

/// The state of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<K = String> {
    pub key: K,
    /// Orders the states of this key; equal versions are equal states.
    pub version: i64,
    /// A tombstone: what came before it does not return.
    pub deleted: bool,
    /// In the order of [`Shape::columns`].
    pub fields: Vec<Value>,
}

/// Which row a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Is(String),
    /// The row that has this number in this column: the message does not know the key.
    Of(&'static str, i64),
}

#[cfg(test)]
mod tests;
