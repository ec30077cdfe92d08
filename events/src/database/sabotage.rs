//! A database that is away, or ends a transaction without saying how: what simulations do to one that is otherwise fine.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;

use super::{ACQUIRE_TIMEOUT, Database, Kind, Step};

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
    /// One in memory, with one connection for everything: as fast as they get.
    pub(crate) async fn in_memory(steps: &[Step]) -> Self {
        sqlx::any::install_default_drivers();
        let options = AnyPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let options = options.test_before_acquire(false).idle_timeout(None).max_lifetime(None);
        let writer = options.connect("sqlite::memory:").await.expect("memory");
        let (reader, committed, sabotage) = (writer.clone(), Arc::default(), Sabotage::default());
        let database = Self { kind: Kind::Sqlite, writer, reader, committed, wake: None, sabotage };
        database.migrate(steps).await.expect("tables");
        database
    }

    /// The same database, as `saboteur` lets it be seen; `closed` is a pool that is.
    pub(crate) fn sabotaged(&self, saboteur: Arc<dyn Saboteur>, closed: &AnyPool) -> Self {
        assert!(closed.is_closed(), "what is away does not answer");
        Self { sabotage: Sabotage(Some((saboteur, closed.clone()))), ..self.clone() }
    }
}
