//! Immutable bytes.

use std::fmt;
use std::fmt::Write;
use std::str::FromStr;

use super::Invalid;

/// The SHA-256 of a content. Written as 64 digits, which in quotes is its entity tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum(pub [u8; 32]);

impl FromStr for Checksum {
    type Err = Invalid;

    /// Reads 64 hexadecimal digits, large or small.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut bytes = [0; 32];
        let wrong = || Invalid::new("sha256", "64 of 0-9 and a-f");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = String::with_capacity(64);
        self.0.iter().try_for_each(|byte| write!(digits, "{byte:02x}"))?;
        f.pad(&digits)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_64_digits_and_reads_back() {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0_u8..).for_each(|(byte, number)| *byte = number * 8 + 1);
        let (checksum, text) = (Checksum(bytes), Checksum(bytes).to_string());
        assert_eq!(text.len(), 64);
        assert!(text.starts_with("0109111921"), "{text}");
        assert_eq!(text.parse(), Ok(checksum));
        assert_eq!(text.to_uppercase().parse(), Ok(checksum));
        for text in ["", &text[1..], &format!("{text}0"), &text.replace("01", "é"), &text.replace("01", "+1")] {
            assert!(text.parse::<Checksum>().is_err(), "{text}");
        }
    }
}
