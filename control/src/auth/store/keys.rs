//! The keys that access tokens are signed with. Secrets: who reads auth_db can sign in as anybody.

use edd_events::clock::Micros;
use sqlx::{Row, query};

use super::{Connection, broken};
use crate::access_token::{MAX_KEYS, SigningKey};

/// A key and its time.
#[derive(Clone, Debug)]
pub struct StoredKey {
    /// Counts from 1.
    pub generation: i64,
    pub key: SigningKey,
    /// It signs from here until the next one does.
    pub active_from: Micros,
}

/// All keys that are kept, the oldest first.
pub async fn all(connection: impl Connection<'_>) -> sqlx::Result<Vec<StoredKey>> {
    let statement = "SELECT generation, pkcs8, active_from FROM signing_keys ORDER BY generation LIMIT $1";
    let rows = query(statement).bind(MAX_KEYS as i64).fetch_all(connection).await?;
    let read = |row: &sqlx::any::AnyRow| {
        let der = row.try_get::<Vec<u8>, _>("pkcs8")?;
        let key = SigningKey::from_pkcs8(&der).map_err(|error| broken("pkcs8", error))?;
        Ok(StoredKey { generation: row.try_get("generation")?, key, active_from: row.try_get("active_from")? })
    };
    rows.iter().map(read).collect()
}

/// Adds a key, unless another process has added that generation.
pub async fn insert(connection: impl Connection<'_>, key: &StoredKey) -> sqlx::Result<()> {
    let statement =
        "INSERT INTO signing_keys (generation, pkcs8, active_from) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let insert = query(statement).bind(key.generation).bind(key.key.pkcs8().to_vec()).bind(key.active_from);
    insert.execute(connection).await?;
    Ok(())
}

pub async fn remove(connection: impl Connection<'_>, generation: i64) -> sqlx::Result<()> {
    query("DELETE FROM signing_keys WHERE generation = $1").bind(generation).execute(connection).await?;
    Ok(())
}
