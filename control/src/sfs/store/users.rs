//! The users, as the events of the auth service tell of them: `user_cache`.

use edd_proto::UserId;
use sqlx::{Row, query};

use super::{Connection, parsed, places};
use crate::sfs::model::Owner;

/// The user who has this id.
pub async fn by_id(connection: impl Connection<'_>, user: UserId) -> sqlx::Result<Option<Owner>> {
    let statement = "SELECT user_number FROM user_cache WHERE user_id = $1 AND deleted = 0";
    let row = query(statement).bind(user.as_str()).fetch_optional(connection).await?;
    let number = row.map(|row| row.try_get::<Option<i64>, _>("user_number")).transpose()?;
    Ok(number.map(|number| Owner { user, number: number.unwrap_or_default() }))
}

/// The names of users, as far as they are known.
pub async fn names(connection: impl Connection<'_>, users: &[UserId]) -> sqlx::Result<Vec<(UserId, String)>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let statement = format!("SELECT user_id, username FROM user_cache WHERE user_id IN ({})", places(1, users.len()));
    let select = users.iter().fold(query(sqlx::AssertSqlSafe(statement)), |select, user| select.bind(user.to_string()));
    let rows = select.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((parsed(row, "user_id")?, row.try_get("username")?))).collect()
}
