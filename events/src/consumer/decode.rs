//! From the bytes of a message to the event that they are.

use std::error::Error;

use edd_proto::{AnyEvent, Encoding, Envelope};

use crate::consumer::Failure;
use crate::message::Message;

/// What `message` says, and who says it when. For handlers alone: nothing on the way to them decodes.
///
/// # Errors
/// [`Failure::Permanent`]: its subject is no event's, or the bytes are not the subject's event. The text names the field.
pub fn decode(message: &Message) -> Result<(AnyEvent, Envelope), Failure> {
    let content_type = Some(message.content_type.as_str()).filter(|text| !text.is_empty());
    let encoding = Encoding::from_content_type(content_type).map_err(permanent)?;
    let event = AnyEvent::decode(&message.subject, encoding, &message.payload).map_err(permanent)?;
    let envelope = event.envelope().map_err(permanent)?;
    Ok((event, envelope))
}

fn permanent(error: impl Error + 'static) -> Failure {
    let error: &(dyn Error + 'static) = &error;
    // The cause is what names the field.
    let causes = std::iter::successors(error.source(), |cause| (**cause).source());
    Failure::Permanent(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}
