//! A nats-server with JetStream.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::supervisor::Supervisor;
use crate::{port, program};

/// Older ones lack consumers with several filters, and lose data when they crash.
const OLDEST: (u32, u32) = (2, 10);
/// Another process may take the port between the choice and the start.
const TRIES: u32 = 5;
/// How long a server that accepts a connection may take to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);

/// A nats-server of one's own. It goes, with its data, when it is dropped or the process ends.
#[derive(Debug)]
pub struct Nats {
    supervisor: Supervisor,
    program: PathBuf,
    port: u16,
}

impl Nats {
    /// Starts one on a free port of the loopback interface, with an empty store.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// One whose configuration file has these lines too: users, limits (`jetstream { max_file_store: 1MB }`).
    pub fn with_config(lines: &str) -> Self {
        let supervisor = Supervisor::new("nats", "KILL", "");
        let mut nats = Self { supervisor, program: find(), port: port::free() };
        nats.configure(lines);
        for _ in 1..TRIES {
            if nats.try_start().is_ok() {
                return nats;
            }
            nats.port = port::free();
        }
        nats.try_start().unwrap_or_else(|failure| panic!("{failure}"));
        nats
    }

    /// Gives it other lines for its configuration, from its next start on.
    pub fn configure(&self, lines: &str) {
        let config = self.supervisor.folder().join("nats.conf");
        fs::write(&config, lines).unwrap_or_else(|error| panic!("write {}: {error}", config.display()));
    }

    /// `nats://127.0.0.1:port`: the same one for the server's whole life, restarts included.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where its data lies.
    pub fn store(&self) -> PathBuf {
        self.supervisor.folder().join("store")
    }

    /// Ends it as a crash does.
    pub fn kill9(&self) {
        self.supervisor.kill();
    }

    /// Ends it as an operator does.
    pub fn stop(&self) {
        self.supervisor.end("TERM");
    }

    /// Starts it with the data and at the port that it had, after ending it if it runs.
    pub fn restart(&self) {
        self.stop();
        self.try_start().unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// Has it lose its data. It must not run.
    pub fn wipe_data(&self) {
        assert!(!self.supervisor.is_running(), "stop nats-server before its data is removed");
        let store = self.store();
        fs::remove_dir_all(&store).unwrap_or_else(|error| panic!("remove {}: {error}", store.display()));
    }

    /// Nobody else's, because the folder is not.
    fn name(&self) -> String {
        let folder = self.supervisor.folder().file_name().unwrap_or_default();
        folder.to_string_lossy().into_owned()
    }

    fn try_start(&self) -> Result<(), String> {
        let (program, port, name) = (self.program.display().to_string(), self.port.to_string(), self.name());
        let words = ["-a", "127.0.0.1", "-p", &port, "-n", &name, "-js", "-sd", "store", "-c", "nats.conf"];
        self.supervisor.start(&[&[program.as_str()], &words[..]].concat(), || self.greets())
    }

    /// Whether it is this server, and not another at its port, that accepts connections. It does after its streams are
    /// recovered.
    fn greets(&self) -> bool {
        let greeting = TcpStream::connect(("127.0.0.1", self.port)).and_then(|stream| {
            stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).map(|_| line)
        });
        let name = format!("\"server_name\":\"{}\"", self.name());
        greeting.is_ok_and(|line| line.starts_with("INFO ") && line.contains(&name))
    }
}

/// The first nats-server that is not too old.
fn find() -> PathBuf {
    let files = program::candidates("nats-server", program::fetched());
    let found = files.iter().find(|file| version(file).is_some_and(|version| version >= OLDEST));
    found.cloned().unwrap_or_else(|| {
        panic!("no nats-server of {}.{} or later (too old: {files:?}): run `cargo xtask setup`", OLDEST.0, OLDEST.1)
    })
}

fn version(file: &Path) -> Option<(u32, u32)> {
    let output = Command::new(file).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `nats-server: v2.15.1`.
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.trim().rsplit_once('v')?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What JetStream answers.
    fn ask(nats: &Nats, subject: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", nats.port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let length = body.len();
        write!(stream, "CONNECT {{}}\r\nSUB me 1\r\nPUB $JS.API.{subject} me {length}\r\n{body}\r\n")
            .expect("a request");
        let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
        lines.find(|line| line.starts_with("MSG me ")).expect("an answer");
        lines.next().expect("its body")
    }

    #[test]
    fn a_server_keeps_port_and_data_until_they_are_wiped() {
        let nats = Nats::with_config("jetstream { max_file_store: 1MB }");
        let (url, folder) = (nats.url(), nats.supervisor.folder().to_owned());
        let stream =
            r#"{"name":"S","subjects":["s"],"storage":"file","retention":"limits","num_replicas":1,"max_bytes":"#;
        let create = |max_bytes| ask(&nats, "STREAM.CREATE.S", &format!("{stream}{max_bytes}}}"));
        assert!(create(1 << 21).contains("insufficient storage"), "the configuration counts");
        assert!(create(1 << 20).contains("did_create"));
        nats.kill9();
        assert!(!nats.supervisor.is_running());
        TcpStream::connect(("127.0.0.1", nats.port)).expect_err("nobody listens");
        for restart in ["after kill -9", "while it runs"] {
            nats.restart();
            assert!(ask(&nats, "STREAM.INFO.S", "").contains("config"), "{restart}");
        }
        nats.stop();
        nats.wipe_data();
        nats.restart();
        assert!(ask(&nats, "STREAM.INFO.S", "").contains("stream not found"));
        assert_eq!(nats.url(), url);
        drop(nats);
        assert!(!folder.exists(), "{} stayed", folder.display());
    }

    #[test]
    fn a_server_that_does_not_start_says_why() {
        let failure = std::panic::catch_unwind(|| Nats::with_config("no such setting")).expect_err("a panic");
        let failure = failure.downcast::<String>().expect("a message");
        assert!(failure.contains("nats.conf"), "{failure}");
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(parse_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert!(parse_version("nats-server: v2.9.10").is_some_and(|version| version < OLDEST));
        assert!(parse_version("nats-server: v2.10.0-beta.1").is_some_and(|version| version >= OLDEST));
        assert_eq!(parse_version("unknown"), None);
    }
}
