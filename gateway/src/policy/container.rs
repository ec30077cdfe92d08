//! What a container's state and settings mean for requests to it.

use crate::decision::{Answer, Peer, RequestHead};
use crate::live::{Backend, Place, Status};
use crate::reason::Reason;

/// Refuses what its owner switched off.
pub fn check_https(backend: &Backend, head: &RequestHead<'_>, peer: &Peer<'_>) -> Result<(), Answer> {
    if backend.https_enabled() || super::forwarding::scheme(head.headers, peer) != "https" {
        return Ok(());
    }
    Err(Answer::new(Reason::HttpsDisabled, "its owner has switched HTTPS off for this container; plain HTTP answers"))
}

/// Whether a request is sent to the container as it is; false: it has to be woken before.
///
/// # Errors
/// It does not take requests, and none of them changes that.
pub fn is_awake(backend: &Backend) -> Result<bool, Answer> {
    let refuse = |reason, detail| Err(Answer::new(reason, detail));
    match (backend.status(), backend.place()) {
        (Status::Hibernated, _) => Ok(false),
        (Status::Starting, _) | (Status::Running, Place::Nowhere) => {
            refuse(Reason::ContainerStarting, "it will answer in a moment")
        }
        (Status::Running, Place::Ip(..) | Place::Name(_)) => Ok(true),
        (Status::Stopped, _) => refuse(Reason::ContainerStopped, "its owner stopped it and can start it again"),
        (Status::Failed, _) => {
            refuse(Reason::ContainerFailed, "its owner finds the reason in its logs and can start it again")
        }
    }
}
