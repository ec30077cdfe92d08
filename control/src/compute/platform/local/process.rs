//! A process of this machine, told from a later one with the same number.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;

/// A process: its number and when it started, which together are never given out twice between two boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pid: i32,
    /// Since the machine's start, in clock ticks.
    started_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now; an error if there is none.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        let stat = Stat::read(pid)?;
        Ok(Self { pid, started_ticks: stat.started_ticks })
    }

    /// The calling process.
    pub(super) fn own() -> io::Result<Self> {
        Self::of(rustix::process::getpid().as_raw_pid())
    }

    pub(super) fn is_alive(self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.started_ticks == self.started_ticks && !stat.is_dead())
    }

    /// A handle that stays with this process; none once it has ended.
    pub(super) fn open(self) -> Option<Handle> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Looked at after the handle is there: now the number cannot change hands unnoticed.
        self.is_alive().then_some(Handle(fd))
    }

    /// Kills it if it still runs.
    pub(super) fn kill(self) {
        if let Some(handle) = self.open() {
            handle.signal(Signal::KILL);
        }
    }
}

/// Holds on to a process.
#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

impl Handle {
    /// Sends a signal; one that has ended needs none.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.0, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, ?signal, "a process of a container takes no signals");
        }
    }

    /// Returns when it has ended, and clears it away if it was our child.
    pub(super) async fn ended(&self) -> io::Result<()> {
        // Its end makes the handle readable as data does a pipe.
        Receiver::from_owned_fd_unchecked(self.0.try_clone()?)?.readable().await?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.0.as_fd()), options) {
            // Somebody else's child after an adoption.
            Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What `/proc/<pid>/stat` says of a process.
struct Stat {
    state: char,
    parent: i32,
    started_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood: {text}")))
    }

    /// The second field, a name in parentheses, may hold anything; proc_pid_stat(5) numbers the others.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started_ticks: fields.get(19)?.parse().ok()?,
        })
    }

    /// A zombie has ended; who started it has not looked yet.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// All processes below `ancestor`, whatever they did to get away from it except ending their parent.
pub(super) fn descendants(ancestor: i32) -> Vec<ProcessId> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<(i32, Stat)> = numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid).ok()?)))
        .collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    let alive = |pid: &i32| all.iter().find(|(other, stat)| other == pid && !stat.is_dead());
    found[1..]
        .iter()
        .filter_map(alive)
        .map(|(pid, stat)| ProcessId { pid: *pid, started_ticks: stat.started_ticks })
        .collect()
}

/// All processes that were started with this variable, `NAME=value`, in their environment.
pub(super) fn with_variable(variable: &str) -> Vec<ProcessId> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = numbers.filter_map(|entry| ProcessId::of(entry.file_name().to_str()?.parse().ok()?).ok());
    let has_it = |id: &ProcessId| {
        let environment = std::fs::read(format!("/proc/{}/environ", id.pid)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|other| other == variable.as_bytes())
    };
    all.filter(|id| id.is_alive() && has_it(id)).collect()
}

/// Tells one boot of this machine from another.
pub(super) fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_confuses_nobody() {
        let text = "42 (a) R 1 (b)) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 0 0\n";
        let stat = Stat::parse(text).expect("a process");
        assert_eq!((stat.state, stat.parent, stat.started_ticks), ('S', 7, 123_456));
        assert!(Stat::parse("42 (x").is_none());
    }

    #[test]
    fn processes_are_found_by_a_variable_of_theirs() {
        let value = format!("EDD_TEST_{:x}", rand::random::<u64>());
        let mut child = std::process::Command::new("sleep").arg("60").env(&value, "a=b").spawn().expect("a child");
        let id = ProcessId::of(child.id().cast_signed()).expect("its number");
        assert_eq!(with_variable(&format!("{value}=a=b")), [id]);
        assert_eq!(with_variable(&format!("{value}=a")), []);
        child.kill().and_then(|()| child.wait()).expect("its end");
        assert_eq!(with_variable(&format!("{value}=a=b")), []);
    }

    #[test]
    fn a_number_that_was_reused_is_another_process() {
        let own = ProcessId::own().expect("this process");
        assert!(own.is_alive() && own.open().is_some());
        let later = ProcessId { started_ticks: own.started_ticks + 1, ..own };
        assert!(!later.is_alive() && later.open().is_none());
    }

    #[tokio::test]
    async fn the_end_of_a_child_is_seen_and_cleared_away() {
        #[expect(clippy::zombie_processes, reason = "this is what is tested")]
        let child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let id = ProcessId::of(child.id().cast_signed()).expect("its number");
        assert!(descendants(rustix::process::getpid().as_raw_pid()).contains(&id));
        let handle = id.open().expect("a handle");
        handle.signal(Signal::KILL);
        handle.ended().await.expect("its end");
        assert!(!id.is_alive() && !Path::new(&format!("/proc/{}", id.pid)).exists(), "a zombie is left");
    }
}
