//! An event on its way: bytes and what is said about them. Nothing between the outbox and the
//! consumer decodes the bytes, because decoding drops what this release does not know.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One event, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// UUID v7. The bus and every inbox tell duplicates by it.
    pub event_id: String,
    /// `auth.user.<id>.created`.
    pub subject: String,
    /// What the event is about, the same for all events of one row: `auth.user.<id>`. Order is kept within it.
    pub entity: String,
    /// The entity's version after the change.
    pub version: i64,
    /// How `payload` is encoded; a media type.
    pub content_type: String,
    pub payload: Bytes,
    /// The request, or the event, that all of this began with.
    pub correlation_id: String,
    /// W3C `traceparent`; empty if nobody traces.
    pub trace_parent: String,
    /// What is said about it besides; nothing about an event, see [`Headers`].
    pub headers: Headers,
}

/// Further headers of a message, as dead letters have them: names that begin with [`Headers::PREFIX`], each with one
/// line of text. A bus carries these and drops all others that it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, String>);

impl Headers {
    /// What their names begin with.
    pub const PREFIX: &str = "Edd-Dead-";
    /// Longest value, bytes; longer ones are cut.
    const MAX_VALUE_BYTES: usize = 512;

    /// Those of `headers` that are ours.
    pub fn collect<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> Self {
        let mut collected = Self::default();
        for (name, value) in headers.into_iter().filter(|(name, _)| name.starts_with(Self::PREFIX)) {
            collected.set(name, value);
        }
        collected
    }

    /// Sets a header. A line break in a value would begin another header, so that control characters become spaces.
    pub fn set(&mut self, name: &str, value: &str) {
        debug_assert!(name.starts_with(Self::PREFIX), "{name} would be dropped on the way");
        let cut = &value[..value.floor_char_boundary(Self::MAX_VALUE_BYTES)];
        let line = cut.replace(|character: char| character.is_control(), " ");
        self.0.insert(name.to_owned(), line.trim().to_owned());
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// As a column keeps them: `name: value`, a line each.
    pub(crate) fn to_text(&self) -> String {
        self.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
    }

    pub(crate) fn from_text(text: &str) -> Self {
        Self::collect(text.lines().filter_map(|line| line.split_once(": ")))
    }
}

/// Names of the headers that carry a message's fields over a bus.
pub mod header {
    /// Also how JetStream recognizes what was published twice.
    pub const EVENT_ID: &str = "Nats-Msg-Id";
    pub const ENTITY: &str = "Edd-Entity";
    pub const VERSION: &str = "Edd-Version";
    pub const CONTENT_TYPE: &str = "Content-Type";
    pub const CORRELATION_ID: &str = "Edd-Correlation-Id";
    pub const TRACE_PARENT: &str = "traceparent";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_one_bounded_line() {
        let mut headers = Headers::default();
        headers.set("Edd-Dead-Error", "column \"a: b\"\r\nEdd-Dead-Attempts: 9");
        headers.set("Edd-Dead-Stream", &"é".repeat(1000));
        assert_eq!(headers.get("Edd-Dead-Error"), Some("column \"a: b\"  Edd-Dead-Attempts: 9"));
        assert_eq!(headers.get("Edd-Dead-Stream").map(str::len), Some(Headers::MAX_VALUE_BYTES));
        assert_eq!(Headers::from_text(&headers.to_text()), headers);
    }

    #[test]
    fn the_headers_of_others_are_dropped() {
        let headers = Headers::collect([("Nats-Msg-Id", "1"), ("Edd-Dead-Sequence", "7"), ("Nats-Time-Stamp", "x")]);
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("Edd-Dead-Sequence", "7")]);
        assert_eq!(Headers::from_text(""), Headers::default());
    }
}
