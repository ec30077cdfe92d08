//! What fuzzers call: each function takes any bytes, and fails if something that must hold of them does not. Ordinary
//! tests call the same, with bytes by chance; `fuzz/` does with bytes that find their way in.

use bytes::Bytes;

use crate::compute::model::PublicKey;
use crate::compute::platform::sshd::UserAuthorities;
use crate::compute::remote_session::Frame;

/// A frame of a session that runs elsewhere: what is read means the same once it was written again.
pub fn session_frame(bytes: &[u8]) {
    if let Some(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Frame::decode(frame.encode()), Some(frame));
    }
}

/// A key as its owner pastes it: what is taken is one line, which is taken as the same key.
pub fn public_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = text.parse::<PublicKey>() {
        assert!(!key.line.chars().any(char::is_control), "{:?}", key.line);
        assert_eq!(key.line.parse().ok(), Some(key));
    }
}

/// The file that names whom containers let in: what is taken is written as sshd takes it, and means the same.
pub fn user_authorities(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(authorities) = text.parse::<UserAuthorities>() {
        assert_eq!(authorities.to_string().parse(), Ok(authorities));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// What the parsers know, so that bytes by chance come further than the first of them.
    const HINTS: [&[u8]; 13] = [
        b"ssh-ed25519 ",
        b"AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
        b" ann@laptop",
        b"ssh-rsa ",
        b"# a remark\n",
        b"\n",
        &[0],
        &[3],
        b"{\"run\":{\"command\":[\"ls\"],\"user\":\"user\",\"environment\":{},\"terminal\":{\"columns\":80,\"rows\":24}}}",
        b"{\"ended\":{\"code\":7}}",
        b"\"started\"",
        &[255, 0],
        b"\x05TERM",
    ];

    /// Hints and noise, in any order.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let hint = prop::sample::select(&HINTS[..]).prop_map(<[u8]>::to_vec);
        let cut = (prop::sample::select(&HINTS[..]), any::<prop::sample::Index>())
            .prop_map(|(hint, end)| hint[..end.index(hint.len())].to_vec());
        let noise = prop::collection::vec(any::<u8>(), 0..24);
        prop::collection::vec(prop_oneof![hint, cut, noise], 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in input()) {
            for target in [super::session_frame, super::public_key, super::user_authorities] {
                target(&bytes);
            }
        }
    }
}
