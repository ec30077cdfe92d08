//! How SSH gets into a container, and with which keys.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::table::fingerprint::Fingerprint;

/// What a login has to know of a container that lets logins in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SshAccess {
    /// Of its SSH server, at the container's address; none: it runs none, and the platform starts what is asked for.
    pub port: Option<NonZeroU16>,
    /// The server's host key; none: it is not known, and the server is not spoken to.
    pub host_key: Option<Fingerprint>,
    /// The numbers of the owner's keys that are let in, in order; none: all of them are.
    pub only_keys: Option<Box<[i64]>>,
}

impl SshAccess {
    /// Whether the key of this number is let in.
    pub fn takes(&self, key_id: i64) -> bool {
        self.only_keys.as_ref().is_none_or(|keys| keys.binary_search(&key_id).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_keys_are_let_in_and_if_none_is_chosen_nobody_is() {
        let access =
            |only_keys: Option<&[i64]>| SshAccess { only_keys: only_keys.map(Into::into), ..Default::default() };
        assert!(access(None).takes(7));
        assert!(access(Some(&[3, 7])).takes(7) && !access(Some(&[3, 7])).takes(4));
        assert!(!access(Some(&[])).takes(7));
    }

    /// There may be a million.
    #[test]
    fn it_is_small() {
        assert!(size_of::<SshAccess>() <= 56, "{} bytes", size_of::<SshAccess>());
    }
}
