//! The databases of a simulation, used by one schedule after the other: opening them would cost more than a schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;

use super::auth;
use super::plan::Fault;
use super::reactor;
use super::world::World;
use crate::database::sabotage::Saboteur;
use crate::database::{Database, Step};
use crate::projection::{Projection, Table};
use crate::user_cache::{self, UserCache};

/// What a schedule leaves behind.
const CLEAR: &str = "DELETE FROM entity_versions; DELETE FROM outbox; DELETE FROM relayed_streams; DELETE FROM inbox; \
                     DELETE FROM retries; DELETE FROM dead_letters; DELETE FROM event_log; DELETE FROM projections; \
                     DELETE FROM users; DELETE FROM effects; DELETE FROM user_cache; DELETE FROM sqlite_sequence";
const STEPS: [Step; 3] = [user_cache::STEP, auth::USERS, reactor::EFFECTS];
pub(super) const STORES: usize = 3;

#[derive(Debug)]
pub(super) struct Arena {
    databases: [Database; STORES],
    /// What there is of a database that is away.
    closed: AnyPool,
}

/// A service's database.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// As the service sees it.
    pub database: Database,
    /// As it is.
    pub truth: Database,
    pub switch: Arc<Switch>,
}

impl Arena {
    pub async fn open() -> Self {
        let open = || Database::in_memory(&STEPS);
        let closed = AnyPoolOptions::new().connect_lazy("sqlite::memory:").expect("a URL");
        closed.close().await;
        Self { databases: [open().await, open().await, open().await], closed }
    }

    /// Empty databases.
    pub async fn stores(&self, world: &Arc<World>) -> [Store; STORES] {
        let mut stores = Vec::with_capacity(STORES);
        for truth in &self.databases {
            clear(truth).await;
            let switch = Arc::new(Switch { world: world.clone(), is_away: AtomicBool::new(false) });
            let database = truth.sabotaged(switch.clone(), &self.closed);
            stores.push(Store { database, truth: truth.clone(), switch });
        }
        stores.try_into().expect("one for each")
    }
}

async fn execute(database: &Database, sql: &'static str) {
    sqlx::raw_sql(sql).execute(database.writer()).await.expect(sql);
}

async fn clear(database: &Database) {
    let replays = sqlx::query_scalar::<_, Option<i64>>("SELECT max(shadows) FROM projections");
    if replays.fetch_one(database.reader()).await.expect("a number").unwrap_or_default() > 0 {
        // A table that was exchanged has indexes of the name that the next schedule's shadow wants.
        let shadows = sqlx::query_scalar::<_, String>(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'user_cache%'",
        );
        let shadows = shadows.fetch_all(database.reader()).await.expect("names");
        let mut transaction = database.begin().await.expect("a transaction");
        for table in shadows {
            let drop = sqlx::AssertSqlSafe(format!("DROP TABLE {table}"));
            sqlx::raw_sql(drop).execute(&mut *transaction).await.expect("no table");
        }
        Table::live(UserCache.shape()).create(database, &mut transaction).await.expect("a table");
        database.commit(transaction).await.expect("a commit");
    }
    execute(database, CLEAR).await;
}

/// Takes a database away.
#[derive(Debug)]
pub(super) struct Switch {
    world: Arc<World>,
    is_away: AtomicBool,
}

impl Switch {
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }
}

impl Saboteur for Switch {
    fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    fn loses_commit(&self) -> bool {
        self.world.strikes(Fault::LostCommit)
    }

    fn silences_commit(&self) -> bool {
        self.world.strikes(Fault::SilentCommit)
    }
}
