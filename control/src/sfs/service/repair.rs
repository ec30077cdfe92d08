//! What a check has done about what it found, under the locks that everybody takes.

use edd_events::publisher::Cause;
use sqlx::AnyConnection;

use super::Service;
use super::happening::Teller;
use super::room::missing_folders;
use crate::sfs::error::SfsError;
use crate::sfs::model::Namespace;
use crate::sfs::store::differences::{self, Location};
use crate::sfs::store::namespaces::Change;
use crate::sfs::store::{contents, files, namespaces, owners, signed};

/// Files of a lost content that are read at a time.
const FILES: u32 = 100;

impl Service {
    /// Deletes the files that have a content of which bytes are lost.
    ///
    /// # Errors
    /// The database fails.
    pub(in crate::sfs) async fn delete_lost(&self, content: i64) -> Result<(), SfsError> {
        loop {
            let files = differences::files_of(self.database().reader(), content, FILES).await?;
            for file in &files {
                self.delete_file(file, Some(content)).await?;
            }
            if files.len() < FILES as usize {
                return Ok(());
            }
        }
    }

    /// Deletes a file, if it has the content `lost` still, or its content is gone.
    ///
    /// # Errors
    /// The database fails.
    pub(in crate::sfs) async fn delete_file(&self, at: &Location, lost: Option<i64>) -> Result<(), SfsError> {
        let mut transaction = self.begin_change().await?;
        let Some(namespace) = lock(&mut transaction, at.number).await? else { return Ok(()) };
        if !files::has_content(&mut *transaction, namespace.number, &at.path, lost).await? {
            return Ok(());
        }
        files::remove(&mut *transaction, namespace.number, &at.path).await?;
        if let Some(content) = lost {
            contents::release(&mut transaction, &[content], self.read_lease()).await?;
        }
        let teller = Teller { publisher: self.publisher(), cause: &Cause::default() };
        teller.removed(&mut transaction, (namespace.number, &at.path), None).await?;
        recount(&mut transaction, namespace.number).await?;
        self.commit(transaction).await
    }

    /// Makes the folders that an entry is in. False: one of them is a file.
    ///
    /// # Errors
    /// The database fails.
    pub(in crate::sfs) async fn house(&self, at: &Location) -> Result<bool, SfsError> {
        let mut transaction = self.begin_change().await?;
        let Some(namespace) = lock(&mut transaction, at.number).await? else { return Ok(true) };
        let missing = match missing_folders(&mut transaction, namespace.number, &at.path).await {
            Ok(missing) => missing,
            Err(SfsError::Conflict(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        self.add_folders(&mut transaction, namespace.number, &missing).await?;
        let change = Change { folders: signed(missing.len() as u64), ..Change::default() };
        namespaces::add(&mut *transaction, namespace.number, change).await?;
        self.commit(transaction).await?;
        Ok(true)
    }

    /// Counts again what a namespace has.
    ///
    /// # Errors
    /// The database fails.
    pub(in crate::sfs) async fn recount(&self, number: i64) -> Result<(), SfsError> {
        let mut transaction = self.begin_change().await?;
        if lock(&mut transaction, number).await?.is_some() {
            recount(&mut transaction, number).await?;
        }
        self.commit(transaction).await
    }
}

/// Counts again what a namespace has, which is locked.
async fn recount(connection: &mut AnyConnection, number: i64) -> Result<(), SfsError> {
    if let Some(usage) = differences::usage_of(&mut *connection, number).await? {
        let (counted, actual) = (usage.counted, usage.actual);
        let change = Change {
            bytes: actual.bytes - counted.bytes,
            files: actual.files - counted.files,
            folders: actual.folders - counted.folders,
        };
        namespaces::add(connection, number, change).await?;
    }
    Ok(())
}

/// A namespace, whosever it is, locked with its owner until the transaction ends. None: it is gone.
async fn lock(connection: &mut AnyConnection, number: i64) -> Result<Option<Namespace>, SfsError> {
    owners::lock_of(connection, number).await?;
    Ok(namespaces::lock(connection, number).await?)
}
