//! What a client speaks, told by its first bytes.

use crate::listeners::TLS_HANDSHAKE;

/// The longest method of a request that is taken for one, in bytes; the registered ones have at most 17.
const MAX_METHOD_BYTES: usize = 24;

/// A protocol that clients begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Tls,
    Http,
    /// None that is shared by name.
    Other,
}

/// What `bytes` begin; none: it takes more of them to tell.
pub fn sniff(bytes: &[u8]) -> Option<Spoken> {
    // RFC 9112 §2.2: empty lines may come before a request.
    let lines = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let rest = &bytes[lines..];
    match rest.first() {
        None if lines > MAX_METHOD_BYTES => Some(Spoken::Other),
        None => None,
        Some(&TLS_HANDSHAKE) if lines == 0 => Some(Spoken::Tls),
        Some(_) => {
            // SSH's `SSH-2.0` and the like have a digit or a dot before any space.
            let method = rest.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
            match rest.get(method) {
                Some(b' ') if (1..=MAX_METHOD_BYTES).contains(&method) => Some(Spoken::Http),
                None if method <= MAX_METHOD_BYTES => None,
                _ => Some(Spoken::Other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        let cases: [(&[u8], Option<Spoken>); 14] = [
            (b"", None),
            (b"\x16", Some(Spoken::Tls)),
            (b"GET", None),
            (b"GET ", Some(Spoken::Http)),
            (b"\r\nGET /", Some(Spoken::Http)),
            (b"VERSION-CONTROL / HTTP/1.1", Some(Spoken::Http)),
            (b"PRI * HTTP/2.0", Some(Spoken::Http)),
            (b"SSH-2.0-OpenSSH_9.2 Debian", Some(Spoken::Other)),
            (b"SSH-", None),
            (b"get /", Some(Spoken::Other)),
            (b" GET /", Some(Spoken::Other)),
            (b"\0\0\0\x08", Some(Spoken::Other)),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Some(Spoken::Other)),
            (b"\r\n\x16", Some(Spoken::Other)),
        ];
        for (bytes, spoken) in cases {
            assert_eq!(sniff(bytes), spoken, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_what_was_told_and_few_are_enough(bytes in proptest::collection::vec(any::<u8>(), 60)) {
            let told: Vec<_> = (0..=bytes.len()).filter_map(|length| sniff(&bytes[..length])).collect();
            prop_assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", told);
            prop_assert!(!told.is_empty());
        }
    }
}
