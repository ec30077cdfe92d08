//! Resumable uploads: files that come in pieces, over days and through broken connections.

use std::fmt;
use std::str::FromStr;

use edd_events::clock::Micros;
use rand::Rng;

use super::{Actor, FilePath, Invalid, MediaType, Owner};

/// The name of an upload, in its URL: 128 random bits. It opens nothing to anybody but who began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(u128);

impl UploadId {
    pub fn random(random: &mut impl Rng) -> Self {
        let mut bytes = [0; 16];
        random.fill_bytes(&mut bytes);
        Self(u128::from_be_bytes(bytes))
    }
}

impl FromStr for UploadId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits = (text.len() == 32 && text.bytes().all(is_digit)).then(|| u128::from_str_radix(text, 16));
        digits.and_then(Result::ok).map(Self).ok_or_else(|| Invalid::new("upload", "32 of 0-9 and a-f"))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// An upload that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub id: UploadId,
    /// The number of its namespace.
    pub namespace: i64,
    pub path: FilePath,
    pub uploader: Owner,
    /// Bytes of the file when it is whole; counted as used until then.
    pub length: u64,
    /// Bytes of it that are here for good.
    pub received: u64,
    /// In so many blobs.
    pub blobs: u32,
    pub media_type: MediaType,
    /// Whether a file that is there already is replaced.
    pub overwrite: bool,
    /// The SHA-256 of what was received, unfinished, to go on with.
    pub digest_state: Vec<u8>,
    pub expires_at: Micros,
    /// Set: the file is where it belongs, and the row only tells a client so that did not hear it.
    pub completed_at: Option<Micros>,
    pub created_at: Micros,
}

impl Upload {
    /// Bytes that are still to come.
    pub fn missing(&self) -> u64 {
        self.length.saturating_sub(self.received)
    }

    /// Whether it is `actor`'s to go on with: whoever began it, and nobody else, administrators included.
    pub fn is_of(&self, actor: &Actor) -> bool {
        self.uploader.user == actor.owner.user
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn an_id_is_32_digits_and_reads_back() {
        let id = UploadId::random(&mut StdRng::seed_from_u64(1));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(UploadId(1).to_string(), "00000000000000000000000000000001");
        for text in ["", "1", "+0000000000000000000000000000001", "0000000000000000000000000000000A", &"0".repeat(33)] {
            assert!(text.parse::<UploadId>().is_err(), "{text}");
        }
    }
}
