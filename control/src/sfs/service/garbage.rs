//! What nobody needs any more, and how it goes: a piece at a time.

use futures_util::{StreamExt, stream};

use super::Service;
use crate::sfs::error::SfsError;
use crate::sfs::storage::{BlobId, StorageError};
use crate::sfs::store::{blobs, contents, namespaces, shares, trees, uploads};

/// Blobs that are removed in one go.
const BLOBS: u32 = 100;
/// Of those, at one time.
const AT_ONCE: usize = 8;
/// Files of a deleted namespace that one transaction takes away.
const FILES: u32 = 500;

impl Service {
    /// Removes a piece of what is garbage by now from the store, and then from the database: who is stopped in between
    /// leaves rows by which it is done again. Whether there may be more.
    ///
    /// # Errors
    /// The database or the store fails. What is not removed is tried again.
    pub(in crate::sfs) async fn collect(&self) -> Result<bool, SfsError> {
        let database = self.database();
        let due = blobs::condemn(database.writer(), self.now(), BLOBS).await?;
        let is_more = due.len() == BLOBS as usize;
        let removals = due.into_iter().map(|id| async move { (id, self.store().delete(id).await) });
        let outcomes: Vec<(BlobId, Result<(), StorageError>)> =
            stream::iter(removals).buffer_unordered(AT_ONCE).collect().await;
        let (mut removed, mut failure) = (Vec::new(), None);
        for (id, outcome) in outcomes {
            match outcome {
                Ok(()) => removed.push(id),
                Err(error) => failure = Some(error),
            }
        }
        blobs::forget(database.writer(), &removed).await?;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(is_more),
        }
    }

    /// Takes a piece of what is left of deleted namespaces away. Whether there may be more.
    ///
    /// # Errors
    /// The database fails.
    pub(in crate::sfs) async fn purge_some(&self) -> Result<bool, SfsError> {
        let deleted = namespaces::deleted(self.database().reader(), 1).await?;
        let Some(number) = deleted.first().copied() else { return Ok(false) };
        let mut transaction = self.begin_change().await?;
        let removed = trees::remove_some(&mut transaction, number, None, FILES).await?;
        let gone: Vec<i64> = removed.iter().filter_map(|entry| entry.content).collect();
        contents::release(&mut transaction, &gone, self.read_lease()).await?;
        let mut is_left = removed.len() == FILES as usize;
        is_left |= uploads::forget_some(&mut transaction, number, FILES, self.now()).await?;
        is_left |= shares::forget_some(&mut *transaction, number, FILES).await?;
        if !is_left {
            namespaces::forget(&mut *transaction, number).await?;
        }
        self.commit(transaction).await?;
        Ok(true)
    }
}
