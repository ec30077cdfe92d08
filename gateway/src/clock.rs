//! Time as text.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Now, in RFC 3339 with milliseconds, UTC.
pub fn rfc3339_now() -> String {
    // Formatting to a String with these components cannot fail; an empty stamp beats a lost line.
    OffsetDateTime::now_utc().format(MILLISECONDS).unwrap_or_default()
}

const HTTP: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Now, as HTTP writes it (RFC 9110 §5.6.7).
pub fn http_now() -> String {
    OffsetDateTime::now_utc().format(HTTP).unwrap_or_default()
}

/// `micros` since the Unix epoch, in RFC 3339 with milliseconds, UTC.
pub fn rfc3339(micros: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000);
    at.ok().and_then(|at| at.format(MILLISECONDS).ok()).unwrap_or_default()
}
