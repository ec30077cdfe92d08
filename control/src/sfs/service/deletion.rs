//! Files and folders that go.

use edd_events::publisher::Cause;

use super::access::lock;
use super::happening::Teller;
use super::{NO_FILE, Service};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Checksum, Entry, FilePath, NamespaceName};
use crate::sfs::store::namespaces::Change;
use crate::sfs::store::trees::Removed;
use crate::sfs::store::{contents, files, namespaces, trees};

/// Entries that one transaction deletes.
const PIECE: u32 = 200;

/// How far a deletion goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// A folder goes with what is in it.
    pub is_recursive: bool,
    /// A file goes if it is this one still (`If-Match`).
    pub expected: Option<Checksum>,
}

/// What goes with these.
pub(super) fn lost(removed: &[Removed]) -> Change {
    removed.iter().fold(Change::default(), |change, entry| match entry.content {
        Some(_) => Change { bytes: change.bytes - entry.size, files: change.files - 1, ..change },
        None => Change { folders: change.folders - 1, ..change },
    })
}

impl Service {
    /// Deletes a file, or a folder. A folder with much in it goes piece by piece: who looks meanwhile sees less and less
    /// of it, and what is put into it meanwhile goes, too.
    ///
    /// # Errors
    /// There is none, it is not as expected, or it is a folder that is not empty and was to go alone.
    pub async fn delete_entry(
        &self,
        actor: &Actor,
        namespace: &NamespaceName,
        path: &FilePath,
        deletion: Deletion,
        cause: &Cause,
    ) -> Result<(), SfsError> {
        let number = self.writable(actor, namespace).await?.number;
        let found = files::at(self.database().reader(), number, path).await?.ok_or(NO_FILE)?;
        if !found.is_folder() {
            self.delete_some(actor, number, path, deletion, cause).await?;
            return Ok(());
        }
        let is_expected = deletion.expected.is_none();
        if !is_expected {
            return Err(SfsError::NotAsExpected);
        }
        while self.delete_some(actor, number, path, deletion, cause).await? {}
        Ok(())
    }

    /// Deletes a piece of what is at `path`, the last of it first. Whether there may be more.
    async fn delete_some(
        &self,
        actor: &Actor,
        number: i64,
        path: &FilePath,
        deletion: Deletion,
        cause: &Cause,
    ) -> Result<bool, SfsError> {
        let mut transaction = self.begin_change().await?;
        let namespace = lock(&mut transaction, actor, number).await?;
        match files::at(&mut *transaction, namespace.number, path).await? {
            // Somebody else has just deleted it.
            None => return Err(NO_FILE),
            Some(Entry { file: None, .. }) if !deletion.is_recursive => {
                if !files::is_empty(&mut *transaction, namespace.number, path).await? {
                    let message = format!("{path} is a folder and not empty: send ?recursive=true to delete all of it");
                    return Err(SfsError::conflict(message));
                }
            }
            Some(Entry { file: Some(file), .. }) => {
                if deletion.expected.is_some_and(|expected| expected != file.checksum) {
                    return Err(SfsError::NotAsExpected);
                }
            }
            Some(_) => {}
        }
        let removed = trees::remove_some(&mut transaction, namespace.number, Some(path), PIECE).await?;
        let gone: Vec<i64> = removed.iter().filter_map(|entry| entry.content).collect();
        contents::release(&mut transaction, &gone, self.read_lease()).await?;
        namespaces::add(&mut *transaction, namespace.number, lost(&removed)).await?;
        let teller = Teller { publisher: self.publisher(), cause };
        for entry in removed.iter().filter(|entry| entry.content.is_some()) {
            teller.removed(&mut transaction, (namespace.number, &entry.path), Some(actor.owner)).await?;
        }
        self.commit(transaction).await?;
        Ok(removed.iter().all(|entry| entry.path != *path))
    }
}
