//! OpenSSH's client as a process that goes on.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::world::{PATIENCE, until_some};

/// Killed when dropped.
pub struct Client(pub Child);

impl Client {
    pub fn of(command: &mut Command, stdin: Stdio) -> Self {
        Self(command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Reads so much of what it prints.
    pub async fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut stdout = self.0.stdout.take().unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut read = vec![0; bytes];
            stdout.read_exact(&mut read).map(|()| (stdout, read))
        });
        let Ok(read) = tokio::time::timeout(PATIENCE, reading).await else {
            // Or the test would wait for its thread.
            self.0.kill().unwrap();
            panic!("nothing came of {bytes} bytes");
        };
        let (stdout, read) = read.unwrap().unwrap();
        self.0.stdout = Some(stdout);
        read
    }

    /// How it ends.
    pub async fn code(&mut self) -> Option<i32> {
        until_some("its end", || self.0.try_wait().unwrap()).await.code()
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
