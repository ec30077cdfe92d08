//! Files and folders that are moved or copied. What is in them stays where it is: paths change, contents are shared.

use std::collections::BTreeSet;

use edd_events::clock::Micros;
use edd_events::publisher::Cause;
use sqlx::AnyConnection;

use super::access::lock;
use super::happening::Teller;
use super::room::{check_replace, missing_folders};
use super::{NO_FILE, Service};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Entry, FilePath, Invalid, Namespace, NamespaceName, Replace, Visitor};
use crate::sfs::store::namespaces::Change;
use crate::sfs::store::trees::Tree;
use crate::sfs::store::{contents, files, namespaces, owners, signed, trees};

/// A path in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub namespace: NamespaceName,
    pub path: FilePath,
}

/// Where something is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct To {
    pub namespace: NamespaceName,
    pub path: FilePath,
    /// What becomes of a file that is there. A folder is never replaced.
    pub replace: Replace,
}

/// What happens to what is at the old path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Move,
    Copy,
}

/// A tree on its way, between namespaces that are locked.
struct Transfer<'a> {
    way: Way,
    source: Namespace,
    destination: Namespace,
    from: &'a FilePath,
    to: &'a FilePath,
    /// What is at the old path, and below it.
    entries: Vec<Entry>,
}

impl Service {
    /// Calls a file or a folder otherwise, or moves it to another folder or namespace.
    ///
    /// # Errors
    /// There is none, something is there already, there is no room, or there is too much in it to move at once.
    pub async fn move_entry(&self, actor: &Actor, from: &Place, to: &To, cause: &Cause) -> Result<Entry, SfsError> {
        let source = self.writable(actor, &from.namespace).await?;
        self.transfer(Way::Move, actor, (&source, &from.path), to, cause).await
    }

    /// Copies a file or a folder that the actor may read.
    ///
    /// # Errors
    /// As of [`Service::move_entry`].
    pub async fn copy_entry(&self, actor: &Actor, from: &Place, to: &To, cause: &Cause) -> Result<Entry, SfsError> {
        let source = self.namespace(&Visitor::User(*actor), &from.namespace).await?;
        self.transfer(Way::Copy, actor, (&source, &from.path), to, cause).await
    }

    async fn transfer(
        &self,
        way: Way,
        actor: &Actor,
        (source, from): (&Namespace, &FilePath),
        to: &To,
        cause: &Cause,
    ) -> Result<Entry, SfsError> {
        let destination = self.writable(actor, &to.namespace).await?;
        let is_same = source.number == destination.number;
        if is_same && to.path.is_within(from) {
            return Err(SfsError::conflict(format!("{} is in {from}, or is it: choose another place", to.path)));
        }
        let mut transaction = self.begin_change().await?;
        let (source, destination) = match way {
            Way::Move => lock_both(&mut transaction, actor, source, &destination).await?,
            // Nothing of the source changes but how many files share its contents.
            Way::Copy => (source.clone(), lock(&mut transaction, actor, destination.number).await?),
        };
        let entries = self.entries(&mut transaction, source.number, from).await?;
        let transfer = Transfer { way, source, destination, from, to: &to.path, entries };
        self.make_way(&mut transaction, &transfer, to.replace).await?;
        let moved = self.put(&mut transaction, &transfer).await?;
        let teller = Teller { publisher: self.publisher(), cause };
        transfer.tell(&mut transaction, teller, actor).await?;
        self.commit(transaction).await?;
        Ok(moved)
    }

    /// All that is at a path.
    async fn entries(
        &self,
        connection: &mut AnyConnection,
        namespace: i64,
        path: &FilePath,
    ) -> Result<Vec<Entry>, SfsError> {
        let most = self.config().quotas.tree_entries;
        let entries = trees::entries(connection, Tree { namespace, path }, most.saturating_add(1)).await?;
        if entries.is_empty() {
            return Err(NO_FILE);
        }
        if entries.len() > most as usize {
            let message = format!("{path} has more than {most} files and folders in it: move or copy what is in it");
            return Err(SfsError::conflict(message));
        }
        Ok(entries)
    }

