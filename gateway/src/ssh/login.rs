//! What an SSH username asks for.

use std::fmt;

use edd_proto::ContainerId;

/// Longest name of a user in a container, in bytes; `useradd` allows no longer one.
const MAX_USER_BYTES: usize = 32;
/// Who logs in when the username is nothing but a container.
const ROOT: &str = "root";
/// The username that jumps on to containers.
const JUMP: &str = "jump";

/// A parsed username.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// `<id>` is root there, `<user>.<id>` is that user.
    Container { id: ContainerId, user: String },
    /// `jump`: the way to one's containers for `ssh -J`.
    Jump,
}

impl Login {
    /// None: the name means nobody.
    pub fn parse(username: &str) -> Option<Self> {
        if username == JUMP {
            return Some(Self::Jump);
        }
        let (user, id) = username.rsplit_once('.').unwrap_or((ROOT, username));
        let id = id.parse().ok()?;
        is_user(user).then(|| Self::Container { id, user: user.to_owned() })
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container { id, user } if user == ROOT => write!(f, "{id}"),
            Self::Container { id, user } => write!(f, "{user}.{id}"),
            Self::Jump => f.write_str(JUMP),
        }
    }
}

/// Names as `useradd` takes them, dots included. What may not stand in one may not stand in a certificate, a shell's
/// command or a log line either.
fn is_user(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    first && name.len() <= MAX_USER_BYTES && bytes.all(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn container(user: &str) -> Option<Login> {
        Some(Login::Container { id: "abcdefghij".parse().unwrap(), user: user.to_owned() })
    }

    #[test]
    fn a_name_is_a_container_a_user_in_one_or_the_jump() {
        assert_eq!(Login::parse("abcdefghij"), container("root"));
        assert_eq!(Login::parse("root.abcdefghij"), container("root"));
        assert_eq!(Login::parse("www-data.abcdefghij"), container("www-data"));
        assert_eq!(Login::parse("first.last.abcdefghij"), container("first.last"));
        assert_eq!(Login::parse("jump"), Some(Login::Jump));
    }

    #[test]
    fn other_names_are_nobody() {
        let long = format!("{}.abcdefghij", "a".repeat(33));
        let names = ["", ".", "root", "ABCDEFGHIJ", "abcdefghi", ".abcdefghij", "a b.abcdefghij", "-x.abcdefghij"];
        for name in
            names.into_iter().chain(["jump.abcdefghij.x", "abcdefghij.", "x\n.abcdefghij", "0.abcdefghij", &long])
        {
            assert_eq!(Login::parse(name), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,80}") {
            if let Some(login) = Login::parse(&text) {
                // What was taken is printable, and means the same when it is read again.
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(Login::parse(&login.to_string()), Some(login));
            }
        }

        #[test]
        fn a_user_in_a_container_is_read_back(user in "[a-z_][a-z0-9_.-]{0,31}", id in "[a-z][a-z0-9]{9}") {
            let login = Login::Container { id: id.parse().unwrap(), user: user.clone() };
            prop_assert_eq!(Login::parse(&format!("{user}.{id}")), Some(login));
        }
    }
}
