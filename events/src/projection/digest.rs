//! What a whole projection comes down to, for comparing it with its owner's state.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::projection::{Entry, Value};

/// Begins what is hashed, so that a change of the encoding is another digest and no false agreement.
const ENCODING: &[u8] = b"edd projection 1\n";

/// The number of live rows and a hash of them. As text `<rows>:<64 hex digits>`.
///
/// Tombstones do not count: owner and projection may drop theirs at different times and still agree on what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub rows: u64,
    pub sha256: [u8; 32],
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.rows)?;
        self.sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest: it is written <rows>:<64 hex digits>")]
pub struct InvalidDigest(String);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let parse = || {
            let (rows, hex) = text.split_once(':')?;
            let mut sha256 = [0; 32];
            if hex.len() != 2 * sha256.len() || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            for (byte, at) in sha256.iter_mut().zip((0..).step_by(2)) {
                *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
            }
            Some(Self { rows: rows.parse().ok()?, sha256 })
        };
        parse().ok_or_else(|| InvalidDigest(text.chars().take(100).collect()))
    }
}

/// Entries that do not come in the order of their keys' bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key {key:?} comes after {previous:?}: entries go by the bytes of their keys, each once")]
pub struct OutOfOrder {
    previous: String,
    key: String,
}

/// Makes a [`Digest`] of entries in the order of their keys' bytes, in constant memory.
///
/// Each live entry is hashed as key, version, number of fields and fields. Integers are 8 bytes, big-endian; text is
/// its length in bytes and then the bytes; a field begins with a byte: 0 for NULL, 1 for text, 2 for a number. So no
/// two tables have the same encoding.
#[derive(Clone, Debug)]
pub struct DigestBuilder {
    sha256: Sha256,
    rows: u64,
    last: Option<String>,
}

impl Default for DigestBuilder {
    fn default() -> Self {
        Self { sha256: Sha256::new_with_prefix(ENCODING), rows: 0, last: None }
    }
}

impl DigestBuilder {
    /// Adds the next entry; a tombstone adds nothing.
    ///
    /// # Errors
    /// Its key does not follow the one before.
    pub fn add(&mut self, entry: &Entry) -> Result<(), OutOfOrder> {
        if let Some(previous) = self.last.as_ref().filter(|previous| **previous >= entry.key) {
            return Err(OutOfOrder { previous: previous.clone(), key: entry.key.clone() });
        }
        self.last = Some(entry.key.clone());
        if entry.deleted {
            return Ok(());
        }
        self.rows += 1;
        self.text(&entry.key);
        self.sha256.update(entry.version.to_be_bytes());
        self.sha256.update((entry.fields.len() as u64).to_be_bytes());
        for field in &entry.fields {
            match field {
                Value::Null => self.sha256.update([0]),
                Value::Text(text) => {
                    self.sha256.update([1]);
                    self.text(text);
                }
                Value::Number(number) => {
                    self.sha256.update([2]);
                    self.sha256.update(number.to_be_bytes());
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.sha256.update((text.len() as u64).to_be_bytes());
        self.sha256.update(text);
    }

    pub fn finish(self) -> Digest {
        Digest { rows: self.rows, sha256: self.sha256.finalize().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, version: i64, fields: Vec<Value>) -> Entry {
        Entry { key: key.to_owned(), version, deleted: false, fields }
    }

    fn digest(entries: &[Entry]) -> Digest {
        let mut builder = DigestBuilder::default();
        entries.iter().for_each(|entry| builder.add(entry).expect("entries in order"));
        builder.finish()
    }

    /// Other programs compute it too: it must not change.
    #[test]
    fn the_encoding_is_pinned() {
        let entries = [
            entry("a", 1, vec!["ann".into(), Value::Null, Value::Number(-2)]),
            entry("é", 1 << 40, vec!["".into(), Value::Null, Value::Number(0)]),
        ];
        let text = digest(&entries).to_string();
        assert_eq!(text, "2:8eebfbf438d58ca8a7f4ea82742cb23a360f02cabaf47b890faa243fcaa800c8");
        assert_eq!(text.parse(), Ok(digest(&entries)));
        for broken in ["", "2", "2:", "x:00", &text[..text.len() - 1], &format!("{text}0"), &text.replace(':', ":+")] {
            assert!(broken.parse::<Digest>().is_err(), "{broken}");
        }
    }

    #[test]
    fn whatever_differs_makes_another_digest() {
        let base = || vec![entry("a", 1, vec!["b".into(), "c".into()]), entry("d", 1, vec!["".into(), Value::Null])];
        let changes: [fn(&mut Vec<Entry>); 8] = [
            |_| {},
            |entries| entries[0].version = 2,
            |entries| entries[0].fields = vec!["bc".into(), "".into()],
            |entries| entries[1].fields[1] = "".into(),
            |entries| entries[1].fields[1] = Value::Number(0),
            |entries| entries[1].key.push('d'),
            |entries| entries[0].deleted = true,
            |entries| entries.truncate(1),
        ];
        let mut seen = Vec::new();
        for change in changes {
            let mut entries = base();
            change(&mut entries);
            let digest = digest(&entries);
            assert!(!seen.contains(&digest.sha256), "{entries:?}");
            seen.push(digest.sha256);
        }
    }

    #[test]
    fn tombstones_do_not_count_and_order_does() {
        let mut gone = entry("c", 9, vec![]);
        gone.deleted = true;
        let live = [entry("a", 1, vec![]), entry("d", 1, vec![])];
        assert_eq!(digest(&[live[0].clone(), gone, live[1].clone()]), digest(&live));
        for (first, second) in [("b", "a"), ("a", "a"), ("a", "B")] {
            let mut builder = DigestBuilder::default();
            builder.add(&entry(first, 1, vec![])).expect("the first");
            assert!(builder.add(&entry(second, 1, vec![])).is_err(), "{first} {second}");
        }
    }
}
