//! Namespaces: made, looked at, changed, deleted.

use edd_events::publisher::Cause;

use super::Service;
use super::access::{least_visible, lock};
use super::happening::Teller;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Namespace, NamespaceName, Visibility, Visitor};
use crate::sfs::store::namespaces::{self, NewRow};
use crate::sfs::store::owners;

/// Namespaces that one page has at most.
const MAX_LISTED: u32 = 1000;

/// A namespace to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNamespace {
    pub name: NamespaceName,
    pub visibility: Visibility,
    pub is_hidden: bool,
}

/// What is to be other than it is; none: it stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceChange {
    pub name: Option<NamespaceName>,
    pub visibility: Option<Visibility>,
    pub is_hidden: Option<bool>,
}

/// Which namespaces are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// The visitor's own.
    Own,
    /// Theirs, and those of others that they may read and that are not hidden.
    All,
}

impl Service {
    /// Makes a namespace.
    ///
    /// # Errors
    /// The name is taken, or the user has too many.
    pub async fn create_namespace(
        &self,
        actor: &Actor,
        new: NewNamespace,
        cause: &Cause,
    ) -> Result<Namespace, SfsError> {
        let mut transaction = self.begin_change().await?;
        if !owners::lock(&mut transaction, actor.owner.user).await? {
            return Err(SfsError::OwnerGone);
        }
        let most = self.config().quotas.namespaces;
        if namespaces::count_of(&mut *transaction, actor.owner.user).await? >= i64::from(most) {
            return Err(SfsError::Count { what: "namespaces", most });
        }
        let row = NewRow {
            name: &new.name,
            owner: actor.owner,
            visibility: new.visibility,
            is_hidden: new.is_hidden,
            created_at: self.now(),
        };
        let inserted = namespaces::insert(&mut *transaction, row).await?;
        let mut namespace = inserted.ok_or_else(|| taken(&new.name))?;
        let teller = Teller { publisher: self.publisher(), cause };
        namespace.version = teller.created(&mut transaction, &namespace).await?;
        namespaces::save(&mut *transaction, &namespace).await?;
        self.commit(transaction).await?;
        Ok(namespace)
    }

    /// A page of namespaces by name, after the one called `after`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn namespaces(
        &self,
        visitor: &Visitor,
        which: Listed,
        after: Option<&NamespaceName>,
        most: u32,
    ) -> Result<Vec<Namespace>, SfsError> {
        let (reader, most) = (self.database().reader(), most.min(MAX_LISTED));
        let user = match visitor {
            Visitor::Anybody => None,
            Visitor::User(actor) => Some(actor.owner.user),
        };
        Ok(match (which, user) {
            (Listed::Own, None) => Vec::new(),
            (Listed::Own, Some(user)) => namespaces::of_user(reader, user, after, most).await?,
            (Listed::All, user) => namespaces::visible(reader, user, least_visible(visitor), after, most).await?,
        })
    }

    /// Calls a namespace otherwise, or shows it to others than before.
    ///
    /// # Errors
    /// There is none that the actor may change, or the name is taken.
    pub async fn change_namespace(
        &self,
        actor: &Actor,
        name: &NamespaceName,
        change: NamespaceChange,
        cause: &Cause,
    ) -> Result<Namespace, SfsError> {
        let seen = self.writable(actor, name).await?;
        let mut transaction = self.begin_change().await?;
        let before = lock(&mut transaction, actor, seen.number).await?;
        let mut namespace = before.clone();
        namespace.name = change.name.unwrap_or(namespace.name);
        namespace.visibility = change.visibility.unwrap_or(namespace.visibility);
        namespace.is_hidden = change.is_hidden.unwrap_or(namespace.is_hidden);
        if namespace == before {
            return Ok(namespace);
        }
        if (&namespace.name, namespace.visibility) != (&before.name, before.visibility) {
            let teller = Teller { publisher: self.publisher(), cause };
            namespace.version = teller.changed(&mut transaction, &namespace, before.visibility).await?;
        }
        let saved = namespaces::save(&mut *transaction, &namespace).await;
        saved.map_err(|error| if is_taken(&error) { taken(&namespace.name) } else { error.into() })?;
        self.commit(transaction).await?;
        Ok(namespace)
    }

    /// Deletes a namespace with all that is in it. It is gone at once, and its name free; its bytes go after it.
    ///
    /// # Errors
    /// There is none that the actor may change.
    pub async fn delete_namespace(&self, actor: &Actor, name: &NamespaceName, cause: &Cause) -> Result<(), SfsError> {
        let seen = self.writable(actor, name).await?;
        let mut transaction = self.begin_change().await?;
        let namespace = lock(&mut transaction, actor, seen.number).await?;
        let teller = Teller { publisher: self.publisher(), cause };
        let version = teller.deleted(&mut transaction, &namespace).await?;
        namespaces::bury(&mut *transaction, namespace.number, version, self.now()).await?;
        self.commit(transaction).await
    }
}

fn taken(name: &NamespaceName) -> SfsError {
    SfsError::conflict(format!("there is a namespace called {name} already: choose another name"))
}

fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}
