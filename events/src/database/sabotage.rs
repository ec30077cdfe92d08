//! A database that is away, or ends a transaction without saying how: what tests do to one that is otherwise fine.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;

use super::Database;

/// Decides when.
pub(crate) trait Saboteur: Debug + Send + Sync {
    /// Whether nobody reaches the database now.
    fn is_away(&self) -> bool;

    /// Whether this commit does not reach it.
    fn loses_commit(&self) -> bool;

    /// Whether nobody hears that this commit has reached it.
    fn silences_commit(&self) -> bool;
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sabotage(Option<(Arc<dyn Saboteur>, AnyPool)>);

impl Sabotage {
    /// The pool that is handed out while the database is away.
    pub(super) fn closed(&self) -> Option<&AnyPool> {
        self.0.as_ref().filter(|(saboteur, _)| saboteur.is_away()).map(|(_, closed)| closed)
    }

    pub(super) fn before_commit(&self) -> sqlx::Result<()> {
        self.fail_if(|saboteur| saboteur.loses_commit())
    }

    pub(super) fn after_commit(&self) -> sqlx::Result<()> {
        self.fail_if(|saboteur| saboteur.silences_commit())
    }

    fn fail_if(&self, fails: impl Fn(&dyn Saboteur) -> bool) -> sqlx::Result<()> {
        match &self.0 {
            Some((saboteur, _)) if fails(&**saboteur) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            _ => Ok(()),
        }
    }
}

impl Database {
    /// The same database, as `saboteur` lets it be seen.
    pub(crate) async fn sabotaged(&self, saboteur: Arc<dyn Saboteur>) -> Self {
        let closed = AnyPoolOptions::new().connect_lazy("sqlite::memory:").expect("a URL");
        closed.close().await;
        Self { sabotage: Sabotage(Some((saboteur, closed))), ..self.clone() }
    }
}
