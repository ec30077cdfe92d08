//! Bytes that were written become a file: the one transaction that everybody sees.

use edd_events::database::Transaction;
use edd_events::publisher::Cause;
use sqlx::AnyConnection;

use super::Service;
use super::access::lock;
use super::happening::Teller;
use super::room::{check_replace, missing_folders};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Checksum, Entry, File, FilePath, MediaType, Replace};
use crate::sfs::store::blobs::Piece;
use crate::sfs::store::namespaces::Change;
use crate::sfs::store::{blobs, contents, files, namespaces, signed};

/// A file to be, of which all bytes are in the store.
#[derive(Clone, Copy, Debug)]
pub(in crate::sfs) struct Placed<'a> {
    pub actor: &'a Actor,
    pub cause: &'a Cause,
    /// Of the namespace.
    pub namespace: i64,
    pub path: &'a FilePath,
    pub replace: Replace,
    pub media_type: &'a MediaType,
    /// Its bytes, in order: blobs whose rows no content has.
    pub pieces: &'a [Piece],
    pub checksum: Checksum,
}

impl Placed<'_> {
    fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }
}

impl Service {
    /// Puts a file at its path, whole and at once. The quota is the caller's to leave out of `reserved`: an upload that
    /// was counted already is taken away in `transaction` before.
    ///
    /// # Errors
    /// What was true when the upload began is so no more, or a piece of it is garbage by now. The transaction is to be
    /// dropped then.
    pub(in crate::sfs) async fn place(
        &self,
        transaction: &mut Transaction,
        placed: &Placed<'_>,
    ) -> Result<Entry, SfsError> {
        let namespace = lock(transaction, placed.actor, placed.namespace).await?;
        let found = files::at(&mut **transaction, namespace.number, placed.path).await?;
        check_replace(found.as_ref(), placed.replace, placed.path)?;
        let missing = missing_folders(transaction, namespace.number, placed.path).await?;
        let change = Change {
            bytes: signed(placed.size()) - found.as_ref().map_or(0, |entry| signed(entry.size())),
            files: i64::from(found.is_none()),
            folders: signed(missing.len() as u64),
        };
        self.check_room(transaction, &namespace, change).await?;
        self.add_folders(transaction, namespace.number, &missing).await?;
        let content = self.new_content(transaction, placed).await?;
        let (now, size, checksum) = (self.now(), placed.size(), placed.checksum);
        let entry = Entry {
            path: placed.path.clone(),
            file: Some(File { content, size, checksum, media_type: placed.media_type.clone() }),
            created_at: found.as_ref().map_or(now, |entry| entry.created_at),
            modified_at: now,
        };
        files::put(&mut **transaction, namespace.number, &entry).await?;
        if let Some(file) = found.and_then(|entry| entry.file) {
            contents::release(transaction, &[file.content], self.read_lease()).await?;
        }
        namespaces::add(&mut **transaction, namespace.number, change).await?;
        let teller = Teller { publisher: self.publisher(), cause: placed.cause };
        teller.uploaded(transaction, (namespace.number, placed.path, size), placed.actor.owner).await?;
        Ok(entry)
    }

    async fn new_content(&self, connection: &mut AnyConnection, placed: &Placed<'_>) -> Result<i64, SfsError> {
        let content = contents::insert(&mut *connection, placed.size(), placed.checksum).await?;
        for (ordinal, piece) in placed.pieces.iter().enumerate() {
            if !blobs::attach(&mut *connection, *piece, content, ordinal).await? {
                return Err(SfsError::Stalled);
            }
        }
        Ok(content)
    }

    /// Makes folders that are not there.
    pub(super) async fn add_folders(
        &self,
        connection: &mut AnyConnection,
        namespace: i64,
        missing: &[FilePath],
    ) -> Result<(), SfsError> {
        if missing.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let folder = |path: &FilePath| Entry { path: path.clone(), file: None, created_at: now, modified_at: now };
        let folders: Vec<Entry> = missing.iter().map(folder).collect();
        Ok(files::insert(connection, namespace, &folders).await?)
    }
}
