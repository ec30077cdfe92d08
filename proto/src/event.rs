//! Events: messages that say what happened, published once and stored.

use std::borrow::Cow;
use std::fmt;

use crate::common::EventMetadata;
use crate::encoding::{DecodeError, Encoding, Message, TooLarge};
use crate::metadata::{Envelope, InvalidMetadata};
use crate::stream::Stream;
use crate::subject::{Subject, SubjectError, SubjectId, SubjectPattern};
use crate::user::users;

/// A message that is an event. Implemented for each of them by the build.
pub trait Event: Message + Clone + PartialEq + Into<AnyEvent> + Send + Sync + 'static {
    /// Which event it is.
    const KIND: EventKind;
    /// The subjects it is published on.
    const SUBJECT: SubjectPattern;
    /// The stream that stores it.
    const STREAM: Stream;

    /// The id in its subject, if it has one and it is set: what the event is about.
    fn subject_id(&self) -> Option<Cow<'_, str>>;

    /// Field 1.
    fn metadata(&self) -> Option<&EventMetadata>;

    /// Field 1, checked.
    ///
    /// # Errors
    /// It lacks what every reader needs.
    fn envelope(&self) -> Result<Envelope, InvalidMetadata> {
        self.metadata().try_into()
    }

    /// Field 1, to be filled in by the publisher.
    fn metadata_mut(&mut self) -> &mut Option<EventMetadata>;

    /// The subject to publish this very event on.
    ///
    /// # Errors
    /// The id is not set, or cannot be part of a subject.
    fn subject(&self) -> Result<Subject, SubjectError> {
        Self::SUBJECT.subject(self.subject_id().as_deref())
    }
}

/// Makes everything that goes by events of the lines that `build.rs` writes: package, stream, type, name in the .proto
/// file, subject, and the field that the braces of the subject stand for.
macro_rules! events {
    ($($package:ident $stream:ident $kind:ident $name:ident $subject:literal $($id:ident)?;)+) => {
        /// Which event, without its content.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $(
                #[doc = concat!("[`", stringify!($kind), "`](crate::", stringify!($package), "::", stringify!($kind), "), `", $subject, "`")]
                $kind,
            )+
        }

        impl EventKind {
            /// Every event there is.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// The message's full name in the .proto files, as in `auth.UserCreated`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!(stringify!($package), ".", stringify!($name)),)+
                }
            }

            /// The subjects it is published on.
            pub const fn pattern(self) -> SubjectPattern {
                match self {
                    $(Self::$kind => <crate::$package::$kind as Event>::SUBJECT,)+
                }
            }

            /// The stream that stores it.
            pub const fn stream(self) -> &'static Stream {
                match self {
                    $(Self::$kind => &<crate::$package::$kind as Event>::STREAM,)+
                }
            }
        }

        /// Any event, for those that read all of them.
        #[derive(Debug, Clone, PartialEq)]
        pub enum AnyEvent {
            $(
                #[doc = concat!("`", $subject, "`")]
                $kind(crate::$package::$kind),
            )+
        }

        impl AnyEvent {
            fn decode_kind(kind: EventKind, encoding: Encoding, bytes: &[u8]) -> Result<Self, DecodeError> {
                match kind {
                    $(EventKind::$kind => encoding.decode(bytes).map(Self::$kind),)+
                }
            }

            /// The event as bytes.
            ///
            /// # Errors
            /// It is larger than [`MAX_MESSAGE_BYTES`](crate::MAX_MESSAGE_BYTES).
            pub fn encode(&self, encoding: Encoding) -> Result<Vec<u8>, TooLarge> {
                match self {
                    $(Self::$kind(event) => encoding.encode(event),)+
                }
            }

            /// Which event it is.
            pub const fn kind(&self) -> EventKind {
                match self {
                    $(Self::$kind(_) => EventKind::$kind,)+
                }
            }

            /// See [`Event::subject`].
            ///
            /// # Errors
            /// The id is not set, or cannot be part of a subject.
            pub fn subject(&self) -> Result<Subject, SubjectError> {
                match self {
                    $(Self::$kind(event) => event.subject(),)+
                }
            }

            /// See [`Event::envelope`].
            ///
            /// # Errors
            /// The metadata lacks what every reader needs.
            pub fn envelope(&self) -> Result<Envelope, InvalidMetadata> {
                self.metadata().try_into()
            }

            /// Field 1.
            pub fn metadata(&self) -> Option<&EventMetadata> {
                match self {
                    $(Self::$kind(event) => event.metadata(),)+
                }
            }
        }

        $(
            impl Event for crate::$package::$kind {
                const KIND: EventKind = EventKind::$kind;
                const SUBJECT: SubjectPattern = SubjectPattern::new($subject);
                const STREAM: Stream = Stream::$stream;

                fn subject_id(&self) -> Option<Cow<'_, str>> {
                    None$(.or(SubjectId::subject_id(&self.$id)))?
                }

                fn metadata(&self) -> Option<&EventMetadata> {
                    self.metadata.as_ref()
                }

                fn metadata_mut(&mut self) -> &mut Option<EventMetadata> {
                    &mut self.metadata
                }
            }

            impl From<crate::$package::$kind> for AnyEvent {
                fn from(event: crate::$package::$kind) -> Self {
                    Self::$kind(event)
                }
            }
        )+
    };
}

include!(concat!(env!("OUT_DIR"), "/events.rs"));

impl EventKind {
    /// Reads a subject back: which event is published there, and the id in it, if its pattern has one.
    ///
    /// # Errors
    /// [`SubjectError::Unknown`]: no event is published there.
    pub fn of(subject: &str) -> Result<(Self, Option<&str>), SubjectError> {
        let found = Self::ALL.iter().find_map(|kind| Some((*kind, kind.pattern().id(subject)?)));
        found.ok_or_else(|| SubjectError::unknown(subject))
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl AnyEvent {
    /// Decodes the event that is published on `subject`.
    ///
    /// # Errors
    /// No event is published there, or the bytes are not one.
    pub fn decode(subject: &str, encoding: Encoding, bytes: &[u8]) -> Result<Self, DecodeError> {
        let (kind, _) = EventKind::of(subject)?;
        Self::decode_kind(kind, encoding, bytes)
    }
}
