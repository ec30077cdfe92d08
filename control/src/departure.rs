//! A user who is deleted, as the auth service tells it.

use edd_events::consumer::{Failure, decode};
use edd_events::message::Message;
use edd_proto::{AnyEvent, NamesUser, UserId};

/// The subjects that tell it.
pub(crate) const SUBJECTS: &[&str] = &["auth.user.*.deleted"];

/// Who is deleted. None: it is another event.
///
/// # Errors
/// The event names nobody.
pub(crate) fn departed(message: &Message) -> Result<Option<UserId>, Failure> {
    let AnyEvent::UserDeleted(event) = decode(message)?.0 else { return Ok(None) };
    let permanent = |error: &dyn std::fmt::Display| Failure::Permanent(error.to_string());
    let named = event.user().map_err(|error| permanent(&error))?.uid;
    // An event may have the number alone.
    let in_subject = || message.subject.split('.').nth(2).unwrap_or_default().parse::<UserId>();
    named.map_or_else(in_subject, Ok).map(Some).map_err(|error| permanent(&error))
}
