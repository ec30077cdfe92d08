//! The first administrator.

use edd_events::publisher::Cause;

use super::{NewAccount, Service};
use crate::auth::error::AuthError;
use crate::auth::model::{DisplayName, Username};
use crate::auth::store::users;

/// A password that was made up, to be shown to the operator once.
#[derive(Clone)]
pub struct FirstPassword {
    pub username: Username,
    pub password: String,
}

impl std::fmt::Debug for FirstPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstPassword").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Service {
    /// Creates the administrator if no process has ever done so on this database. Some: the password was made up here,
    /// and nobody else knows it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn first_start(&self) -> Result<Option<FirstPassword>, AuthError> {
        if users::has_started(self.0.database.reader()).await? {
            return Ok(None);
        }
        let configured = &self.0.config.first_admin;
        let (password, made_up) = match &configured.password {
            Some(password) => (password.clone(), None),
            None => {
                let secret = self.0.entropy.secret("");
                (secret.expose().parse()?, Some(secret.expose().to_owned()))
            }
        };
        let username = configured.username.clone();
        let account = NewAccount { display_name: DisplayName::from(&username), username, password };
        let hash = self.0.hasher.hash(account.password.password()).await?;
        let mut transaction = self.0.database.begin().await?;
        // Of two replicas that start at once, the second waits here for the first.
        if !users::claim_first_start(&mut *transaction, self.0.clock.now()).await? {
            return Ok(None);
        }
        let cause = Cause { correlation_id: "first-start".to_owned(), ..Cause::default() };
        self.create(&mut transaction, &account, &hash, true, &cause).await?;
        self.0.database.commit(transaction).await?;
        Ok(made_up.map(|password| FirstPassword { username: account.username, password }))
    }
}
