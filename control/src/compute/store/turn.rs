//! Whose turn it is: of all processes with one database, one drives the platform at a time, so that they do not repeat
//! each other's calls. Nothing else hangs on it: what two do at once is done once.

use edd_events::database::{Database, Kind, Transaction};
use sqlx::{query, query_scalar};

/// The key of PostgreSQL's advisory lock that the one reconciler of a database holds.
const LOCK: i64 = 0x6564_6452_6563_6f6e;
/// Lets go of the lock for a process that has not said anything for 30 s: one whose machine is gone ends no connection.
const LET_GO: &str = "SET LOCAL idle_in_transaction_session_timeout = 30000";

/// The turn of one process. Dropped, it is another's.
#[derive(Debug)]
pub struct Turn {
    database: Database,
    /// Holds the lock as long as it lasts.
    held: Option<Transaction>,
}

impl Turn {
    pub fn new(database: Database) -> Self {
        Self { database, held: None }
    }

    /// Whether it is ours, which it becomes if it is nobody's. To be asked more often than every 30 s.
    ///
    /// # Errors
    /// The database cannot be asked: then it is not.
    pub async fn is_ours(&mut self) -> sqlx::Result<bool> {
        // The file has one process.
        if self.database.kind() == Kind::Sqlite {
            return Ok(true);
        }
        if let Some(held) = &mut self.held {
            match query("SELECT 1").execute(&mut **held).await {
                Ok(_) => return Ok(true),
                Err(error) => tracing::info!(%error, "containers may be another process's to see to now"),
            }
            self.held = None;
        }
        let mut transaction = self.database.begin_relaxed().await?;
        let locked = query_scalar::<_, i64>("SELECT pg_try_advisory_xact_lock($1)::int::bigint");
        if locked.bind(LOCK).fetch_one(&mut *transaction).await? == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        query(LET_GO).execute(&mut *transaction).await?;
        self.held = Some(transaction);
        Ok(true)
    }

    /// Leaves it to another at once.
    pub async fn leave(self) {
        if let Some(held) = self.held
            && let Err(error) = held.rollback().await
        {
            tracing::debug!(%error, "the turn ends with its connection");
        }
    }
}

#[cfg(test)]
mod tests {
    use edd_events::database::Kind;

    use super::*;
    use crate::scratch::Scratch;

    #[tokio::test]
    async fn one_of_two_processes_has_the_turn_until_it_is_gone() {
        let scratch = Scratch::new(Kind::Postgres);
        let (first, second) = (scratch.open(&[]).await, scratch.open(&[]).await);
        let (mut one, mut other) = (Turn::new(first), Turn::new(second.clone()));
        for _ in 0..2 {
            assert!(one.is_ours().await.expect("asked"));
            assert!(!other.is_ours().await.expect("asked"));
        }
        one.leave().await;
        assert!(other.is_ours().await.expect("asked"));
        let mut third = Turn::new(second.clone());
        assert!(!third.is_ours().await.expect("asked"));
        // As when its process is killed.
        let kill = "SELECT pg_terminate_backend(pid, 20000) FROM pg_locks WHERE locktype = 'advisory' AND database = \
                    (SELECT oid FROM pg_database WHERE datname = current_database())";
        assert_eq!(query(kill).execute(second.writer()).await.expect("an end").rows_affected(), 1);
        assert!(third.is_ours().await.expect("asked"));
        assert!(!other.is_ours().await.expect("asked"));
    }

    #[tokio::test]
    async fn the_one_process_of_a_file_has_it_always() {
        let scratch = Scratch::new(Kind::Sqlite);
        assert!(Turn::new(scratch.open(&[]).await).is_ours().await.expect("asked"));
    }
}
