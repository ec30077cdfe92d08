//! Whether bytes are what a client says they add up to.

use http::StatusCode;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::headers::Checksum;
use crate::error::Error;

/// The sum of one request's bytes, and what it is to be.
pub(super) enum Sum {
    Sha1(Sha1, [u8; 20]),
    Sha256(Sha256, [u8; 32]),
}

impl Sum {
    pub(super) fn new(expected: Checksum) -> Self {
        match expected {
            Checksum::Sha1(expected) => Self::Sha1(Sha1::new(), expected),
            Checksum::Sha256(expected) => Self::Sha256(Sha256::new(), expected),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(sum, _) => sum.update(bytes),
            Self::Sha256(sum, _) => sum.update(bytes),
        }
    }

    pub(super) fn is_right(&self) -> bool {
        match self {
            Self::Sha1(sum, expected) => *sum.clone().finalize() == *expected,
            Self::Sha256(sum, expected) => *sum.clone().finalize() == *expected,
        }
    }
}

/// What tus answers if it is not.
pub(super) fn mismatch() -> Error {
    // 460 is no status of HTTP's own; it is within what the type allows.
    let status = StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST);
    Error::new(status, "checksum mismatch: none of these bytes is kept, send them again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_told_right_from_wrong() {
        let sha1 = [0x2a, 0xae, 0x6c, 0x35, 0xc9, 0x4f, 0xcf, 0xb4, 0x15, 0xdb, 0xe9, 0x5f, 0x40, 0x8b, 0x9c, 0xe9];
        let mut whole = [0; 20];
        whole[..16].copy_from_slice(&sha1);
        whole[16..].copy_from_slice(&[0x1e, 0xe8, 0x46, 0xed]);
        let is_right = |expected, parts: &[&str]| {
            let mut sum = Sum::new(expected);
            parts.iter().for_each(|part| sum.update(part.as_bytes()));
            sum.is_right()
        };
        assert!(is_right(Checksum::Sha1(whole), &["hello", " ", "world"]));
        assert!(!is_right(Checksum::Sha1(whole), &["hello world!"]));
        let sha256: [u8; 32] = Sha256::digest("hello world").into();
        assert!(is_right(Checksum::Sha256(sha256), &["hello world"]));
        assert!(!is_right(Checksum::Sha256(sha256), &[]));
        assert_eq!(mismatch().status().as_u16(), 460);
    }
}
