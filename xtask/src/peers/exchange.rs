//! One HTTP/1.1 exchange in the clear: enough to see that a server answers, and what it told the upstream.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
/// Far above anything that we ask for here.
const MAX_RESPONSE_BYTES: u64 = 64 << 10;

/// Asks for `path` and gives the body of a 200.
pub fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response)?;
    let response = String::from_utf8_lossy(&response);
    match body_of(&response) {
        Some(body) => Ok(body.to_owned()),
        None => Err(io::Error::other(format!("answered: {}", response.lines().next().unwrap_or("nothing")))),
    }
}

fn body_of(response: &str) -> Option<&str> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_200_has_a_body_for_us() {
        assert_eq!(body_of("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello"), Some("hello"));
        assert_eq!(body_of("HTTP/1.1 502 Bad Gateway\r\n\r\nhello"), None);
        assert_eq!(body_of("HTTP/1.1 200 OK\r\nA: b\r\n"), None);
    }
}
