//! The PROXY protocol, versions 1 and 2, from balancers that are trusted to send it.

use std::io;
use std::net::IpAddr;

use bytes::Buf;
use ppp::{HeaderResult, v1, v2};

use crate::proxy::transport::Rewind;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Where the second version has the length of what follows.
const V2_LENGTH_AT: usize = 14;
/// Longest header of the first version, by its specification.
const MAX_V1_BYTES: usize = 107;
/// Longest of the second that is taken, address and extensions included.
pub const MAX_V2_BYTES: usize = 2048;

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No header.
    None,
    /// The beginning of one.
    Cut,
    /// One of so many bytes, and the client's address from it, if it has one.
    Header { bytes: usize, source: Option<IpAddr> },
}

/// Reads the header that the stream may begin with, and returns the client's address from it.
///
/// `None` is a stream without one, or a balancer's own health check (LOCAL, UNKNOWN).
pub async fn read(stream: &mut Rewind) -> io::Result<Option<IpAddr>> {
    if !stream.fill(1).await? {
        return Ok(None);
    }
    loop {
        match find(&stream.ahead)? {
            Found::None => return Ok(None),
            Found::Header { bytes, source } => {
                stream.ahead.advance(bytes);
                return Ok(source);
            }
            Found::Cut => {
                let have = stream.ahead.len();
                if !stream.fill(have + 1).await? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

/// Looks at the first bytes of a stream. Where a header ends is found out here: the parser takes some that are cut off for
/// malformed ones.
///
/// # Errors
/// They are a header's, and it is malformed or too long.
pub fn find(ahead: &[u8]) -> io::Result<Found> {
    let malformed = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let looks_like = |magic: &[u8]| ahead.iter().zip(magic).all(|(a, b)| a == b);
    let (end, longest) = if looks_like(V2_SIGNATURE) {
        let length = ahead.get(V2_LENGTH_AT..).and_then(<[u8]>::first_chunk);
        let end = length.map(|length| V2_LENGTH_AT + 2 + usize::from(u16::from_be_bytes(*length)));
        (end, MAX_V2_BYTES)
    } else if looks_like(V1_SIGNATURE) {
        (ahead.iter().position(|byte| *byte == b'\n').map(|last| last + 1), MAX_V1_BYTES)
    } else {
        return Ok(Found::None);
    };
    if end.unwrap_or(ahead.len() + 1) > longest {
        return malformed("the PROXY header is too long");
    }
    let Some(header) = end.and_then(|end| ahead.get(..end)) else { return Ok(Found::Cut) };
    let source = match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => v1_source(&header.addresses),
        HeaderResult::V2(Ok(header)) => v2_source(&header),
        _ => return malformed("malformed PROXY header"),
    };
    Ok(Found::Header { bytes: header.len(), source })
}

fn v1_source(addresses: &v1::Addresses) -> Option<IpAddr> {
    match addresses {
        v1::Addresses::Tcp4(tcp) => Some(tcp.source_address.into()),
        v1::Addresses::Tcp6(tcp) => Some(tcp.source_address.into()),
        v1::Addresses::Unknown => None,
    }
}

fn v2_source(header: &v2::Header<'_>) -> Option<IpAddr> {
    if header.command == v2::Command::Local {
        return None;
    }
    match header.addresses {
        v2::Addresses::IPv4(ip) => Some(ip.source_address.into()),
        v2::Addresses::IPv6(ip) => Some(ip.source_address.into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    /// What `read` makes of `pieces`, each sent in a segment of its own, and what is left over.
    async fn run(pieces: &[&[u8]]) -> (io::Result<Option<IpAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let mut stream = Rewind::new(listener.accept().await.unwrap().0);
        let owned: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for piece in owned {
                client.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let result = read(&mut stream).await;
        writer.await.unwrap();
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await.unwrap();
        (result, rest)
    }

    #[tokio::test]
    async fn both_versions_whole_and_in_pieces() {
        let v1 = b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 80\r\nGET /";
        let (ip, rest) = run(&[v1]).await;
        assert_eq!((ip.unwrap(), &rest[..]), (Some("203.0.113.7".parse().unwrap()), &b"GET /"[..]));
        let (ip, rest) = run(&[&v1[..3], &v1[3..20], &v1[20..]]).await;
        assert_eq!((ip.unwrap(), &rest[..]), (Some("203.0.113.7".parse().unwrap()), &b"GET /"[..]));
        let mut v2 = V2_SIGNATURE.to_vec();
        v2.extend([0x21, 0x11, 0, 12, 203, 0, 113, 8, 10, 0, 0, 1, 1, 1, 0, 80]);
        v2.extend(b"rest");
        let (ip, rest) = run(&[&v2]).await;
        assert_eq!((ip.unwrap(), &rest[..]), (Some("203.0.113.8".parse().unwrap()), &b"rest"[..]));
        let (ip, _) = run(&[&v2[..5], &v2[5..15], &v2[15..]]).await;
        assert_eq!(ip.unwrap(), Some("203.0.113.8".parse().unwrap()));
    }

    #[test]
    fn a_header_may_be_cut_off_anywhere_and_is_only_so_long() {
        let mut v2 = V2_SIGNATURE.to_vec();
        v2.extend([0x21, 0x11, 0, 12, 203, 0, 113, 8, 10, 0, 0, 1, 1, 1, 0, 80]);
        for header in [&b"PROXY TCP4 203.0.113.8 10.0.0.1 5555 80\r\n"[..], &v2] {
            for end in 0..header.len() {
                assert_eq!(find(&header[..end]).unwrap(), Found::Cut, "{end}");
            }
            let source = "203.0.113.8".parse().ok();
            assert_eq!(find(header).unwrap(), Found::Header { bytes: header.len(), source });
        }
        let endless = [b"PROXY TCP4 ", &[b'1'; MAX_V1_BYTES][..]].concat();
        assert_eq!(find(&endless[..MAX_V1_BYTES - 1]).unwrap(), Found::Cut);
        assert!(find(&endless[..MAX_V1_BYTES]).is_err());
        v2[14] = 8;
        assert!(find(&v2).is_err(), "more than two kilobytes are announced");
    }

    #[tokio::test]
    async fn other_streams_are_left_as_they_are() {
        for text in [&b"GET / HTTP/1.1\r\n"[..], b"POST / HTTP/1.1\r\n", b"\x16\x03\x01", b"PUT /"] {
            let (ip, rest) = run(&[text]).await;
            assert_eq!((ip.unwrap(), &rest[..]), (None, text));
        }
        let (ip, rest) = run(&[b"PROXY UNKNOWN\r\nx"]).await;
        assert_eq!((ip.unwrap(), &rest[..]), (None, &b"x"[..]));
    }

    #[tokio::test]
    async fn a_malformed_header_is_an_error() {
        assert!(run(&[b"PROXY TCP4 nonsense\r\n"]).await.0.is_err());
        assert!(run(&[b"PROXY TCP4 1.2.3.4"]).await.0.is_err());
    }
}
