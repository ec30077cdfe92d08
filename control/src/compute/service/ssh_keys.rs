//! SSH keys of users.

use edd_events::publisher::Cause;
use edd_proto::compute::SshKeyCreated;

use super::containers::MAX_LISTED;
use super::deletion::tell_key;
use super::{Happening, Service, tell};
use crate::caller::{Caller, Permit};
use crate::compute::error::ComputeError;
use crate::compute::model::{Invalid, PublicKey, SshKey};
use crate::compute::store::ssh_keys::{self, NewKey};
use crate::compute::store::{containers, owners};

/// Keys that one list has at most.
const MAX_KEYS: u32 = 1000;
/// Longest name, characters.
const MAX_NAME_CHARS: usize = 64;

impl Service {
    /// The caller's keys, the oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn ssh_keys(&self, permit: Permit) -> Result<Vec<SshKey>, ComputeError> {
        Ok(ssh_keys::of_user(self.database().reader(), permit.owner(), MAX_KEYS).await?)
    }

    /// Adds a key. Without a name, it is called by its comment.
    ///
    /// # Errors
    /// The user has it, or has too many.
    pub async fn add_ssh_key(
        &self,
        caller: &Caller,
        permit: Permit,
        name: &str,
        key: PublicKey,
        cause: &Cause,
    ) -> Result<SshKey, ComputeError> {
        let name = key_name(name, &key)?;
        let mut transaction = self.database().begin().await?;
        if !owners::lock(&mut transaction, permit.owner()).await? {
            return Err(ComputeError::OwnerGone);
        }
        let most = self.config().quotas.ssh_keys;
        if ssh_keys::count(&mut *transaction, permit.owner()).await? >= i64::from(most) {
            return Err(ComputeError::Quota { what: "SSH keys", most });
        }
        let (owner, owner_number, created_at) = (permit.owner(), caller.number, self.now());
        let new = NewKey { owner, owner_number, name: &name, key: &key, created_at };
        let number = ssh_keys::insert(&mut *transaction, &new).await?;
        let number = number.ok_or(ComputeError::Conflict("you have this key already"))?;
        let event = SshKeyCreated {
            key_id: number,
            user_id: owner_number,
            user_uid: owner.to_string(),
            name: name.clone(),
            fingerprint: key.fingerprint.clone(),
            public_key: key.line.clone(),
            ..Default::default()
        };
        let version = self.publisher().add(&mut transaction, event, cause).await?;
        ssh_keys::set_version(&mut *transaction, number, version).await?;
        self.database().commit(transaction).await?;
        let (fingerprint, public_key) = (key.fingerprint, key.line);
        Ok(SshKey { number, owner, owner_number, name, fingerprint, public_key, version, created_at, deleted_at: None })
    }

    /// Deletes a key, also one that containers name: those that name no other let nobody in afterwards.
    ///
    /// # Errors
    /// The caller has no such key.
    pub async fn delete_ssh_key(&self, permit: Permit, number: i64, cause: &Cause) -> Result<(), ComputeError> {
        let mut transaction = self.database().begin().await?;
        owners::lock(&mut transaction, permit.owner()).await?;
        let buried = ssh_keys::bury(&mut *transaction, permit.owner(), number, self.now()).await?;
        let key = buried.ok_or(ComputeError::NotFound("SSH key"))?;
        let naming = containers::naming_key(&mut *transaction, number, MAX_LISTED).await?;
        ssh_keys::forget(&mut *transaction, number).await?;
        tell_key(self.publisher(), &mut transaction, &key, cause).await?;
        for id in naming {
            let Some(mut container) = containers::lock(&mut transaction, id).await? else { continue };
            tell(self.publisher(), &mut transaction, &mut container, Happening::SshToggled, cause).await?;
            containers::save(&mut *transaction, &container).await?;
        }
        self.database().commit(transaction).await?;
        self.changed(permit.owner());
        Ok(())
    }
}

fn key_name(name: &str, key: &PublicKey) -> Result<String, Invalid> {
    let name = match name.trim() {
        "" => key.comment.chars().take(MAX_NAME_CHARS).collect(),
        name => name.to_owned(),
    };
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(Invalid::new("name", "1 to 64 characters on one line"));
    }
    Ok(name)
}
