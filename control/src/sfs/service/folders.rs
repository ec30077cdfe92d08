//! Folders that are made before there is a file in them.

use edd_events::publisher::Cause;

use super::Service;
use super::access::lock;
use super::room::missing_folders;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Entry, FilePath, NamespaceName};
use crate::sfs::store::namespaces::Change;
use crate::sfs::store::{files, namespaces, signed};

impl Service {
    /// Makes a folder, and those that it is in.
    ///
    /// # Errors
    /// Something is there already, or the owner has too much.
    pub async fn make_folder(
        &self,
        actor: &Actor,
        namespace: &NamespaceName,
        path: &FilePath,
        _: &Cause,
    ) -> Result<Entry, SfsError> {
        let seen = self.writable(actor, namespace).await?;
        let mut transaction = self.begin_change().await?;
        let namespace = lock(&mut transaction, actor, seen.number).await?;
        if let Some(found) = files::at(&mut *transaction, namespace.number, path).await? {
            let what = if found.is_folder() { "folder" } else { "file" };
            return Err(SfsError::conflict(format!("{path} is a {what} already")));
        }
        let mut missing = missing_folders(&mut transaction, namespace.number, path).await?;
        missing.push(path.clone());
        let change = Change { folders: signed(missing.len() as u64), ..Change::default() };
        self.check_room(&mut transaction, &namespace, change).await?;
        self.add_folders(&mut transaction, namespace.number, &missing).await?;
        namespaces::add(&mut *transaction, namespace.number, change).await?;
        self.commit(transaction).await?;
        let now = self.now();
        Ok(Entry { path: path.clone(), file: None, created_at: now, modified_at: now })
    }
}
