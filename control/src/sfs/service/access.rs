//! Who may read, and who may write.

use sqlx::AnyConnection;

use super::{NO_NAMESPACE, Service};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Namespace, NamespaceName, Visibility, Visitor};
use crate::sfs::store::{self, namespaces, owners};

/// Whether a visitor reads what is in a namespace.
pub(super) fn may_read(visitor: &Visitor, namespace: &Namespace) -> bool {
    let is_commanded = matches!(visitor, Visitor::User(actor) if actor.commands(namespace.owner));
    is_commanded || namespace.visibility >= least_visible(visitor)
}

/// What a visitor reads although it is somebody else's: this, and what is more public.
pub(super) fn least_visible(visitor: &Visitor) -> Visibility {
    match visitor {
        Visitor::Anybody => Visibility::Public,
        Visitor::User(_) => Visibility::Internal,
    }
}

/// Why somebody may not change a namespace: who does not see it learns nothing.
fn check_write(actor: &Actor, namespace: &Namespace) -> Result<(), SfsError> {
    if actor.commands(namespace.owner) {
        Ok(())
    } else if may_read(&Visitor::User(*actor), namespace) {
        Err(SfsError::NotYours)
    } else {
        Err(NO_NAMESPACE)
    }
}

impl Service {
    /// A namespace that the visitor may read.
    ///
    /// # Errors
    /// There is none that they see.
    pub async fn namespace(&self, visitor: &Visitor, name: &NamespaceName) -> Result<Namespace, SfsError> {
        let found = namespaces::by_name(self.database().reader(), name).await?;
        found.filter(|namespace| may_read(visitor, namespace)).ok_or(NO_NAMESPACE)
    }

    /// A namespace that the actor may change, as it is now; it is not locked.
    ///
    /// # Errors
    /// There is none, or it is somebody else's.
    pub(in crate::sfs) async fn writable(&self, actor: &Actor, name: &NamespaceName) -> Result<Namespace, SfsError> {
        let found = namespaces::by_name(self.database().reader(), name).await?.ok_or(NO_NAMESPACE)?;
        check_write(actor, &found)?;
        Ok(found)
    }
}

/// A namespace that the actor may change, locked with its owner until the transaction ends.
///
/// # Errors
/// It is gone, or somebody else's.
pub(in crate::sfs) async fn lock(
    connection: &mut AnyConnection,
    actor: &Actor,
    number: i64,
) -> Result<Namespace, SfsError> {
    let owner = owners::lock_of(connection, number).await?;
    if owner.is_some_and(|owner| owner.is_deleted) {
        return Err(SfsError::OwnerGone);
    }
    let namespace = store::namespaces::lock(connection, number).await?.ok_or(NO_NAMESPACE)?;
    if namespace.owner.map(|owner| owner.user) != owner.map(|owner| owner.user) {
        return Err(SfsError::conflict("the namespace has just become somebody else's: try again"));
    }
    check_write(actor, &namespace)?;
    Ok(namespace)
}
