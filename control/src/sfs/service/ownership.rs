//! What administrators do to namespaces, whosever they are.

use edd_events::publisher::Cause;
use edd_proto::UserId;

use super::access::lock;
use super::happening::Teller;
use super::{NO_NAMESPACE, Service};
use crate::caller::Admin;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Namespace, NamespaceName, Owner};
use crate::sfs::store::{namespaces, owners, users};

/// Namespaces that one page has at most.
const MAX_LISTED: u32 = 1000;

/// Which namespaces an administrator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those that are nobody's.
    Orphaned,
}

impl Service {
    /// A page of all namespaces by name, after the one called `after`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn all_namespaces(
        &self,
        _: Admin,
        which: Which,
        after: Option<&NamespaceName>,
        most: u32,
    ) -> Result<Vec<Namespace>, SfsError> {
        let reader = self.database().reader();
        Ok(namespaces::page(reader, which == Which::Orphaned, after, most.min(MAX_LISTED)).await?)
    }

    /// Gives a namespace to another user, whatever they may have: quotas keep them from adding to it.
    ///
    /// # Errors
    /// There is none, or the user was deleted.
    pub async fn reassign(
        &self,
        admin: Admin,
        name: &NamespaceName,
        to: Owner,
        cause: &Cause,
    ) -> Result<Namespace, SfsError> {
        let actor = acting(admin);
        let seen = namespaces::by_name(self.database().reader(), name).await?.ok_or(NO_NAMESPACE)?;
        let mut transaction = self.begin_change().await?;
        // Owners in one order, whoever gives to whom.
        let mut users: Vec<_> = seen.owner.map(|owner| owner.user).into_iter().chain([to.user]).collect();
        users.sort_unstable();
        for user in users {
            if !owners::lock(&mut transaction, user).await? && user == to.user {
                return Err(SfsError::conflict("the user that it was to go to was deleted"));
            }
        }
        let mut namespace = lock(&mut transaction, &actor, seen.number).await?;
        if namespace.owner == Some(to) {
            return Ok(namespace);
        }
        namespace.owner = Some(to);
        let teller = Teller { publisher: self.publisher(), cause };
        namespace.version = teller.changed(&mut transaction, &namespace, namespace.visibility).await?;
        namespaces::save(&mut *transaction, &namespace).await?;
        self.commit(transaction).await?;
        Ok(namespace)
    }

    /// Gives a namespace to the user who has this id.
    ///
    /// # Errors
    /// There is no such user, as far as events have told yet, or no such namespace.
    pub async fn reassign_to(
        &self,
        admin: Admin,
        name: &NamespaceName,
        user: UserId,
        cause: &Cause,
    ) -> Result<Namespace, SfsError> {
        let to = users::by_id(self.database().reader(), user).await?;
        self.reassign(admin, name, to.ok_or(SfsError::NotFound("user"))?, cause).await
    }

    /// The names of users, as far as events have told them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn usernames(&self, _: Admin, users: &[UserId]) -> Result<Vec<(UserId, String)>, SfsError> {
        Ok(users::names(self.database().reader(), users).await?)
    }

    /// Limits a namespace to so many bytes, besides what its owner may have. None: it has no limit of its own.
    ///
    /// # Errors
    /// There is none.
    pub async fn set_quota(
        &self,
        admin: Admin,
        name: &NamespaceName,
        quota_bytes: Option<u64>,
    ) -> Result<Namespace, SfsError> {
        let actor = acting(admin);
        let seen = self.writable(&actor, name).await?;
        let mut transaction = self.begin_change().await?;
        let mut namespace = lock(&mut transaction, &actor, seen.number).await?;
        namespace.quota_bytes = quota_bytes;
        namespaces::save(&mut *transaction, &namespace).await?;
        self.commit(transaction).await?;
        Ok(namespace)
    }

    /// Deletes a namespace with all that is in it, whosever it is.
    ///
    /// # Errors
    /// There is none.
    pub async fn purge(&self, admin: Admin, name: &NamespaceName, cause: &Cause) -> Result<(), SfsError> {
        self.delete_namespace(&acting(admin), name, cause).await
    }
}

/// The administrator as one who changes a namespace. Nothing that is told of it names who did.
fn acting(admin: Admin) -> Actor {
    Actor { owner: Owner { user: admin.user(), number: 0 }, admin: Some(admin) }
}
