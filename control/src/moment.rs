//! Moments as the HTTP APIs write them.

use edd_events::clock::Micros;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Error;

/// As RFC 3339, in UTC.
///
/// # Errors
/// It is beyond the year 9999: 500.
pub(crate) fn rfc3339(at: Micros) -> Result<String, Error> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1000).map_err(Error::internal)?;
    at.format(&Rfc3339).map_err(Error::internal)
}
