//! The words that stand behind keys: how each is read, refused with a hint, and shown in the schema.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::decode::{Context, FromNode};
use super::node::Node;
use crate::route::Target;

/// Longest name of a route, in bytes: it becomes a metric label.
pub(super) const MAX_NAME_BYTES: usize = 64;
/// Longest timeout that can be set.
const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest header value that can be set, in bytes.
const MAX_HEADER_VALUE_BYTES: usize = 4096;

/// What a wrong value is told.
pub(super) struct Refusal {
    message: String,
    hint: String,
}

impl Refusal {
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// A value that is one word.
pub(super) trait Scalar: Sized {
    /// What the value is, to complete "`[]` is not …".
    const WANTED: &'static str;

    fn parse(text: &str) -> Result<Self, Refusal>;
}

impl<T: Scalar> FromNode for T {
    fn from_node(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let text = cx.text(node, T::WANTED)?;
        T::parse(text).map_err(|Refusal { message, hint }| cx.error(&node.span, &message, &hint)).ok()
    }
}

/// The share of one target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight(pub u16);

impl Scalar for Weight {
    const WANTED: &'static str = "a weight from 0 to 1000";

    fn parse(text: &str) -> Result<Self, Refusal> {
        match text.parse() {
            Ok(weight) if weight <= Target::MAX_WEIGHT => Ok(Self(weight)),
            _ => Err(Refusal::new(
                format!("`{text}` is not a weight"),
                format!("write a whole number from 0 (takes no requests) to {}", Target::MAX_WEIGHT),
            )),
        }
    }
}

/// The name of a route: bounded, for it becomes a metric label.
#[derive(Clone, Debug)]
pub(super) struct RouteName(pub String);

impl Scalar for RouteName {
    const WANTED: &'static str = "a name";

    fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |why: String, hint: &str| Err(Refusal::new(why, hint));
        // The values that metrics give to requests without a configured route.
        if matches!(text, "dynamic" | "unmatched") {
            return refuse(format!("the name `{text}` is taken by the gateway itself"), "choose another name");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.len() > MAX_NAME_BYTES
            || !text.bytes().all(plain)
            || !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            return refuse(
                format!("`{text}` is not a route name"),
                "write at most 64 letters, digits, `-`, `_` and `.`, with a letter or a digit first",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// A file as it was named; relative to the routes file.
#[derive(Clone, Debug)]
pub(super) struct FileName(pub String);

impl Scalar for FileName {
    const WANTED: &'static str = "a file name";

    fn parse(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() || text.contains('\0') {
            return Err(Refusal::new("a file name is missing", "name a PEM file, such as `ca.pem`"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A wait, written with its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait(pub Duration);

impl Scalar for Wait {
    const WANTED: &'static str = "a duration such as `30s`";

    fn parse(text: &str) -> Result<Self, Refusal> {
        match humantime::parse_duration(text) {
            Ok(wait) if wait >= Duration::from_millis(1) && wait <= MAX_TIMEOUT => Ok(Self(wait)),
            Ok(_) => Err(Refusal::new(
                format!("a timeout of `{text}` is out of range"),
                format!("write something from `1ms` to `{}`", humantime::format_duration(MAX_TIMEOUT)),
            )),
            Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                Err(Refusal::new(format!("the duration `{text}` has no unit"), format!("write `{text}s` for seconds")))
            }
            Err(_) => Err(Refusal::new(
                format!("`{text}` is not a duration"),
                "write a number and a unit, such as `500ms`, `30s`, `5m` or `1h 30m`",
            )),
        }
    }
}

/// A number of bytes, bare or with a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteSize(pub u64);

impl Scalar for ByteSize {
    const WANTED: &'static str = "a size such as `10MiB`";

    fn parse(text: &str) -> Result<Self, Refusal> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1000 * 1000,
            "GB" => 1000 * 1000 * 1000,
            "TB" => 1000 * 1000 * 1000 * 1000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => 0,
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
            Some(bytes) if factor > 0 => Ok(Self(bytes)),
            _ => Err(Refusal::new(
                format!("`{text}` is not a size"),
                "write bytes, or a whole number with a unit: `512KiB`, `10MiB`, `2GB`",
            )),
        }
    }
}

/// A header that an edit may touch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct EditedHeader(pub HeaderName);

/// Headers that frame a message or belong to one connection (RFC 9110 §7.6.1, RFC 9112 §6): the
/// gateway writes them, an edit could only break the exchange or smuggle a request.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

impl Scalar for EditedHeader {
    const WANTED: &'static str = "a header name";

    fn parse(text: &str) -> Result<Self, Refusal> {
        if let Some(pseudo) = text.strip_prefix(':') {
            let hint =
                if pseudo == "authority" { "set `Host` instead" } else { "remove it; the gateway writes it itself" };
            return Err(Refusal::new(format!("the pseudo-header `{text}` cannot be edited"), hint));
        }
        let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
            let hint = "write letters, digits and `-`, without a colon, such as `X-Frame-Options`";
            return Err(Refusal::new(format!("`{text}` is not a header name"), hint));
        };
        if FRAMING.contains(&name.as_str()) {
            let message = format!("the header `{text}` belongs to one connection and cannot be edited");
            return Err(Refusal::new(message, "remove it; the gateway writes it itself"));
        }
        Ok(Self(name))
    }
}

#[derive(Clone, Debug)]
pub(super) struct HeaderText(pub HeaderValue);

impl Scalar for HeaderText {
    const WANTED: &'static str = "a header value";

    fn parse(text: &str) -> Result<Self, Refusal> {
        let hint = format!("write one line of visible ASCII, at most {MAX_HEADER_VALUE_BYTES} bytes");
        if text.len() > MAX_HEADER_VALUE_BYTES {
            return Err(Refusal::new(format!("the header value has {} bytes", text.len()), hint));
        }
        let refused = |_| Refusal::new(format!("`{text}` is not a header value"), hint);
        HeaderValue::from_str(text).map(Self).map_err(refused)
    }
}

/// The status of a redirect.
#[derive(Clone, Copy, Debug)]
pub(super) struct RedirectStatus(pub u16);

impl Scalar for RedirectStatus {
    const WANTED: &'static str = "a redirect status";

    fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "301" => Ok(Self(301)),
            "302" => Ok(Self(302)),
            "303" => Ok(Self(303)),
            "307" => Ok(Self(307)),
            "308" => Ok(Self(308)),
            _ => Err(Refusal::new(
                format!("`{text}` is not a redirect status"),
                "write 301 or 308 (for good), 302 or 307 (for now), or 303 (go and GET)",
            )),
        }
    }
}

/// Shows each value as a schema of its own, within the key that holds it.
macro_rules! schemas {
    ($($type:ty: $schema:tt)*) => {$(
        impl ::schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!($schema)
            }
        }
    )*};
}
pub(super) use schemas;

schemas! {
    Weight: { "type": "integer", "minimum": 0, "maximum": 1000 }
    RouteName: { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", "examples": ["compute"] }
    FileName: { "type": "string", "minLength": 1, "examples": ["ca.pem"] }
    Wait: { "type": "string", "pattern": "^[0-9]+[^0-9]", "examples": ["500ms", "30s", "5m", "1h 30m"] }
    ByteSize: {
        "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+ *(B|[kK]B|MB|GB|TB|KiB|MiB|GiB|TiB)?$" }
        ],
        "examples": [1048576, "10MiB"]
    }
    EditedHeader: { "type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "examples": ["X-Frame-Options"] }
    HeaderText: { "type": ["string", "number", "boolean"], "maxLength": 4096 }
    RedirectStatus: { "type": "integer", "enum": [301, 302, 303, 307, 308] }
}
