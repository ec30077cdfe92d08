//! Who may come in: SSH and HTTPS, switched on and off.

use edd_events::publisher::Cause;
use edd_proto::ContainerId;

use super::{Happening, Service, tell};
use crate::caller::Permit;
use crate::compute::error::ComputeError;
use crate::compute::model::Invalid;
use crate::compute::store::{self, owners, ssh_keys};

/// A change of who may log in; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshAccess {
    pub ssh_enabled: Option<bool>,
    /// Inside: none for all of the owner's keys, else those that are chosen.
    pub ssh_keys: Option<Option<Vec<i64>>>,
}

/// A change of how the container's host answers; what is none stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpsAccess {
    pub https_enabled: Option<bool>,
    pub redirect_to_https: Option<bool>,
}

impl Service {
    /// # Errors
    /// The caller has no such container, or names a key that they do not have.
    pub async fn set_ssh(
        &self,
        permit: Permit,
        id: ContainerId,
        change: SshAccess,
        cause: &Cause,
    ) -> Result<(), ComputeError> {
        let mut transaction = self.database().begin().await?;
        // A key cannot be deleted meanwhile.
        owners::lock(&mut transaction, permit.owner()).await?;
        let mut container = self.lock(&mut transaction, permit.owner(), id).await?;
        let before = container.access.clone();
        if let Some(enabled) = change.ssh_enabled {
            container.access.ssh_enabled = enabled;
        }
        if let Some(keys) = change.ssh_keys {
            if let Some(chosen) = &keys
                && !chosen.is_empty()
                && ssh_keys::count_of(&mut *transaction, permit.owner(), chosen).await? < chosen.len() as i64
            {
                return Err(Invalid::new("ssh_key_ids", "keys of yours: one of these does not exist").into());
            }
            container.access.ssh_keys = keys;
        }
        if container.access == before {
            return Ok(());
        }
        store::containers::set_keys(&mut transaction, &container).await?;
        tell(self.publisher(), &mut transaction, &mut container, Happening::SshToggled, cause).await?;
        self.commit(transaction, &container).await
    }

    /// # Errors
    /// The caller has no such container.
    pub async fn set_https(
        &self,
        permit: Permit,
        id: ContainerId,
        change: HttpsAccess,
        cause: &Cause,
    ) -> Result<(), ComputeError> {
        let mut transaction = self.database().begin().await?;
        let mut container = self.lock(&mut transaction, permit.owner(), id).await?;
        let access = &mut container.access;
        let before = access.clone();
        access.https_enabled = change.https_enabled.unwrap_or(access.https_enabled);
        access.redirect_to_https = change.redirect_to_https.unwrap_or(access.redirect_to_https);
        if access.redirect_to_https && !access.https_enabled {
            let rule = "false while https_enabled is false: a redirect would lead nowhere";
            return Err(Invalid::new("redirect_to_https", rule).into());
        }
        if *access == before {
            return Ok(());
        }
        tell(self.publisher(), &mut transaction, &mut container, Happening::HttpsToggled, cause).await?;
        self.commit(transaction, &container).await
    }
}
