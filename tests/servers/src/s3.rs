//! A server that speaks S3: moto, in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::supervisor::Supervisor;
use crate::{port, program};

/// Another process may take the port between the choice and the start.
const TRIES: u32 = 5;
/// How long it may take to answer a request, once it runs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// An S3 server of one's own. It goes, with its data, when it is dropped or the process ends.
#[derive(Debug)]
pub struct S3 {
    supervisor: Supervisor,
    program: PathBuf,
    port: u16,
    buckets: AtomicU32,
}

impl S3 {
    /// Starts one on a free port of the loopback interface, without buckets.
    pub fn start() -> Self {
        let program = program::candidates("moto_server", program::fetched()).into_iter().next();
        let program = program.unwrap_or_else(|| panic!("no moto_server: run `cargo xtask setup`"));
        let supervisor = Supervisor::new("s3", "TERM", "");
        let mut server = Self { supervisor, program, port: port::free(), buckets: AtomicU32::new(0) };
        for _ in 1..TRIES {
            if server.try_start().is_ok() {
                return server;
            }
            server.port = port::free();
        }
        server.try_start().unwrap_or_else(|failure| panic!("{failure}"));
        server
    }

    /// One for all tests of this process. It takes a second to start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<S3> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes an empty bucket that nobody else has: its name.
    pub fn bucket(&self) -> String {
        let name = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        let status = self.ask("PUT", &format!("/{name}")).unwrap_or_else(|error| panic!("make a bucket: {error}"));
        assert_eq!(status, 200, "make a bucket\n{}", self.supervisor.log());
        name
    }

    /// What lets a client in: `AWS_*`.
    pub fn variables(&self) -> [(&'static str, &'static str); 3] {
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")]
    }

    /// Stops it for a while, as a network does: connections open, and nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.supervisor.pid().expect("it was started").to_string();
        self.supervisor.run(&["kill", "-s", signal, &pid]).unwrap_or_else(|failure| panic!("{failure}"));
    }

    fn try_start(&self) -> Result<(), String> {
        let (program, port) = (self.program.display().to_string(), self.port.to_string());
        self.supervisor.start(&[&program, "-H", "127.0.0.1", "-p", &port], || {
            self.ask("GET", "/moto-api/").is_ok_and(|status| status == 200)
        })
    }

    /// The status of its answer.
    fn ask(&self, method: &str, path: &str) -> std::io::Result<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\n\r\n", self.port)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| std::io::Error::other(format!("no answer of HTTP: {answer}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_buckets_and_goes() {
        let server = S3::start();
        let bucket = server.bucket();
        assert_ne!(bucket, server.bucket());
        assert_eq!(server.ask("GET", &format!("/{bucket}?list-type=2")).expect("an answer"), 200);
        assert_eq!(server.ask("GET", "/no-such-bucket?list-type=2").expect("an answer"), 404);
        let folder = server.supervisor.folder().to_owned();
        drop(server);
        assert!(!folder.exists(), "{} stayed", folder.display());
    }
}
