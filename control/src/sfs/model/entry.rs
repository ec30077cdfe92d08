//! Files and folders.

use edd_events::clock::Micros;

use super::{Checksum, FilePath, MediaType, NamespaceName};

/// A file or a folder. A folder comes into being with the first file in it, and stays until it is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: FilePath,
    /// None: a folder.
    pub file: Option<File>,
    pub created_at: Micros,
    pub modified_at: Micros,
}

impl Entry {
    /// Bytes; none of a folder.
    pub fn size(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.size)
    }

    pub fn is_folder(&self) -> bool {
        self.file.is_none()
    }
}

/// What a file is besides its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The content's number: never another's, so that equal numbers mean equal bytes.
    pub content: i64,
    /// Bytes.
    pub size: u64,
    pub checksum: Checksum,
    pub media_type: MediaType,
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replace {
    /// It stays, and the new one is refused.
    #[default]
    Never,
    Always,
    /// It is replaced if it is there and is the one expected (`If-Match`).
    Matching(Checksum),
    /// It is replaced if it is there, whatever it is (`If-Match: *`).
    Existing,
}

/// Where bytes are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: NamespaceName,
    pub path: FilePath,
    pub replace: Replace,
    /// How many the client says will come; none: it does not say.
    pub declared_bytes: Option<u64>,
    pub media_type: MediaType,
}
