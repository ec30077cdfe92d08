//! What gateways keep of compute: containers, SSH keys, and the ports that are asked for.
//!
//! As with [`user_cache`](crate::user_cache), owner and reader make their rows here, so that both have the same digest.

pub mod containers;
pub mod ingress_requests;
pub mod ssh_keys;

use edd_proto::{Envelope, InvalidId, UserId, UserRef};

use crate::consumer::Failure;
use crate::database::Step;
use crate::projection::{Entry, Key, Shape, Value};

/// Creates the tables.
pub const STEPS: [Step; 3] = [containers::STEP, ssh_keys::STEP, ingress_requests::STEP];

/// The row of `key` after the event of `envelope`.
fn read(key: String, envelope: &Envelope, shape: &Shape, state: Option<Vec<Value>>) -> Entry<Key> {
    keyed(Key::Is(key), envelope.version, shape, state)
}

/// A row, or its tombstone, of which the key alone stays.
fn keyed<K>(key: K, version: i64, shape: &Shape, state: Option<Vec<Value>>) -> Entry<K> {
    let deleted = state.is_none();
    let fields = state.unwrap_or_else(|| shape.columns.iter().map(|column| column.blank()).collect());
    Entry { key, version, deleted, fields }
}

/// The text id of who owns something, without which nothing can be let in on their behalf.
fn owner(user: Result<UserRef, InvalidId>) -> Result<UserId, Failure> {
    let user = user.map_err(|error| Failure::Permanent(error.to_string()))?;
    user.uid.ok_or_else(|| Failure::Permanent("the event names its owner by number alone".to_owned()))
}

fn missing(what: &str) -> Failure {
    Failure::Permanent(format!("the event has no {what}"))
}

fn text(entry: &Entry, index: usize) -> String {
    match entry.fields.get(index) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

fn number<N: TryFrom<i64> + Default>(entry: &Entry, index: usize) -> N {
    match entry.fields.get(index) {
        Some(Value::Number(number)) => N::try_from(*number).unwrap_or_default(),
        _ => N::default(),
    }
}

#[cfg(test)]
mod tests;
