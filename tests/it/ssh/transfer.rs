//! A client that has somebody send it something without end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::site::Site;
use crate::harness::within;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// So many looks take two seconds on a machine that does nothing else, and longer on one that is busy: so does what is
/// looked for.
const AT_ONCE_LOOKS: u32 = 150;
/// A connection in the state TIME_WAIT, as /proc/net/tcp has it: nobody holds it, and nothing is left to be sent.
const TIME_WAIT: &str = "06";

/// OpenSSH, receiving; killed when dropped.
pub struct Transfer {
    child: Child,
    /// What the process over there is told from others by.
    mark: String,
    /// The client's own.
    port: u16,
}

impl Transfer {
    /// Begins one, and returns once bytes flow.
    pub async fn begin(site: &Site) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("transfer-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let command = format!("echo begun >&2; exec cat /dev/zero {mark}");
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(site.dir().join("config")).args(["gw", &command]).env("HOME", site.dir());
        let mut child = ssh
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`cargo xtask setup` installs ssh");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let begun = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stderr.read_line(&mut line).map(|_| line)
        });
        let line = within("a transfer to begin", begun).await.expect("a thread that reads").expect("text");
        assert_eq!(line, "begun\n");
        let port = port_of(child.id()).expect("a client that is connected");
        let transfer = Self { child, mark, port };
        within("bytes to flow", async {
            while transfer.received() < 1 << 20 {
                tokio::time::sleep(LOOK_EVERY).await
            }
        })
        .await;
        transfer
    }

    /// The client stops reading, and everything else.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("it runs");
    }

    /// Neither leg is left, at once: the process over there is gone, the gateway's socket is closed, and, unless it is
    /// frozen, the client has ended.
    pub async fn ends_at_once(&mut self, why: &str, gateway_port: u16, is_frozen: bool) {
        let mut left = Vec::new();
        for _ in 0..AT_ONCE_LOOKS {
            left = vec![
                ("the process over there", is_anywhere(&self.mark)),
                ("the gateway's socket", is_connected(gateway_port, self.port)),
                ("the client", !is_frozen && self.exit().is_none()),
            ];
            left.retain(|(_, is_left)| *is_left);
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("{why} (frozen: {is_frozen}): {left:?} after {AT_ONCE_LOOKS} looks");
    }

    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    pub fn is_running(&mut self) -> bool {
        self.exit().is_none() && is_anywhere(&self.mark)
    }

    /// Bytes that the client has read so far, of whatever kind.
    fn received(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap_or_default();
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        read.and_then(|read| read.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // Dead already, or dead now: either is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether some process, besides clients, has `mark` among its arguments: containers' processes are seen from here.
fn is_anywhere(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut commands = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.any(|command| command.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes()))
}

/// The local port of a process's one connection.
fn port_of(process: u32) -> Option<u16> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    let sockets: Vec<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    connections().into_iter().find(|connection| sockets.contains(&connection.inode)).map(|connection| connection.local)
}

/// Whether the gateway still holds the connection of a client's port.
fn is_connected(gateway_port: u16, client_port: u16) -> bool {
    connections().iter().any(|connection| {
        (connection.local, connection.remote) == (gateway_port, client_port) && connection.state != TIME_WAIT
    })
}

struct Connection {
    local: u16,
    remote: u16,
    state: String,
    inode: String,
}

/// Those of this machine over IPv4, see proc(5).
fn connections() -> Vec<Connection> {
    let table = fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [local, remote] = [1, 2].map(|index| fields.get(index).and_then(|address| port(address)));
        let (state, inode) = (fields.get(3)?.to_string(), fields.get(9)?.to_string());
        Some(Connection { local: local?, remote: remote?, state, inode })
    };
    table.lines().skip(1).filter_map(read).collect()
}
