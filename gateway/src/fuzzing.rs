//! What fuzzers call: each function takes any bytes, and fails if something that must hold of them does not. Ordinary
//! tests call the same, with bytes by chance; `fuzz/` does with bytes that find their way in.

use crate::listeners::proxy_protocol::{self, Found};
use crate::ssh::asciicast::{Event, Screen};
use crate::ssh::keys;
use crate::ssh::login::Login;

/// A user name as an SSH client sends it: what is taken is printable and short, and means the same when it is read again.
pub fn ssh_login(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(login) = Login::parse(text) {
        assert!(text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
        assert_eq!(Login::parse(&login.to_string()), Some(login));
    }
}

/// The first bytes from a trusted proxy: what is found in them does not depend on what comes behind, and nothing is
/// waited for that cannot come any more.
pub fn proxy_header(bytes: &[u8]) {
    let whole = proxy_protocol::find(bytes);
    for end in 0..bytes.len() {
        match proxy_protocol::find(&bytes[..end]) {
            Ok(Found::Cut) => assert!(end < proxy_protocol::MAX_V2_BYTES, "{end} bytes are waited behind"),
            Ok(found) => {
                if let Found::Header { bytes: length, .. } = found {
                    assert!(0 < length && length <= end, "a header of {length} in {end} bytes");
                }
                return assert_eq!(whole.as_ref().ok(), Some(&found), "{end} of {bytes:?}");
            }
            Err(_) => return assert!(whole.is_err(), "{end} of {bytes:?}"),
        }
    }
}

/// What a terminal shows, cut where the first byte says: the recording has the same text as if it had come at once, one
/// line for each event.
pub fn recording(bytes: &[u8]) {
    let Some((cut, shown)) = bytes.split_first() else { return };
    let mut screen = Screen::default();
    let mut text = String::new();
    for piece in shown.chunks(usize::from(*cut).max(1)) {
        let decoded = screen.decode(piece);
        let line = Event::Output(decoded.clone()).line(0.5);
        assert!(!line.contains('\n'), "{line}");
        let read: (f64, String, String) = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!((read.0, read.1.as_str(), &read.2), (0.5, "o", &decoded));
        text.push_str(&decoded);
    }
    text.push_str(&screen.finish());
    assert_eq!(text, String::from_utf8_lossy(shown));
}

/// A file in the directory of the gateway's keys: whatever is in it is a key or refused in words.
pub fn ssh_host_key(bytes: &[u8]) {
    keys::check(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// What the parsers know, so that bytes by chance come further than the first of them.
    const HINTS: [&[u8]; 12] = [
        b"PROXY ",
        b"TCP4 203.0.113.7 10.0.0.1 5555 22\r\n",
        b"TCP6 2001:db8::1 ::1 1 65535\r\n",
        b"UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        &[0x21, 0x11, 0, 12, 203, 0, 113, 8, 10, 0, 0, 1, 1, 1, 0, 80],
        &[0x20, 0, 0, 0],
        b"abcdefghij",
        b"user.",
        b"jump",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU",
        "\u{1b}[1mé€😀".as_bytes(),
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
            for target in [super::ssh_login, super::proxy_header, super::recording, super::ssh_host_key] {
                target(&bytes);
            }
        }
    }
}
