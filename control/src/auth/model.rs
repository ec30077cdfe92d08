//! What the auth service is about, as pure types. Text from outside becomes one of these at the edge and is checked
//! nowhere else.

use std::fmt;
use std::str::FromStr;

use edd_events::clock::Micros;
use edd_proto::UserId;
use edd_proto::auth::SessionEnd;

use crate::password::{MAX_PASSWORD_BYTES, Password};

/// Input that cannot be accepted: which, and what it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    pub field: &'static str,
    pub rule: &'static str,
}

/// The name to log in with. Capitals are folded, so `Ann` and `ann` are one account; beyond ASCII there is nothing, so
/// no two names look alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Username(String);

impl Username {
    const RULE: &str = "3 to 32 of a-z, 0-9, _ and -";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Username {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (3..=32).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Invalid { field: "username", rule: Self::RULE })
        }
    }
}

/// The name to show: any script, but nothing invisible that could make it read as another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayName(String);

impl DisplayName {
    const RULE: &str = "1 to 64 characters, none of them invisible";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DisplayName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let length = text.chars().count();
        if (1..=64).contains(&length) && !text.chars().any(is_invisible) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid { field: "display_name", rule: Self::RULE })
        }
    }
}

impl From<&Username> for DisplayName {
    fn from(username: &Username) -> Self {
        Self(username.0.clone())
    }
}

/// Control characters, line and paragraph separators, zero-width ones, and those that turn the direction of writing.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A password fit to be set. Length is all that is asked for (NIST SP 800-63B, 3.1.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPassword(Password);

impl NewPassword {
    pub fn password(&self) -> &Password {
        &self.0
    }
}

impl FromStr for NewPassword {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if (8..=MAX_PASSWORD_BYTES).contains(&text.len()) {
            Ok(Self(Password::attempt(text.to_owned())))
        } else {
            Err(Invalid { field: "password", rule: "8 to 1024 bytes" })
        }
    }
}

/// The id of a session's or an API token's record. It opens nothing and may be shown, logged and published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(String);

impl RecordId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<UserId> for RecordId {
    /// Both are nanoids.
    fn from(nanoid: UserId) -> Self {
        Self(nanoid.to_string())
    }
}

impl FromStr for RecordId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.parse::<UserId>().map(Self::from).map_err(|_| Invalid { field: "id", rule: "21 of A-Z a-z 0-9 _ -" })
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user, as stored: also one who is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The number in auth_db.
    pub number: i64,
    pub id: UserId,
    pub username: String,
    pub display_name: String,
    pub is_admin: bool,
    /// Of the entity, after its last change.
    pub version: i64,
    pub created_at: Micros,
    pub deleted_at: Option<Micros>,
}

/// A session that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: RecordId,
    pub user_number: i64,
    pub created_at: Micros,
    pub last_used_at: Micros,
    pub expires_at: Micros,
    /// Where it was begun from.
    pub client_ip: String,
    /// What the browser called itself.
    pub user_agent: String,
    /// Whether its access tokens are short and are refreshed.
    pub is_refreshed: bool,
}

/// An API token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    pub id: RecordId,
    pub user_number: i64,
    pub name: String,
    pub scopes: crate::auth::scope::Scopes,
    pub created_at: Micros,
    /// None: never.
    pub expires_at: Option<Micros>,
    pub last_used_at: Option<Micros>,
}

/// What was ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokedKind {
    Session,
    ApiToken,
    /// A user, with every token of theirs.
    User,
}

impl RevokedKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::ApiToken => "api_token",
            Self::User => "user",
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::Session, Self::ApiToken, Self::User].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What every verifier must know until `expires_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub kind: RevokedKind,
    /// Of the session's or API token's record; for a user, their id.
    pub record_id: RecordId,
    pub user_number: i64,
    pub user_id: UserId,
    /// Of the entity, after its end.
    pub version: i64,
    pub reason: SessionEnd,
    pub revoked_at: Micros,
    pub expires_at: Micros,
}

/// Where a request came from, as far as sessions tell it.
#[derive(Clone, Debug)]
pub struct Client {
    pub ip: std::net::IpAddr,
    pub user_agent: String,
}

impl Client {
    /// Longest name of a browser that is kept, characters.
    const MAX_USER_AGENT_CHARS: usize = 256;

    pub fn new(ip: std::net::IpAddr, user_agent: &str) -> Self {
        let shown = user_agent.chars().filter(|c| !is_invisible(*c)).take(Self::MAX_USER_AGENT_CHARS);
        Self { ip: ip.to_canonical(), user_agent: shown.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_are_short_and_plain_and_know_no_case() {
        let longest = "a".repeat(32);
        for (text, name) in [("ann", "ann"), ("Ann-B_1", "ann-b_1"), (&*longest, &*longest)] {
            assert_eq!(text.parse::<Username>().expect("a name").as_str(), name);
        }
        let too_long = "a".repeat(33);
        // The second letter of the seventh is Cyrillic.
        let refused = ["", "ab", &too_long, "a b", "ann\0", "x' OR '1'='1", "jоhn", "ann.b", "änne", " ann"];
        for text in refused {
            let error = text.parse::<Username>().expect_err(text);
            assert_eq!(error.to_string(), "username: 3 to 32 of a-z, 0-9, _ and -");
        }
    }

    #[test]
    fn display_names_are_what_they_look_like() {
        for (text, name) in [("Änne Ōé 山田", "Änne Ōé 山田"), ("  Ann ", "Ann"), ("<b>&'\"", "<b>&'\"")] {
            assert_eq!(text.parse::<DisplayName>().expect("a name").as_str(), name);
        }
        let longest = "é".repeat(64);
        assert!(longest.parse::<DisplayName>().is_ok());
        let too_long = "é".repeat(65);
        for text in ["", "  ", "a\0b", "a\nb", "\u{202e}nimda", "ad\u{200b}min", "\u{feff}x", "a\u{e0061}", &too_long] {
            assert!(text.parse::<DisplayName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn passwords_are_judged_by_length_and_never_shown() {
        let longest = "x".repeat(1024);
        for text in ["12345678", "päßwort", "nul\0nul\0", &longest] {
            assert!(text.parse::<NewPassword>().is_ok(), "{text:?}");
        }
        let too_long = "x".repeat(1025);
        for text in ["", "1234567", &too_long] {
            assert!(text.parse::<NewPassword>().is_err(), "{text:?}");
        }
        let password: NewPassword = "hunter2hunter2".parse().expect("a password");
        assert!(!format!("{password:?}").contains("hunter2"));
    }

    #[test]
    fn a_client_is_told_by_its_plain_address_and_a_short_name() {
        let client = Client::new("::ffff:192.0.2.1".parse().expect("an address"), &"x\n".repeat(1000));
        assert_eq!((client.ip.to_string(), client.user_agent.len()), ("192.0.2.1".to_owned(), 256));
    }
}
