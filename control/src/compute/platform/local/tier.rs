//! How well this machine lets us keep containers apart.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::launch::SEARCH_PATH;

/// From the best to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// Namespaces of the machine's root: processes, files, names, network.
    Root,
    /// Namespaces of an unprivileged user: processes, files, names. The network is the machine's.
    User,
    /// Plain child processes.
    Plain,
}

impl Tier {
    pub(super) const ALL: [Self; 3] = [Self::Root, Self::User, Self::Plain];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Root => "root namespaces",
            Self::User => "user namespaces",
            Self::Plain => "child processes",
        }
    }

    /// Whether a container has a file tree of its own.
    pub(super) fn has_rootfs(self) -> bool {
        self != Self::Plain
    }

    /// Whether a container has a network of its own.
    pub(super) fn has_network(self) -> bool {
        self == Self::Root
    }

    /// Flags of unshare(1) for a container's first process.
    pub(super) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Root => &["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"],
            Self::User => {
                &["--user", "--map-root-user", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
            }
            Self::Plain => &[],
        }
    }

    /// Tries it: an overlay and a process file system in the namespaces that a container gets, below `dir`. They go
    /// with the process.
    pub(super) fn try_out(self, dir: &Path) -> io::Result<()> {
        if self == Self::Plain {
            return Ok(());
        }
        for part in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        let script = "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged \
                      && mkdir merged/proc && mount -t proc proc merged/proc";
        let output = Command::new("unshare")
            .args(self.flags())
            .args(["--", "sh", "-c", script])
            .current_dir(dir)
            .env("PATH", SEARCH_PATH)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot run unshare (util-linux): {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
