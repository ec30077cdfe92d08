//! What is said about a session: a byte for the channel, as in Kubernetes' remote command protocol, and what is said.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::compute::platform::{Control, Exec, Exit, Input, MAX_PIECE_BYTES, Output, PlatformError, Size};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// JSON: how a session begins and ends.
const WORD: u8 = 3;
/// JSON: a terminal's size.
const RESIZE: u8 = 4;
/// Not in Kubernetes': a signal's name.
const SIGNAL: u8 = 5;
/// Not in Kubernetes': the oldest piece that was under way has been taken.
const TAKEN: u8 = 6;
/// The channel that the next byte names says nothing more.
const CLOSE: u8 = 255;

/// Largest frame: a piece, or an exec with a long environment.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Word(Word),
    Input(Input),
    Control(Control),
    Output(Output),
    Taken,
}

/// How a session begins and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The first, by who wants a session.
    Run(Exec),
    /// The first answer.
    Started,
    /// The first answer, and the last.
    Refused(PlatformError),
    /// The last, once all output was said.
    Ended(Exit),
}

impl Frame {
    /// Nothing of a session comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Output(Output::Exit(_)))
    }

    /// What it is for a program.
    pub fn into_input(self) -> Option<Input> {
        match self {
            Self::Input(input) => Some(input),
            _ => None,
        }
    }

    /// What it is of a program.
    pub fn into_output(self) -> Option<Output> {
        match self {
            Self::Output(output) => Some(output),
            _ => None,
        }
    }

    pub fn encode(&self) -> Bytes {
        let json = |channel, value: serde_json::Result<Vec<u8>>| {
            whole(channel, &value.expect("these have texts and numbers, and no maps with other keys"))
        };
        match self {
            Self::Word(word) => json(WORD, serde_json::to_vec(word)),
            Self::Output(Output::Exit(exit)) => json(WORD, serde_json::to_vec(&Word::Ended(exit.clone()))),
            Self::Output(Output::Stdout(bytes)) => whole(STDOUT, bytes),
            Self::Output(Output::Stderr(bytes)) => whole(STDERR, bytes),
            Self::Input(Input::Bytes(bytes)) => whole(STDIN, bytes),
            Self::Input(Input::Eof) => whole(CLOSE, &[STDIN]),
            Self::Control(Control::Resize(size)) => json(RESIZE, serde_json::to_vec(size)),
            Self::Control(Control::Signal(name)) => whole(SIGNAL, name.as_bytes()),
            Self::Taken => whole(TAKEN, &[]),
        }
    }

    /// None: it is no frame.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > MAX_FRAME_BYTES {
            return None;
        }
        let (channel, said) = (bytes.split_to(1)[0], bytes);
        let is_piece = said.len() <= MAX_PIECE_BYTES;
        Some(match channel {
            STDIN if is_piece => Self::Input(Input::Bytes(said)),
            STDOUT if is_piece => Self::Output(Output::Stdout(said)),
            STDERR if is_piece => Self::Output(Output::Stderr(said)),
            WORD => match serde_json::from_slice(&said).ok()? {
                Word::Ended(exit) => Self::Output(Output::Exit(exit)),
                word => Self::Word(word),
            },
            RESIZE => Self::Control(Control::Resize(serde_json::from_slice::<Size>(&said).ok()?)),
            SIGNAL => Self::Control(Control::Signal(String::from_utf8(said.into()).ok()?)),
            TAKEN if said.is_empty() => Self::Taken,
            CLOSE if said[..] == [STDIN] => Self::Input(Input::Eof),
            _ => return None,
        })
    }
}

fn whole(channel: u8, said: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(1 + said.len());
    frame.put_u8(channel);
    frame.put_slice(said);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let exec = Exec { command: vec!["ls".to_owned()], user: Some("user".to_owned()), ..Exec::default() };
        let frames = [
            (Frame::Word(Word::Run(exec)), WORD),
            (Frame::Word(Word::Started), WORD),
            (Frame::Word(Word::Refused(PlatformError::Impossible("no".to_owned()))), WORD),
            (Frame::Input(Input::Bytes(Bytes::from_static(b"\0in"))), STDIN),
            (Frame::Input(Input::Eof), CLOSE),
            (Frame::Control(Control::Resize(Size { columns: 80, rows: 24 })), RESIZE),
            (Frame::Control(Control::Signal("TERM".to_owned())), SIGNAL),
            (Frame::Output(Output::Stdout(Bytes::from(vec![b'x'; MAX_PIECE_BYTES]))), STDOUT),
            (Frame::Output(Output::Stderr(Bytes::new())), STDERR),
            (Frame::Output(Output::Exit(Exit::Signal("KILL".to_owned()))), WORD),
            (Frame::Taken, TAKEN),
        ];
        for (frame, channel) in frames {
            let bytes = frame.encode();
            assert_eq!((bytes[0], Frame::decode(bytes)), (channel, Some(frame)));
        }
    }

    #[test]
    fn what_is_no_frame_is_none() {
        let large = [&[STDOUT][..], &vec![0; MAX_PIECE_BYTES + 1]].concat();
        let huge = [&[WORD, b'"'][..], &vec![b'x'; MAX_FRAME_BYTES], b"\""].concat();
        for bytes in
            [&b""[..], &[9], &[WORD, b'{'], &[RESIZE], &[SIGNAL, 0xff], &[TAKEN, 0], &[CLOSE], &[CLOSE, STDOUT]]
        {
            assert_eq!(Frame::decode(Bytes::copy_from_slice(bytes)), None, "{bytes:?}");
        }
        assert!(Frame::decode(large.into()).is_none() && Frame::decode(huge.into()).is_none());
    }
}
