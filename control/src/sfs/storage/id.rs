//! What blobs are called.

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;
use rand::Rng;

/// Hexadecimal digits of an id.
const DIGITS: usize = 32;
/// How many of them name the folder that a blob is in: 256 folders, so that none grows too large to be listed.
const FOLDER_DIGITS: usize = 2;

/// 128 random bits. Written as 32 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(u128);

/// Text that is not 32 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a blob's id: 32 hexadecimal digits in lower case")]
pub struct NotABlobId;

impl BlobId {
    /// A new one.
    pub fn random(random: &mut impl Rng) -> Self {
        let mut bytes = [0; 16];
        random.fill_bytes(&mut bytes);
        Self(u128::from_be_bytes(bytes))
    }

    /// Where its object is: `ab/abcdef…`.
    pub(super) fn key(self) -> Path {
        let id = self.to_string();
        Path::from_iter([&id[..FOLDER_DIGITS], id.as_str()])
    }

    /// The blob whose object is at `key`. None: that is something else.
    pub(super) fn of_key(key: &Path) -> Option<Self> {
        let (_, name) = key.as_ref().rsplit_once('/')?;
        name.parse().ok().filter(|id: &Self| id.key() == *key)
    }

    /// The folders that blobs are in.
    pub(super) fn folders() -> impl Iterator<Item = String> + Send {
        (0..=u8::MAX).map(|folder| format!("{folder:02x}"))
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for BlobId {
    type Err = NotABlobId;

    fn from_str(text: &str) -> Result<Self, NotABlobId> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != DIGITS || !text.bytes().all(digits) {
            return Err(NotABlobId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NotABlobId)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn an_id_is_the_only_name_of_its_key() {
        let id = BlobId::random(&mut StdRng::seed_from_u64(1));
        let key = id.key();
        assert_eq!(key.as_ref().len(), 2 + 1 + 32, "{key}");
        assert_eq!(BlobId::of_key(&key), Some(id));
        assert_eq!(id.to_string().parse(), Ok(id));
        let zero = "00000000000000000000000000000000";
        for foreign in ["", "a", "00/readme", &format!("01/{zero}"), &format!("00/x/{zero}"), &format!("00/{zero}0")] {
            assert_eq!(BlobId::of_key(&Path::from(foreign)), None, "{foreign}");
        }
        for wrong in ["+0000000000000000000000000000000", "0000000000000000000000000000000A", &zero[1..]] {
            assert_eq!(wrong.parse::<BlobId>(), Err(NotABlobId), "{wrong}");
        }
        assert_eq!(BlobId::folders().count(), 256);
        assert!(BlobId::folders().any(|folder| key.as_ref().starts_with(&folder)));
    }
}
