//! What there is: entries, a page at a time, and what is used of quotas.

use super::{NO_FILE, Service};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Entry, FilePath, Namespace, NamespaceName, Visitor};
use crate::sfs::store::{files, owners, uploads};

/// Entries that one page has at most.
pub const MAX_LISTED: u32 = 1000;

/// Which entries are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// None: from the top of the namespace.
    pub folder: Option<FilePath>,
    /// The files of all folders below, by path, instead of what is in the one, by name.
    pub is_deep: bool,
    /// The path of the last entry of the page before.
    pub after: Option<FilePath>,
    /// At most [`MAX_LISTED`].
    pub most: u32,
}

/// What a user has, and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub used_bytes: u64,
    /// Of uploads that have begun.
    pub reserved_bytes: u64,
    pub most_bytes: u64,
    pub used_entries: u64,
    pub most_entries: u64,
}

impl Service {
    /// A page of what is in a namespace that the visitor may read.
    ///
    /// # Errors
    /// There is no such namespace or folder that they see.
    pub async fn list(
        &self,
        visitor: &Visitor,
        namespace: &NamespaceName,
        listing: &Listing,
    ) -> Result<Vec<Entry>, SfsError> {
        let namespace = self.namespace(visitor, namespace).await?;
        self.list_in(&namespace, listing).await
    }

    /// The same, for whoever was found to be allowed to.
    pub(in crate::sfs) async fn list_in(
        &self,
        namespace: &Namespace,
        listing: &Listing,
    ) -> Result<Vec<Entry>, SfsError> {
        let (number, most) = (namespace.number, listing.most.min(MAX_LISTED));
        let reader = self.database().reader();
        if let Some(folder) = &listing.folder {
            let entry = files::at(reader, number, folder).await?.ok_or(NO_FILE)?;
            if !entry.is_folder() {
                return Err(SfsError::conflict(format!("{folder} is a file")));
            }
        }
        let (folder, after) = (listing.folder.as_ref(), listing.after.as_ref());
        Ok(match listing.is_deep {
            true => files::deep(reader, number, folder, after, most).await?,
            false => files::children(reader, number, folder, after, most).await?,
        })
    }

    /// One file or folder in a namespace that the visitor may read.
    ///
    /// # Errors
    /// There is none that they see.
    pub async fn stat(&self, visitor: &Visitor, namespace: &NamespaceName, path: &FilePath) -> Result<Entry, SfsError> {
        let namespace = self.namespace(visitor, namespace).await?;
        files::at(self.database().reader(), namespace.number, path).await?.ok_or(NO_FILE)
    }

    /// What the actor has, and may have.
    ///
    /// # Errors
    /// The database fails.
    pub async fn usage(&self, actor: &Actor) -> Result<Usage, SfsError> {
        let reader = self.database().reader();
        let used = owners::used(reader, actor.owner.user).await?;
        let quotas = &self.config().quotas;
        Ok(Usage {
            used_bytes: used.bytes,
            reserved_bytes: uploads::reserved_bytes(reader, actor.owner.user).await?,
            most_bytes: quotas.user_bytes,
            used_entries: used.entries,
            most_entries: quotas.user_entries,
        })
    }
}
