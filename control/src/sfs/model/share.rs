//! Share links: somebody's file or folder, for whoever has the link.

use edd_events::clock::Micros;

use super::{FilePath, Invalid, NamespaceName, Owner};
use crate::password::{MAX_PASSWORD_BYTES, Password};

/// Longest time that a link may be good for, seconds: ten years.
pub const MAX_SHARE_SECONDS: u64 = 10 * 366 * 86_400;
/// Most downloads that can be counted down.
pub const MAX_DOWNLOADS: u32 = 1_000_000;

/// A link that somebody made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub number: i64,
    /// The number of its namespace.
    pub namespace: i64,
    /// What it leads to; none: all of the namespace.
    pub path: Option<FilePath>,
    pub made_by: Owner,
    /// What opens it besides, as argon2id hash.
    pub password: Option<String>,
    /// None: never.
    pub expires_at: Option<Micros>,
    /// None: as many as there may be.
    pub downloads_left: Option<u32>,
    /// How many there were.
    pub downloads: u64,
    pub created_at: Micros,
}

impl Share {
    /// Whether it still opens anything at `now`.
    pub fn is_good(&self, now: Micros) -> bool {
        self.expires_at.is_none_or(|at| now < at) && self.downloads_left != Some(0)
    }
}

/// A link to be.
#[derive(Clone, Debug)]
pub struct NewShare {
    pub namespace: NamespaceName,
    pub path: Option<FilePath>,
    pub password: Option<Password>,
    pub expires_in_seconds: Option<u64>,
    pub downloads: Option<u32>,
}

impl NewShare {
    /// # Errors
    /// A limit that makes no sense, or a password that nobody could type.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.expires_in_seconds.is_some_and(|seconds| !(1..=MAX_SHARE_SECONDS).contains(&seconds)) {
            return Err(Invalid::new("expires_in", format!("1 to {MAX_SHARE_SECONDS} seconds")));
        }
        if self.downloads.is_some_and(|downloads| !(1..=MAX_DOWNLOADS).contains(&downloads)) {
            return Err(Invalid::new("max_downloads", format!("1 to {MAX_DOWNLOADS}")));
        }
        let has_length = |password: &Password| (1..=MAX_PASSWORD_BYTES).contains(&password.as_bytes().len());
        if !self.password.as_ref().is_none_or(has_length) {
            return Err(Invalid::new("password", format!("1 to {MAX_PASSWORD_BYTES} bytes")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share() -> Share {
        let user = "V1StGXR8_Z5jdHi6B-myT".parse().expect("an id");
        Share {
            number: 1,
            namespace: 1,
            path: None,
            made_by: Owner { user, number: 1 },
            password: None,
            expires_at: None,
            downloads_left: None,
            downloads: 0,
            created_at: 0,
        }
    }

    #[test]
    fn a_link_is_good_until_its_time_is_over_or_it_is_used_up() {
        assert!(share().is_good(i64::MAX));
        let until = Share { expires_at: Some(100), ..share() };
        assert!(until.is_good(99) && !until.is_good(100));
        let counted = |left| Share { downloads_left: Some(left), ..share() };
        assert!(counted(1).is_good(0) && !counted(0).is_good(0));
    }

    #[test]
    fn limits_make_sense() {
        let field = |new: NewShare| new.check().map_err(|invalid| invalid.field);
        let new = || NewShare {
            namespace: "a".parse().expect("a name"),
            path: None,
            password: None,
            expires_in_seconds: None,
            downloads: None,
        };
        assert_eq!(field(new()), Ok(()));
        for seconds in [0, MAX_SHARE_SECONDS + 1] {
            assert_eq!(field(NewShare { expires_in_seconds: Some(seconds), ..new() }), Err("expires_in"));
        }
        for downloads in [0, MAX_DOWNLOADS + 1] {
            assert_eq!(field(NewShare { downloads: Some(downloads), ..new() }), Err("max_downloads"));
        }
        for password in ["", &"x".repeat(MAX_PASSWORD_BYTES + 1)] {
            let password = Some(Password::attempt(password.to_owned()));
            assert_eq!(field(NewShare { password, ..new() }), Err("password"));
        }
    }
}
