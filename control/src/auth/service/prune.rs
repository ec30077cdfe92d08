//! Forgets what has ended by itself.

use super::Service;
use crate::auth::error::AuthError;
use crate::auth::store::{revocations, sessions, tokens};

/// Rows that one statement removes: it holds SQLite's only writer.
const BATCH_ROWS: u32 = 1000;

impl Service {
    /// Removes sessions, API tokens and revocations that are over, and tries that were long ago. How many rows.
    ///
    /// # Errors
    /// The database fails.
    pub async fn prune(&self) -> Result<u64, AuthError> {
        let limits = &self.0.limits;
        limits.logins_per_address.prune();
        limits.logins_per_account.prune();
        limits.registrations_per_address.prune();
        limits.refreshes_per_session.prune();
        let (now, writer) = (self.0.clock.now(), self.0.database.writer());
        let mut rows = 0;
        loop {
            let batch = sessions::prune(writer, now, BATCH_ROWS).await?
                + tokens::prune(writer, now, BATCH_ROWS).await?
                + revocations::prune(writer, now, BATCH_ROWS).await?;
            rows += batch;
            if batch < u64::from(BATCH_ROWS) {
                return Ok(rows);
            }
        }
    }
}
