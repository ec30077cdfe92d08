//! The service whose state is projected, as the reader sees it.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::projection::{Digest, Entry, Shape};

/// A piece of the owner's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys' bytes, tombstones included.
    pub entries: Vec<Entry>,
    /// Whether there are more after these. A page that says so is not empty.
    pub more: bool,
}

/// Why the owner's state is not known. Asking again may help in either case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    #[error("the owner does not answer: {0}")]
    Unavailable(String),
    #[error("the owner's answer is of no use: {0}")]
    Invalid(String),
}

/// Who owns the state: asked in process, or over HTTP.
#[async_trait]
pub trait Owner: Debug + Send + Sync {
    /// At most `most` rows with keys after `after`, as committed now. Fewer are allowed.
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError>;

    /// The digest of all rows.
    async fn digest(&self) -> Result<Digest, OwnerError>;
}

impl Page {
    /// Checks what the rest relies on: it is of this shape, follows `after`, and is no larger than was asked for.
    pub(crate) fn check(&self, shape: &Shape, after: Option<&str>, most: u32) -> Result<(), OwnerError> {
        if self.entries.len() > most as usize {
            let count = self.entries.len();
            return Err(OwnerError::Invalid(format!("{count} rows in a page where {most} were asked for")));
        }
        let mut last = after;
        for entry in &self.entries {
            if let Some(last) = last.filter(|last| *last >= entry.key.as_str()) {
                let key = &entry.key;
                return Err(OwnerError::Invalid(format!("the key {key:?} comes after {last:?}: pages go by bytes")));
            }
            if !shape.fits(&entry.fields) {
                return Err(OwnerError::Invalid(format!("{:?} is no row of {}", entry.key, shape.name)));
            }
            last = Some(&entry.key);
        }
        if self.more && self.entries.is_empty() {
            return Err(OwnerError::Invalid("an empty page is said to have more after it".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::{Column, Value};

    const SHAPE: Shape = Shape {
        name: "notes",
        sql: "",
        key: "id",
        columns: &[Column::text("body"), Column::number("size")],
        filters: &[],
    };

    #[test]
    fn a_page_that_would_lose_rows_is_refused() {
        let entry = |key: &str, fields| Entry { key: key.to_owned(), version: 1, deleted: false, fields };
        let fields = || vec![Value::Null, Value::Number(1)];
        let page = |keys: &[&str], more| {
            let entries = keys.iter().map(|key| entry(key, fields())).collect();
            Page { entries, more }
        };
        let alone = |fields| Page { entries: vec![entry("a", fields)], more: false };
        assert_eq!(page(&["A", "_", "a"], true).check(&SHAPE, None, 3), Ok(()));
        assert_eq!(page(&[], false).check(&SHAPE, Some("z"), 3), Ok(()));
        for (refused, after) in [
            (page(&["a", "B"], false), None),
            (page(&["a", "a"], false), None),
            (page(&["a"], false), Some("a")),
            (page(&[], true), None),
            (page(&["a", "b", "c", "d"], false), None),
            (alone(vec!["".into()]), None),
            (alone(vec!["".into(), "1".into()]), None),
            (alone(vec![Value::Number(1), Value::Null]), None),
        ] {
            assert!(refused.check(&SHAPE, after, 3).is_err(), "{refused:?}");
        }
    }
}
