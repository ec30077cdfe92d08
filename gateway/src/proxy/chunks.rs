//! Where a chunked body ends, by the strict grammar (RFC 9112 §7.1).
//!
//! Readers that differ over a malformed chunk differ over where the next request begins, so a body
//! is only let through as far as it is well formed.

/// Longest line of a size with its extensions, in bytes.
const MAX_SIZE_LINE_BYTES: usize = 1024;
/// Most bytes of trailers.
const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// Hex digits of a size; more cannot be real.
const MAX_SIZE_DIGITS: usize = 15;

/// A body that is not well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size of a chunk.
    Size {
        digits: usize,
        size: u64,
    },
    /// Behind the size, before its CR.
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// Follows one body as its bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkScanner {
    state: State,
    /// Bytes of the current size line, or of all trailers.
    line_bytes: usize,
    data_bytes: u64,
}

impl Default for ChunkScanner {
    fn default() -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, line_bytes: 0, data_bytes: 0 }
    }
}

impl ChunkScanner {
    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// How many of the bytes so far were data.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Takes the next bytes and returns how many of them belong to the body; fewer than there are
    /// only when it ends within them.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            if let State::Data { left } = self.state {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += take;
                self.data_bytes += take as u64;
                let left = left - take as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        let is_text = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        let next = match (self.state, byte) {
            (State::Size { digits, size }, _) if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                State::Size { digits: digits + 1, size: size << 4 | digit }
            }
            (State::Size { digits: 1.., size }, b'\r') => State::SizeLf { size },
            (State::Size { digits: 1.., size }, b';' | b' ' | b'\t') => State::Extension { size },
            (State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, _) if is_text => State::Extension { size },
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => State::Data { left: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, _) if is_text && byte != b' ' && byte != b'\t' && byte != b':' => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, _) if is_text => State::Trailer,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(BadChunk),
        };
        match next {
            State::Data { .. } | State::DataCr | State::DataLf => self.line_bytes = 0,
            _ => self.line_bytes += 1,
        }
        let in_trailers = matches!(next, State::TrailerStart | State::Trailer | State::TrailerLf | State::EndLf);
        let most = if in_trailers { MAX_SIZE_LINE_BYTES + MAX_TRAILER_BYTES } else { MAX_SIZE_LINE_BYTES };
        if self.line_bytes > most && next != State::End { Err(BadChunk) } else { Ok(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(body: &[u8]) -> Result<(usize, bool), BadChunk> {
        let mut scanner = ChunkScanner::default();
        let taken = scanner.advance(body)?;
        Ok((taken, scanner.is_done()))
    }

    #[test]
    fn finds_the_end_and_leaves_the_rest() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"5\r\nabcde\r\n0\r\n\r\n",
            b"A;name=value\r\n0123456789\r\n000\r\n\r\n",
            b"1 ;x\r\na\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n",
        ] {
            assert_eq!(run(body), Ok((body.len(), true)));
            let followed = [body, b"GET /smuggled HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(run(&followed), Ok((body.len(), true)));
            assert!(run(&body[..body.len() - 1]).is_ok_and(|(_, done)| !done));
        }
    }

    #[test]
    fn refuses_what_is_not_well_formed() {
        let long_line = [&b"5;"[..], &[b'x'; 2000], b"\r\nabcde\r\n0\r\n\r\n"].concat();
        let long_trailers = [&b"0\r\n"[..], &b"X: y\r\n".repeat(4000), b"\r\n"].concat();
        for body in [
            &b"\r\nabcde\r\n0\r\n\r\n"[..],
            b"5\nabcde\r\n0\r\n\r\n",
            b"5\r\nabcdef\r\n0\r\n\r\n",
            b"5\r\nabcde0\r\n\r\n",
            b"5\r\nabcde\n0\r\n\r\n",
            b"-5\r\n",
            b"+5\r\n",
            b"0x5\r\n",
            b"g\r\n",
            b" 5\r\n",
            b"5;a\nb\r\nabcde\r\n0\r\n\r\n",
            b"5;a\0b\r\nabcde\r\n0\r\n\r\n",
            b"5\r\r\n",
            b"ffffffffffffffff\r\n",
            b"0\r\n\n",
            b"0\r\n folded: x\r\n\r\n",
            b"0\r\nX: a\nY: b\r\n\r\n",
            b"0\r\n: x\r\n\r\n",
            &long_line,
            &long_trailers,
        ] {
            assert_eq!(run(body), Err(BadChunk), "{}", body.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in "[0-2a\r\n;x]{0,40}", cut in 0usize..40) {
            let bytes = body.as_bytes();
            let cut = cut.min(bytes.len());
            let whole = run(bytes);
            let mut scanner = ChunkScanner::default();
            let pieces = scanner.advance(&bytes[..cut]).and_then(|first| {
                let second = if first == cut { scanner.advance(&bytes[cut..])? } else { 0 };
                Ok((first + second, scanner.is_done()))
            });
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn a_valid_body_of_any_chunks_ends_where_it_should(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..6),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let length = body.len();
            body.extend(&rest);
            prop_assert_eq!(run(&body), Ok((length, true)));
        }
    }
}
