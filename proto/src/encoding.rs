//! The two forms that a message has on the bus.
//!
//! Protobuf is the default. JSON is for people and scripts, in the shape that edd-cloud's services first spoke: moments
//! are integer seconds, `user_id` is the text id (`user_uid` in the .proto files) and the number, where known, stands
//! beside it as `user_number`; owners, uploaders and deleters likewise. Enums are lower-case names.
//!
//! Readers of both skip fields that they do not know and take missing ones for unset.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::json;
use crate::subject::SubjectError;

/// Longest encoded message, bytes: an eighth of what a NATS server takes by default, and a hundred times what our
/// events need.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// What both encodings can carry. Every message of this crate is one.
pub trait Message: prost::Message + prost::Name + Default + Serialize + DeserializeOwned {}

impl<M: prost::Message + prost::Name + Default + Serialize + DeserializeOwned> Message for M {}

/// How a message is written. Named by its `Content-Type` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// `application/protobuf`
    #[default]
    Protobuf,
    /// `application/json`
    Json,
}

/// A name or content type that is no encoding of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown encoding {0:?}: `protobuf` (application/protobuf) and `json` (application/json) are known")]
pub struct UnknownEncoding(String);

/// A message that would be larger than [`MAX_MESSAGE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {size_bytes} bytes, at most {MAX_MESSAGE_BYTES} are allowed")]
pub struct TooLarge {
    /// The message's full name.
    pub message: String,
    /// Its size.
    pub size_bytes: usize,
}

/// Why bytes are not the message they should be. Trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf, or a field of another type. The source names the field.
    #[error("{message}: invalid protobuf")]
    Protobuf {
        /// The message's full name.
        message: String,
        /// What is wrong where.
        source: prost::DecodeError,
    },
    /// Not JSON, or a field of another type.
    #[error("{message}: invalid JSON at `{path}`")]
    Json {
        /// The message's full name.
        message: String,
        /// The field, as in `metadata.version`; `.` is the whole.
        path: String,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// More bytes than any message of ours has.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// No event is published on the subject that the bytes came from.
    #[error(transparent)]
    Subject(#[from] SubjectError),
}

impl Encoding {
    /// The `Content-Type` to send along.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/protobuf",
            Self::Json => "application/json",
        }
    }

    /// Reads a `Content-Type`, parameters ignored. Without one the message is protobuf: edd-cloud's publishers send none.
    ///
    /// # Errors
    /// It names another encoding.
    pub fn from_content_type(value: Option<&str>) -> Result<Self, UnknownEncoding> {
        let Some(value) = value else { return Ok(Self::Protobuf) };
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/protobuf" | "application/x-protobuf" => Ok(Self::Protobuf),
            "application/json" => Ok(Self::Json),
            _ => Err(UnknownEncoding(value.chars().take(80).collect())),
        }
    }

    /// The message as bytes.
    ///
    /// # Errors
    /// It is larger than [`MAX_MESSAGE_BYTES`].
    pub fn encode<M: Message>(self, message: &M) -> Result<Vec<u8>, TooLarge> {
        let bytes = match self {
            Self::Protobuf => message.encode_to_vec(),
            Self::Json => serde_json::to_vec(message).expect("messages have text keys and write to memory"),
        };
        check_size::<M>(bytes.len()).map(|()| bytes)
    }

    /// The message that `bytes` are.
    ///
    /// # Errors
    /// They are not this message in this encoding, or too many.
    pub fn decode<M: Message>(self, bytes: &[u8]) -> Result<M, DecodeError> {
        check_size::<M>(bytes.len())?;
        match self {
            Self::Protobuf => {
                M::decode(bytes).map_err(|source| DecodeError::Protobuf { message: M::full_name(), source })
            }
            Self::Json => json::decode(bytes).map_err(|(path, source)| DecodeError::Json {
                message: M::full_name(),
                path,
                source,
            }),
        }
    }
}

fn check_size<M: prost::Name>(size_bytes: usize) -> Result<(), TooLarge> {
    if size_bytes > MAX_MESSAGE_BYTES { Err(TooLarge { message: M::full_name(), size_bytes }) } else { Ok(()) }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protobuf => "protobuf",
            Self::Json => "json",
        })
    }
}

/// Reads the value of `EDD_EVENT_ENCODING`.
impl FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(text: &str) -> Result<Self, UnknownEncoding> {
        match text {
            "protobuf" => Ok(Self::Protobuf),
            "json" => Ok(Self::Json),
            _ => Err(UnknownEncoding(text.chars().take(80).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UserDeleted;

    #[test]
    fn content_types_are_read_as_written_by_others() {
        let cases = [
            (None, Some(Encoding::Protobuf)),
            (Some("application/protobuf"), Some(Encoding::Protobuf)),
            (Some("application/x-protobuf"), Some(Encoding::Protobuf)),
            (Some("Application/JSON; charset=utf-8"), Some(Encoding::Json)),
            (Some(""), None),
            (Some("text/plain"), None),
        ];
        for (value, encoding) in cases {
            assert_eq!(Encoding::from_content_type(value).ok(), encoding, "{value:?}");
        }
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            assert_eq!(Encoding::from_content_type(Some(encoding.content_type())), Ok(encoding));
            assert_eq!(encoding.to_string().parse(), Ok(encoding));
        }
        let error = "xml".parse::<Encoding>().unwrap_err().to_string();
        assert!(error.contains("\"xml\"") && error.contains("`json`"), "{error}");
    }

    #[test]
    fn size_is_bounded_both_ways() {
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let large = UserDeleted { username: "x".repeat(MAX_MESSAGE_BYTES), ..Default::default() };
            let error = encoding.encode(&large).unwrap_err();
            assert_eq!(error.message, "auth.UserDeleted");
            assert!(error.size_bytes > MAX_MESSAGE_BYTES);

            let bytes = vec![b' '; MAX_MESSAGE_BYTES + 1];
            let error = encoding.decode::<UserDeleted>(&bytes).unwrap_err();
            assert!(matches!(error, DecodeError::TooLarge(_)), "{error}");
        }
    }
}
