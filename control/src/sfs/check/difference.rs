//! What a check finds.

use std::fmt;

use crate::sfs::model::{Checksum, FilePath, NamespaceName};
use crate::sfs::storage::BlobId;
use crate::sfs::store::differences::Location;

/// A difference, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub difference: Difference,
    pub outcome: Outcome,
}

/// What becomes of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Repaired,
    /// It would be, by a check that repairs.
    Repairable,
    /// It cannot be repaired, and what is left is kept.
    Kept,
    /// An object that may be about to be needed.
    TooYoung,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repaired => "repaired",
            Self::Repairable => "repairable",
            Self::Kept => "kept",
            Self::TooYoung => "too young",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// An object without a row.
    Stray {
        blob: BlobId,
        bytes: u64,
    },
    /// A row that is kept for nothing.
    Loose {
        blob: BlobId,
    },
    /// A row without an object.
    Lost {
        blob: BlobId,
        bytes: u64,
    },
    Size {
        blob: BlobId,
        expected: u64,
        actual: u64,
    },
    /// The blobs of a content are not as long together as it is.
    Pieces {
        content: i64,
        expected: u64,
        actual: u64,
    },
    Checksum {
        content: i64,
        expected: Checksum,
        actual: Checksum,
    },
    /// One of the four before, and files that suffer from it; the first ten of them.
    Damaged {
        what: Box<Difference>,
        files: Vec<Location>,
    },
    /// How many files have a content is not what was counted.
    References {
        content: i64,
        counted: i64,
        actual: i64,
    },
    /// The content of a file is gone.
    Headless {
        file: Location,
    },
    /// The folder that an entry is in is not there.
    Homeless {
        entry: Location,
    },
    /// What a namespace has is not what was counted.
    Usage {
        namespace: NamespaceName,
        counted_bytes: i64,
        actual_bytes: i64,
        counted_entries: i64,
        actual_entries: i64,
    },
}

impl Difference {
    /// One word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stray { .. } => "stray",
            Self::Loose { .. } => "loose",
            Self::Lost { .. } => "lost",
            Self::Size { .. } => "size",
            Self::Pieces { .. } => "pieces",
            Self::Checksum { .. } => "checksum",
            Self::Damaged { what, .. } => what.kind(),
            Self::References { .. } => "references",
            Self::Headless { .. } => "headless",
            Self::Homeless { .. } => "homeless",
            Self::Usage { .. } => "usage",
        }
    }

    /// Files that it is about, if it is known which.
    pub fn files(&self) -> Vec<(&NamespaceName, &FilePath)> {
        match self {
            Self::Damaged { files, .. } => files.iter().map(|at| (&at.namespace, &at.path)).collect(),
            Self::Headless { file: at } | Self::Homeless { entry: at } => vec![(&at.namespace, &at.path)],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stray { blob, bytes } => write!(f, "object {blob} ({bytes} bytes) belongs to nothing"),
            Self::Loose { blob } => write!(f, "blob {blob} is kept for nothing"),
            Self::Lost { blob, bytes } => write!(f, "object {blob} ({bytes} bytes) is lost"),
            Self::Size { blob, expected, actual } => {
                write!(f, "object {blob} has {actual} bytes, and should have {expected}")
            }
            Self::Pieces { content, expected, actual } => {
                write!(f, "the pieces of content {content} have {actual} bytes together, and should have {expected}")
            }
            Self::Checksum { content, expected, actual } => {
                write!(f, "the SHA-256 of content {content} is {actual}, and should be {expected}")
            }
            Self::Damaged { what, files } => {
                what.fmt(f)?;
                let mut before = "; damaged: ";
                for Location { namespace, path, .. } in files {
                    write!(f, "{before}{namespace}/{path}")?;
                    before = ", ";
                }
                Ok(())
            }
            Self::References { content, counted, actual } => {
                write!(f, "{actual} files have content {content}, and {counted} were counted")
            }
            Self::Headless { file } => write!(f, "the content of {}/{} is gone", file.namespace, file.path),
            Self::Homeless { entry } => {
                write!(f, "the folder that {}/{} is in is not there", entry.namespace, entry.path)
            }
            Self::Usage { namespace, counted_bytes, actual_bytes, counted_entries, actual_entries } => write!(
                f,
                "namespace {namespace} has {actual_bytes} bytes in {actual_entries} entries, and {counted_bytes} in \
                 {counted_entries} were counted"
            ),
        }
    }
}
