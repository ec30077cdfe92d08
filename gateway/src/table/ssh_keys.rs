//! Which users have an SSH key: what a login looks up.

use std::sync::Arc;

use edd_proto::UserId;
use imbl::shared_ptr::DefaultSharedPtr;

use super::fingerprint::Fingerprint;

type FingerprintMap<T> = imbl::GenericHashMap<Fingerprint, T, foldhash::fast::RandomState, DefaultSharedPtr>;

/// A user's key, as compute numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub key_id: i64,
    pub owner: UserId,
}

/// An immutable set of keys by fingerprint. A copy shares everything with the original.
#[derive(Clone, Debug, Default)]
pub struct SshKeyTable {
    /// Nothing keeps users from having one key; almost always there is one of them.
    by_fingerprint: FingerprintMap<Arc<[Holder]>>,
    len: usize,
    is_complete: bool,
}

impl SshKeyTable {
    /// The users who have a key, and under which numbers.
    pub fn holders(&self, key: &Fingerprint) -> &[Holder] {
        self.by_fingerprint.get(key).map_or(&[], |holders| holders)
    }

    /// Adds a key, or replaces the one of this number. Costs O(log n).
    pub fn set(&mut self, key: Fingerprint, holder: Holder) {
        self.replace(key, holder.key_id, Some(holder));
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: &Fingerprint, key_id: i64) {
        self.replace(*key, key_id, None);
    }

    fn replace(&mut self, key: Fingerprint, key_id: i64, holder: Option<Holder>) {
        let known = self.holders(&key);
        let others = known.iter().filter(|known| known.key_id != key_id).copied();
        let holders: Arc<[Holder]> = others.chain(holder).collect();
        self.len = self.len + holders.len() - known.len();
        if holders.is_empty() {
            self.by_fingerprint.remove(&key);
        } else {
            self.by_fingerprint.insert(key, holders);
        }
    }

    /// All keys have been told once: from now on, what is not here does not exist.
    pub fn set_complete(&mut self) {
        self.is_complete = true;
    }

    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "V1StGXR8_Z5jdHi6B-myT";
    const BEN: &str = "V1StGXR8_Z5jdHi6B-myS";

    fn holder(key_id: i64, owner: &str) -> Holder {
        Holder { key_id, owner: owner.parse().unwrap() }
    }

    #[test]
    fn a_key_may_be_several_users_and_leaves_with_the_last() {
        let mut table = SshKeyTable::default();
        let key = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ".parse().unwrap();
        table.set(key, holder(1, ANN));
        let before = table.clone();
        table.set(key, holder(2, BEN));
        table.set(key, holder(2, BEN));
        assert_eq!((table.holders(&key), table.len()), (&[holder(1, ANN), holder(2, BEN)][..], 2));
        table.remove(&key, 1);
        table.remove(&key, 3);
        assert_eq!((table.holders(&key), table.len()), (&[holder(2, BEN)][..], 1));
        table.remove(&key, 2);
        assert!(table.holders(&key).is_empty() && table.is_empty());
        assert_eq!((before.holders(&key), before.len()), (&[holder(1, ANN)][..], 1), "a copy stays as it was");
    }
}
