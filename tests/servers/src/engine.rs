//! Container engines: dockerd and podman, each with a socket, a root and images of its own.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::program;
use crate::supervisor::Supervisor;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman,
}

/// A running engine. Dropped, it takes its containers and images along.
#[derive(Debug)]
pub struct Engine {
    supervisor: Supervisor,
    kind: Kind,
}

/// What an engine leaves on the machine when it ends: processes of its containers, bridges, mounts.
const FAREWELL: &str = r#"
pkill -9 -f "$folder/" 2>/dev/null
for file in run/overlay-containers/*/userdata/pidfile; do
  [ -e "$file" ] || continue
  pid=$(cat "$file") id=${file#run/overlay-containers/}
  # The number may be another's by now.
  grep -q "${id%%/*}" "/proc/$pid/cgroup" 2>/dev/null && kill -9 "$pid"
done
grep -aho 'br-[0-9a-f]\{12\}' data/network/files/local-kv.db 2>/dev/null | sort -u |
  while read -r bridge; do ip link delete "$bridge" 2>/dev/null; done
grep -ho '"network_interface": *"[^"]*"' networks/*.json 2>/dev/null | cut -d '"' -f 4 |
  while read -r bridge; do ip link delete "$bridge" 2>/dev/null; done
awk -v f="$folder/" 'index($2, f) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do umount -l "$mount"; done
"#;

impl Engine {
    /// Starts one. An error, for people, if this machine has none or may not run it.
    pub fn start(kind: Kind) -> Result<Self, String> {
        let program = match kind {
            Kind::Docker => "dockerd",
            Kind::Podman => "podman",
        };
        let found = program::candidates(program, ["/usr/sbin", "/usr/bin"].map(|dir| PathBuf::from(dir).join(program)));
        let found = found.into_iter().find(|file| program::is_executable(file));
        let found = found.ok_or_else(|| format!("there is no {program} here; Debian: docker.io, podman"))?;
        let supervisor = Supervisor::new(program, "TERM", FAREWELL);
        let path = |name: &str| supervisor.folder().join(name).display().to_string();
        let (socket, data, run) = (path("socket"), path("data"), path("run"));
        let (found, url) = (found.display().to_string(), format!("unix://{socket}"));
        let (pid, networks) = (path("pid"), path("networks"));
        let words = match kind {
            Kind::Docker => vec![
                found.as_str(),
                "--data-root",
                &data,
                "--exec-root",
                &run,
                "--pidfile",
                &pid,
                "--host",
                &url,
                "--default-ulimit",
                "nofile=16384:16384",
            ],
            Kind::Podman => {
                let networks = ["--network-config-dir", &networks];
                // crun does not know a machine with both kinds of control groups.
                let stores = [&*found, "--runtime", "runc", "--root", &data, "--runroot", &run];
                [&stores[..], &networks, &["system", "service", "--time=0", &url]].concat()
            }
        };
        supervisor.start(&words, || UnixStream::connect(&socket).is_ok())?;
        Ok(Self { supervisor, kind })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.supervisor.folder().join("socket")
    }
}
