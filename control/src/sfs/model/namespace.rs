//! Namespaces: who owns them, who sees them.

use std::fmt;
use std::str::FromStr;

use edd_events::clock::Micros;
use edd_proto::UserId;

use super::Invalid;

/// The name of a namespace, unique in the installation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceName(String);

impl NamespaceName {
    /// First parts of paths that mean something else.
    const RESERVED: [&str; 11] =
        ["namespaces", "files", "download", "upload", "delete", "status", "tus", "admin", "shares", "dav", "sse"];

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NamespaceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=63).contains(&text.len()) || !text.bytes().all(allowed) {
            return Err(Invalid::new("name", "1 to 63 of a-z, 0-9 and -"));
        }
        if Self::RESERVED.contains(&text) {
            return Err(Invalid::new(
                "name",
                format!("any but {}, which are parts of paths", Self::RESERVED.join(", ")),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Who may read what is in a namespace, the more the greater. Its owner alone writes, and administrators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    #[default]
    Private,
    /// Whoever is signed in.
    Internal,
    /// Anybody, without credentials.
    Public,
}

impl Visibility {
    const ALL: [Self; 3] = [Self::Private, Self::Internal, Self::Public];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
    }

    /// The number that old clients and the database have for it.
    pub fn number(self) -> i64 {
        match self {
            Self::Private => 0,
            Self::Internal => 1,
            Self::Public => 2,
        }
    }

    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }
}

impl FromStr for Visibility {
    type Err = Invalid;

    /// Reads the word, or the number.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text || it.number().to_string() == text);
        found.ok_or_else(|| Invalid::new("visibility", "private, internal or public (or 0, 1, 2)"))
    }
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: UserId,
    /// The user's number in auth_db.
    pub number: i64,
}

/// A namespace that the database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub number: i64,
    pub name: NamespaceName,
    /// None: its owner was deleted, and it was kept.
    pub owner: Option<Owner>,
    pub visibility: Visibility,
    /// Left out of the lists of others; who knows its name finds it all the same.
    pub is_hidden: bool,
    /// Sum of the sizes of its files; a content that several share counts for each.
    pub used_bytes: u64,
    pub files: u64,
    pub folders: u64,
    /// Of this namespace, besides what its owner may have in all. None: no further limit.
    pub quota_bytes: Option<u64>,
    /// Of its last event.
    pub version: i64,
    pub created_at: Micros,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_host_names_and_of_no_path() {
        let longest = "a".repeat(63);
        for text in ["a", "my-files-2", "-", "0", &*longest] {
            assert_eq!(text.parse::<NamespaceName>().expect("a name").as_str(), text);
        }
        let too_long = "a".repeat(64);
        for text in ["", &too_long, "A", "a_b", "a.b", "a/b", "ä", "a ", "tus", "dav", "namespaces", "shares"] {
            assert_eq!(text.parse::<NamespaceName>().expect_err(text).field, "name");
        }
    }

    #[test]
    fn visibility_is_a_word_or_a_number() {
        for visibility in Visibility::ALL {
            assert_eq!(visibility.as_str().parse(), Ok(visibility));
            assert_eq!(visibility.number().to_string().parse(), Ok(visibility));
            assert_eq!(Visibility::from_number(visibility.number()), Some(visibility));
        }
        for text in ["", "3", "-1", "Public", "00"] {
            assert!(text.parse::<Visibility>().is_err(), "{text}");
        }
        assert_eq!(Visibility::from_number(3), None);
    }
}
