//! Programs beside the process under test: edd's own verbs, and clients that others wrote.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::sync::oneshot;

use super::record::{Record, within};

/// How to run one. Nothing of the tester's own environment reaches it but PATH.
pub struct Program {
    name: String,
    command: Command,
    stdin: Vec<u8>,
}

/// What one that ended left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// One that runs; killed when dropped.
pub struct Running {
    name: String,
    child: Child,
    /// Line by line, without the line breaks.
    pub stdout: Record<String>,
    pub stderr: Record<String>,
    ended: [oneshot::Receiver<()>; 2],
}

impl Program {
    pub fn new(name: &str) -> Self {
        let mut command = Command::new(name);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        Self { name: name.to_owned(), command, stdin: Vec::new() }
    }

    pub fn edd(arguments: &[&str]) -> Self {
        Self::new(env!("CARGO_BIN_EXE_edd")).args(arguments)
    }

    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What it reads from its stdin, which is empty otherwise.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    pub fn spawn(mut self, stdin: Stdio) -> Child {
        let spawned = self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        spawned.unwrap_or_else(|e| panic!("run `{}`, which `cargo xtask test` installs: {e}", self.name))
    }

    pub fn start(self) -> Running {
        let (name, bytes) = (self.name.clone(), self.stdin.clone());
        let mut child = self.spawn(Stdio::piped());
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        // One that ends without reading it all closes the pipe.
        std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let (stdout, stdout_ended) = lines(child.stdout.take().expect("stdout is a pipe"));
        let (stderr, stderr_ended) = lines(child.stderr.take().expect("stderr is a pipe"));
        Running { name, child, stdout, stderr, ended: [stdout_ended, stderr_ended] }
    }

    /// Runs it to its end.
    pub async fn run(self) -> Output {
        self.start().output().await
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Waits for its end.
    pub async fn output(mut self) -> Output {
        for stream in &mut self.ended {
            within(&format!("`{}` to end", self.name), stream).await.expect("the thread that reads ends well");
        }
        // Its streams have ended with it, so this is no wait.
        let status = self.child.wait().expect("our own child");
        let text = |lines: &Record<String>| lines.all().iter().map(|line| format!("{line}\n")).collect();
        Output { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Dead already, or dead now: either is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Its stdout; fails the test unless it succeeded.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:#?}");
        &self.stdout
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {self:#?}"))
    }
}

/// Follows `stream` to its end on a thread of its own, so that the program never blocks on a full pipe.
fn lines(stream: impl Read + Send + 'static) -> (Record<String>, oneshot::Receiver<()>) {
    let record = Record::default();
    let (end_sender, end) = oneshot::channel();
    let lines = record.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        // A test that has given up no longer listens.
        let _ = end_sender.send(());
    });
    (record, end)
}
