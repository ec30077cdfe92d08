//! The contract between services: events and requests as protobuf messages, each with its subject.
//!
//! The `.proto` files beside this crate's `src` define everything that other programs see: messages, and as an option of
//! each event its subject. From them the build makes the message types, [`EventKind`], [`AnyEvent`] and the [`Event`]
//! of each. A new event is a message with its `option (common.subject)`.
//!
//! Imports no other crate of the workspace.

#![warn(missing_docs)]

mod encoding;
mod event;
mod event_id;
mod id;
mod json;
mod metadata;
mod request;
mod stream;
mod subject;
mod timestamp;
mod user;

pub use encoding::{DecodeError, Encoding, MAX_MESSAGE_BYTES, Message, TooLarge, UnknownEncoding};
pub use event::{AnyEvent, Event, EventKind};
pub use event_id::{EventId, InvalidEventId};
pub use id::{ContainerId, InvalidId, UserId};
pub use json::UNKNOWN_NAME;
pub use metadata::{Envelope, InvalidMetadata, SCHEMA_VERSION};
pub use request::Request;
pub use stream::{CONSUMERS, Consumer, STREAMS, Stream};
pub use subject::{DeadLetterSubject, MAX_SUBJECT_BYTES, Subject, SubjectError, SubjectPattern, covers};
pub use timestamp::OutOfRange;
pub use user::{NamesUser, UserRef};

/// What all packages share.
pub mod common {
    include!(concat!(env!("OUT_DIR"), "/common.rs"));
}

/// Users and their sessions.
pub mod auth {
    include!(concat!(env!("OUT_DIR"), "/auth.rs"));
}

/// Containers, SSH keys, and what compute asks of the gateway.
pub mod compute {
    include!(concat!(env!("OUT_DIR"), "/compute.rs"));
}

/// Routes, and what the gateway answers to compute.
pub mod gateway {
    include!(concat!(env!("OUT_DIR"), "/gateway.rs"));
}

/// Namespaces and files.
pub mod sfs {
    include!(concat!(env!("OUT_DIR"), "/sfs.rs"));
}
