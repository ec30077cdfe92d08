//! What the file share is about, as pure types. Text from outside becomes one of these at the edge and is checked
//! nowhere else.

mod content;
mod entry;
mod media_type;
mod namespace;
mod path;
mod share;
mod upload;
mod visitor;

pub use content::Checksum;
pub use entry::{Entry, File, Replace, Target};
pub use media_type::MediaType;
pub use namespace::{Namespace, NamespaceName, Owner, Visibility};
pub use path::FilePath;
pub use share::{MAX_DOWNLOADS, MAX_SHARE_SECONDS, NewShare, Share};
pub use upload::{Upload, UploadId};
pub use visitor::{Actor, Visitor};

/// Input that cannot be accepted: which, and what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    pub field: &'static str,
    pub rule: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}