    /// Sees to it that nothing is at the new path, that the folders that it is in are there, and that there is room.
    async fn make_way(
        &self,
        connection: &mut AnyConnection,
        transfer: &Transfer<'_>,
        replace: Replace,
    ) -> Result<(), SfsError> {
        let (number, to) = (transfer.destination.number, transfer.to);
        let found = files::at(&mut *connection, number, to).await?;
        check_replace(found.as_ref(), replace, to)?;
        if found.is_some() && transfer.entries[0].is_folder() {
            return Err(SfsError::conflict(format!("{to} is a file: a folder does not take its place")));
        }
        for entry in &transfer.entries {
            entry.path.moved(transfer.from, to)?;
        }
        let missing = missing_folders(connection, number, to).await?;
        let mut grows = Change { folders: signed(missing.len() as u64), ..Change::default() };
        if let Some(replaced) = &found {
            grows = Change { bytes: -signed(replaced.size()), files: -1, ..grows };
        }
        let comes = transfer.size();
        let change = if transfer.adds() { grows.and(comes) } else { grows };
        let owners = if transfer.keeps_owner() { grows } else { change };
        self.check_rooms(connection, &transfer.destination, change, owners).await?;
        if let Some(replaced) = found {
            files::remove(&mut *connection, number, to).await?;
            let gone: Vec<i64> = replaced.file.map(|file| file.content).into_iter().collect();
            contents::release(connection, &gone, self.read_lease()).await?;
        }
        self.add_folders(connection, number, &missing).await?;
        namespaces::add(&mut *connection, number, change).await?;
        if transfer.way == Way::Move && transfer.source.number != number {
            namespaces::add(&mut *connection, transfer.source.number, comes.reversed()).await?;
        }
        Ok(())
    }

    async fn put(&self, connection: &mut AnyConnection, transfer: &Transfer<'_>) -> Result<Entry, SfsError> {
        let from = Tree { namespace: transfer.source.number, path: transfer.from };
        let to = Tree { namespace: transfer.destination.number, path: transfer.to };
        match transfer.way {
            Way::Move => trees::rename(&mut *connection, from, to).await?,
            Way::Copy => {
                // What was read, and not what is there by now: that is what was counted.
                let copies = transfer.copies(self.now())?;
                if !trees::copy(connection, to, &copies).await? {
                    return Err(SfsError::conflict("what is copied was changed at this moment: try again"));
                }
            }
        }
        files::at(connection, to.namespace, to.path).await?.ok_or(NO_FILE)
    }
}

impl Transfer<'_> {
    /// What it has in it.
    fn size(&self) -> Change {
        self.entries.iter().fold(Change::default(), |change, entry| match entry.is_folder() {
            true => Change { folders: change.folders + 1, ..change },
            false => Change { bytes: change.bytes + signed(entry.size()), files: change.files + 1, ..change },
        })
    }

    /// All of it, as it is to be at the new path.
    fn copies(&self, now: Micros) -> Result<Vec<Entry>, Invalid> {
        let copy = |entry: &Entry| {
            let path = entry.path.moved(self.from, self.to)?;
            Ok(Entry { path, file: entry.file.clone(), created_at: now, modified_at: now })
        };
        self.entries.iter().map(copy).collect()
    }

    /// Whether the namespace that it goes to has more for it.
    fn adds(&self) -> bool {
        self.way == Way::Copy || self.source.number != self.destination.number
    }

    /// Whether its owner has as much after it as before.
    fn keeps_owner(&self) -> bool {
        self.way == Way::Move && self.source.owner == self.destination.owner
    }

    async fn tell(&self, connection: &mut AnyConnection, teller: Teller<'_>, actor: &Actor) -> Result<(), SfsError> {
        for entry in self.entries.iter().filter(|entry| !entry.is_folder()) {
            if self.way == Way::Move {
                teller.removed(connection, (self.source.number, &entry.path), Some(actor.owner)).await?;
            }
            let path = entry.path.moved(self.from, self.to)?;
            teller.uploaded(connection, (self.destination.number, &path, entry.size()), actor.owner).await?;
        }
        Ok(())
    }
}

/// Two namespaces, perhaps one and the same, locked with their owners in the order in which everybody locks them.
async fn lock_both(
    connection: &mut AnyConnection,
    actor: &Actor,
    source: &Namespace,
    destination: &Namespace,
) -> Result<(Namespace, Namespace), SfsError> {
    let users: BTreeSet<_> = [source, destination].iter().filter_map(|it| it.owner).map(|owner| owner.user).collect();
    for user in users {
        owners::lock(connection, user).await?;
    }
    let (low, high) = (source.number.min(destination.number), source.number.max(destination.number));
    let low = lock(connection, actor, low).await?;
    let high = if low.number == high { low.clone() } else { lock(connection, actor, high).await? };
    Ok(if low.number == source.number { (low, high) } else { (high, low) })
}
