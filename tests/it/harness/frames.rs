//! HTTP/2 frame by frame (RFC 9113), for what no HTTP/2 library would send.

use super::connection::Connection;
use super::response::Broken;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub fn settings(pairs: &[(u16, u32)]) -> Self {
        let payload: Vec<u8> =
            pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        Self::new(SETTINGS, 0, 0, payload)
    }

    /// A whole head without a body.
    pub fn request(stream: u32, fields: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, END_HEADERS | END_STREAM, stream, fields_block(fields))
    }

    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, code.to_be_bytes())
    }

    pub fn window_update(stream: u32, increment: u32) -> Self {
        Self::new(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a frame fits its length field").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The status of a response head, where it is one of those with an index of their own
    /// (RFC 7541 appendix A: 200, 204, 206, 304, 400, 404, 500).
    pub fn indexed_status(&self) -> Option<u16> {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        let first = *self.payload.first()?;
        (self.kind == HEADERS).then_some(())?;
        INDEXED.get(usize::from(first).checked_sub(0x88)?).copied()
    }
}

/// `:method GET` and so on, for a plain request.
pub fn get<'a>(host: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)]
}

/// Fields as HPACK literals without indexing or Huffman coding (RFC 7541 §6.2.2).
pub fn fields_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        push_string(&mut block, name);
        push_string(&mut block, value);
    }
    block
}

/// A length with a 7-bit prefix (RFC 7541 §5.1), then the bytes.
fn push_string(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 0x7f {
        block.push(length as u8);
    } else {
        block.push(0x7f);
        length -= 0x7f;
        while length >= 0x80 {
            block.push(length as u8 | 0x80);
            length >>= 7;
        }
        block.push(length as u8);
    }
    block.extend(text.as_bytes());
}

impl Connection {
    /// Says that it speaks HTTP/2, with these settings.
    pub async fn send_preface(&mut self, settings: &[(u16, u32)]) {
        self.send([PREFACE, &Frame::settings(settings).bytes()].concat()).await;
    }

    /// Sends one frame to a peer that may have closed already.
    pub async fn send_frame(&mut self, frame: Frame) -> std::io::Result<()> {
        self.try_send(frame.bytes()).await
    }

    pub async fn frame(&mut self) -> Result<Frame, Broken> {
        let head = self.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.exactly(length).await?;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until `found` likes a frame; none when the peer closes first.
    pub async fn frame_where(&mut self, found: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            match self.frame().await {
                Ok(frame) if found(&frame) => return Some(frame),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}
