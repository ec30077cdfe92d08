//! Whether there is room: quotas of namespaces and of their owners.

use sqlx::AnyConnection;

use super::Service;
use crate::sfs::error::{Quota, SfsError, Unit, Whose};
use crate::sfs::model::{Actor, Entry, FilePath, Namespace, Replace, Target};
use crate::sfs::store::namespaces::Change;
use crate::sfs::store::owners::Used;
use crate::sfs::store::{self, files, owners, signed};

/// An upload that nothing is known against, before its bytes are there. What it says may be over when they are.
#[derive(Clone, Debug)]
pub(in crate::sfs) struct Admitted {
    pub namespace: Namespace,
    limits: Vec<Limit>,
}

/// As much as may come.
#[derive(Clone, Copy, Debug)]
enum Limit {
    File {
        most_bytes: u64,
    },
    /// A quota that what is replaced gives some room to.
    Quota {
        quota: Quota,
        replaced_bytes: u64,
    },
}

impl Limit {
    fn check(self, bytes: u64) -> Result<(), SfsError> {
        match self {
            Self::File { most_bytes } if bytes > most_bytes => Err(SfsError::TooLarge { most_bytes, bytes }),
            Self::Quota { quota, replaced_bytes } => {
                let asked = bytes.saturating_sub(replaced_bytes);
                match quota.used.saturating_add(asked) > quota.most && asked > 0 {
                    true => Err(Quota { asked, ..quota }.into()),
                    false => Ok(()),
                }
            }
            Self::File { .. } => Ok(()),
        }
    }
}

impl Admitted {
    /// Whether a file of so many bytes may come, as far as is known.
    ///
    /// # Errors
    /// It is too large.
    pub fn check(&self, bytes: u64) -> Result<(), SfsError> {
        self.limits.iter().try_for_each(|limit| limit.check(bytes))
    }
}

impl Service {
    /// Refuses early what would be refused once the bytes are there.
    ///
    /// # Errors
    /// As of [`Service::begin`].
    pub(in crate::sfs) async fn admit(&self, actor: &Actor, target: &Target) -> Result<Admitted, SfsError> {
        let namespace = self.writable(actor, &target.namespace).await?;
        let mut connection = self.database().reader().acquire().await?;
        let found = files::at(&mut *connection, namespace.number, &target.path).await?;
        check_replace(found.as_ref(), target.replace, &target.path)?;
        let replaced_bytes = found.as_ref().map_or(0, Entry::size);
        let missing = missing_folders(&mut connection, namespace.number, &target.path).await?;
        let entries = missing.len() + usize::from(found.is_none());
        let change = Change { files: signed(entries as u64), ..Change::default() };
        self.check_room(&mut connection, &namespace, change).await?;
        let quotas = self.quotas(&mut connection, &namespace).await?.into_iter();
        let file = self.config().quotas.file_bytes.map(|most_bytes| Limit::File { most_bytes });
        let limits =
            quotas.filter(|quota| quota.unit == Unit::Bytes).map(|quota| Limit::Quota { quota, replaced_bytes });
        let admitted = Admitted { namespace, limits: limits.chain(file).collect() };
        admitted.check(target.declared_bytes.unwrap_or_default())?;
        Ok(admitted)
    }

    /// Whether there is room for a change of a namespace, which is locked with its owner if this is to be true until the
    /// change is made. What takes room from nobody is always fine.
    ///
    /// # Errors
    /// There is not: the quota.
    pub(in crate::sfs) async fn check_room(
        &self,
        connection: &mut AnyConnection,
        namespace: &Namespace,
        change: Change,
    ) -> Result<(), SfsError> {
        self.check_rooms(connection, namespace, change, change).await
    }

    /// The same where the owner does not get what the namespace gets: it was theirs before.
    ///
    /// # Errors
    /// There is not: the quota.
    pub(in crate::sfs) async fn check_rooms(
        &self,
        connection: &mut AnyConnection,
        namespace: &Namespace,
        change: Change,
        owners: Change,
    ) -> Result<(), SfsError> {
        if [change, owners].iter().all(|change| change.bytes <= 0 && change.entries() <= 0) {
            return Ok(());
        }
        for quota in self.quotas(connection, namespace).await? {
            let change = match quota.whose {
                Whose::Namespace => change,
                Whose::User => owners,
            };
            let asked = match quota.unit {
                Unit::Bytes => u64::try_from(change.bytes).unwrap_or_default(),
                Unit::Entries => u64::try_from(change.entries()).unwrap_or_default(),
            };
            if asked > 0 && quota.used.saturating_add(asked) > quota.most {
                return Err(Quota { asked, ..quota }.into());
            }
        }
        Ok(())
    }

    /// All quotas that a namespace is under, with what is used of them; nothing is asked.
    async fn quotas(&self, connection: &mut AnyConnection, namespace: &Namespace) -> Result<Vec<Quota>, SfsError> {
        let mut quotas = Vec::new();
        let quota = |whose, unit, most, used| Quota { whose, unit, most, used, asked: 0 };
        if let Some(most) = namespace.quota_bytes {
            let reserved = store::uploads::reserved_in(&mut *connection, namespace.number).await?;
            let used = namespace.used_bytes.saturating_add(reserved);
            quotas.push(quota(Whose::Namespace, Unit::Bytes, most, used));
        }
        if let Some(owner) = namespace.owner {
            let Used { bytes, entries } = owners::used(&mut *connection, owner.user).await?;
            let reserved = store::uploads::reserved_bytes(&mut *connection, owner.user).await?;
            let limits = &self.config().quotas;
            quotas.push(quota(Whose::User, Unit::Bytes, limits.user_bytes, bytes.saturating_add(reserved)));
            quotas.push(quota(Whose::User, Unit::Entries, limits.user_entries, entries));
        }
        Ok(quotas)
    }
}

/// Whether what is at a path may be replaced by a file.
pub(super) fn check_replace(found: Option<&Entry>, replace: Replace, path: &FilePath) -> Result<(), SfsError> {
    match (found.map(|entry| &entry.file), replace) {
        (Some(None), _) => Err(SfsError::conflict(format!("{path} is a folder: delete it, or choose another name"))),
        (None, Replace::Never | Replace::Always) | (Some(Some(_)), Replace::Always | Replace::Existing) => Ok(()),
        (None, Replace::Existing | Replace::Matching(_)) => Err(SfsError::NotAsExpected),
        (Some(Some(_)), Replace::Never) => Err(SfsError::Exists { path: path.clone() }),
        (Some(Some(file)), Replace::Matching(expected)) if file.checksum == expected => Ok(()),
        (Some(Some(_)), Replace::Matching(_)) => Err(SfsError::NotAsExpected),
    }
}

/// The folders that a path needs and that are not there, the outermost first.
///
/// # Errors
/// One of them is a file.
pub(super) async fn missing_folders(
    connection: &mut AnyConnection,
    namespace: i64,
    path: &FilePath,
) -> Result<Vec<FilePath>, SfsError> {
    let mut missing: Vec<FilePath> = path.ancestors().collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    for (there, is_folder) in files::kinds(&mut *connection, namespace, &missing).await? {
        if !is_folder {
            return Err(SfsError::conflict(format!("{there} is a file: nothing can be in it")));
        }
        missing.retain(|path| *path != there);
    }
    Ok(missing)
}
