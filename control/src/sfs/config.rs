//! What an operator decides about the file share.

use std::time::Duration;

use crate::password::PasswordConfig;
use crate::service_key::ServiceKey;

/// Everything about it but where the bytes are. `Default` is what `edd up` runs with.
#[derive(Clone, Debug)]
pub struct SfsConfig {
    pub quotas: Quotas,
    pub leases: Leases,
    /// Rows of blobs that are made ahead of their use, at most.
    pub blobs_ahead: u32,
    pub on_user_delete: OnUserDelete,
    /// How the passwords of share links are hashed.
    pub passwords: PasswordConfig,
    /// What other services show. None: nobody may ask as one, over HTTP.
    pub service_key: Option<ServiceKey>,
}

impl Default for SfsConfig {
    fn default() -> Self {
        Self {
            quotas: Quotas::default(),
            leases: Leases::default(),
            blobs_ahead: 64,
            on_user_delete: OnUserDelete::default(),
            passwords: PasswordConfig::default(),
            service_key: None,
        }
    }
}

/// What one user may have, and what one request may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Of all namespaces of a user, uploads that have begun included.
    pub user_bytes: u64,
    /// Files and folders of a user.
    pub user_entries: u64,
    /// Of one file. None: as much as the user may have.
    pub file_bytes: Option<u64>,
    /// Namespaces of a user.
    pub namespaces: u32,
    /// Resumable uploads that a user has begun and not finished.
    pub open_uploads: u32,
    /// Pieces of one resumable upload.
    pub upload_blobs: u32,
    /// Share links of a user.
    pub shares: u32,
    /// Files and folders that are moved or copied at once: one transaction has them all.
    pub tree_entries: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            user_bytes: 10 << 30,
            user_entries: 100_000,
            file_bytes: None,
            namespaces: 20,
            open_uploads: 100,
            upload_blobs: 1000,
            shares: 1000,
            tree_entries: 5000,
        }
    }
}

/// How long things are left alone that nobody seems to need.
#[derive(Clone, Copy, Debug)]
pub struct Leases {
    /// Bytes that are being written, since who writes them last said so. They say so three times in it.
    pub write: Duration,
    /// Bytes that no file has any more, for those who are reading them. They say so three times in it.
    pub read: Duration,
    /// A resumable upload, since its last byte.
    pub upload: Duration,
}

impl Default for Leases {
    fn default() -> Self {
        Self { write: Duration::from_secs(900), read: Duration::from_secs(600), upload: Duration::from_secs(86_400) }
    }
}

/// What becomes of a deleted user's namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUserDelete {
    /// They stay, and are nobody's until an administrator gives them to somebody, or deletes them.
    #[default]
    Orphan,
    Delete,
}
