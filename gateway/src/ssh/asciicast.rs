//! The lines of an asciicast file, version 2: a header, then one event a line.
//! <https://docs.asciinema.org/manual/asciicast/v2/>

use edd_events::clock::Micros;
use edd_proto::ContainerId;
use serde::Serialize;
use uuid::Uuid;

use crate::ssh::session_events::{Begun, TerminalSize};

/// Longest command that a header tells, in bytes.
const MAX_COMMAND_BYTES: usize = 1024;

/// Something that happened on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Output(String),
    Resize(TerminalSize),
    /// A remark of the recorder's.
    Mark(String),
}

impl Event {
    /// The line of what happened this many seconds after the beginning.
    pub fn line(&self, seconds: f64) -> String {
        let (code, data) = match self {
            Self::Output(text) => ("o", text.clone()),
            Self::Resize(TerminalSize { columns, rows }) => ("r", format!("{columns}x{rows}")),
            Self::Mark(text) => ("m", text.clone()),
        };
        serde_json::json!([seconds, code, data]).to_string()
    }
}

#[derive(Serialize)]
struct Header<'a> {
    version: u32,
    width: u32,
    height: u32,
    /// Unix seconds.
    timestamp: i64,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
}

/// The first line.
pub fn header(container: ContainerId, session: Uuid, began: Micros, size: TerminalSize, what: &Begun) -> String {
    let command = match what {
        Begun::Shell => None,
        Begun::Command(text) | Begun::Subsystem(text) => Some(&text[..text.floor_char_boundary(MAX_COMMAND_BYTES)]),
    };
    let header = Header {
        version: 2,
        width: size.columns,
        height: size.rows,
        timestamp: began.div_euclid(1_000_000),
        title: format!("{container}, session {session}"),
        command,
    };
    serde_json::to_string(&header).unwrap_or_else(|error| unreachable!("plain fields are JSON: {error}"))
}

/// Bytes of a terminal, which come cut anywhere, as text.
#[derive(Debug, Default)]
pub struct Screen {
    /// The beginning of a character whose rest is on its way.
    cut: Vec<u8>,
}

impl Screen {
    /// The text of all whole characters; what is none becomes U+FFFD.
    pub fn decode(&mut self, bytes: &[u8]) -> String {
        self.cut.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.cut.len());
        let mut rest = self.cut.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
            }
        }
        self.cut = rest.to_vec();
        text
    }

    /// What is left of a character that never came whole.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.cut).into_owned();
        self.cut.clear();
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_as_the_format_has_them() {
        let size = TerminalSize { columns: 80, rows: 24 };
        let session = "018d2f4e-3800-7001-8000-000000000002".parse().unwrap();
        let what = Begun::Command("top".to_owned());
        assert_eq!(
            header("abcdefghij".parse().unwrap(), session, 1_705_924_000_900_000, size, &what),
            "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1705924000,\
             \"title\":\"abcdefghij, session 018d2f4e-3800-7001-8000-000000000002\",\"command\":\"top\"}"
        );
        assert_eq!(Event::Output("a\r\n\u{1b}[1m\"".to_owned()).line(0.25), "[0.25,\"o\",\"a\\r\\n\\u001b[1m\\\"\"]");
        assert_eq!(Event::Resize(size).line(1.0), "[1.0,\"r\",\"80x24\"]");
        assert_eq!(Event::Mark("x".to_owned()).line(2.5), "[2.5,\"m\",\"x\"]");
    }

    #[test]
    fn characters_that_come_in_pieces_are_put_together() {
        let mut screen = Screen::default();
        let bytes = "aé€😀".as_bytes();
        let text: String = bytes.iter().map(|byte| screen.decode(&[*byte])).collect();
        assert_eq!((text.as_str(), screen.finish().as_str()), ("aé€😀", ""));
        assert_eq!(screen.decode(b"a\xff\xc3b"), "a\u{fffd}\u{fffd}b");
        assert_eq!(screen.decode(&bytes[1..2]), "");
        assert_eq!(screen.finish(), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_cut_of_any_bytes_gives_the_same_text(bytes: Vec<u8>, cuts in prop::collection::vec(0usize..64, 0..8)) {
            let mut screen = Screen::default();
            let (mut text, mut rest) = (String::new(), bytes.as_slice());
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                text.push_str(&screen.decode(piece));
                rest = after;
            }
            text.push_str(&screen.decode(rest));
            text.push_str(&screen.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
