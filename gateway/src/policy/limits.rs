//! How much a request may send.

use crate::decision::Answer;
use crate::decision::BodyLength;
use crate::reason::Reason;
use crate::route::Route;

/// Refuses a body that is announced as too large; one of unknown length is counted as it passes.
pub fn check_length(route: &Route, body: BodyLength) -> Result<(), Answer> {
    match (route.max_body_bytes, body) {
        (Some(limit), BodyLength::Bytes(length)) if length > limit => Err(too_large(limit)),
        _ => Ok(()),
    }
}

/// The answer to a body over `limit` bytes.
pub fn too_large(limit: u64) -> Answer {
    Answer::new(Reason::BodyTooLarge, format!("the body may have at most {limit} bytes here"))
}
