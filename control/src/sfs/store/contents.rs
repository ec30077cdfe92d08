//! Contents and the files that share them.

use std::collections::BTreeMap;

use edd_events::clock::Micros;
use sqlx::{AnyConnection, query, query_scalar};

use super::{Connection, blobs, signed};
use crate::sfs::model::Checksum;

/// Adds a content that one file has.
pub async fn insert(connection: impl Connection<'_>, size: u64, checksum: Checksum) -> sqlx::Result<i64> {
    let statement = "INSERT INTO contents (size, sha256, refs) VALUES ($1, $2, 1) RETURNING number";
    query_scalar(statement).bind(signed(size)).bind(checksum.0.to_vec()).fetch_one(connection).await
}

/// Notes that files have them no more; one for each time that it is in `numbers`. The blobs of those that no file has any
/// more are garbage from `due_at` on.
pub async fn release(connection: &mut AnyConnection, numbers: &[i64], due_at: Micros) -> sqlx::Result<()> {
    // In order, as everybody locks them.
    let mut times: BTreeMap<i64, i64> = BTreeMap::new();
    for number in numbers {
        *times.entry(*number).or_default() += 1;
    }
    for (number, times) in times {
        let update = query_scalar("UPDATE contents SET refs = refs - $1 WHERE number = $2 RETURNING refs");
        let refs: Option<i64> = update.bind(times).bind(number).fetch_optional(&mut *connection).await?;
        if refs.is_some_and(|refs| refs <= 0) {
            query("DELETE FROM contents WHERE number = $1").bind(number).execute(&mut *connection).await?;
            blobs::detach(&mut *connection, number, due_at).await?;
        }
    }
    Ok(())
}
