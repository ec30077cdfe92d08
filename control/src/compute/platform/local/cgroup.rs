//! Control groups: what limits, freezes and counts a container. Controllers may be on the unified hierarchy (v2), each
//! on one of its own (v1), or on both kinds at once.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edd_proto::ContainerId;
use serde::{Deserialize, Serialize};

use super::process::ProcessId;

/// Processes and threads that a container may have.
const MAX_TASKS: u32 = 4096;
/// The span within which a share of a processor is measured out.
const PERIOD_US: u64 = 100_000;
/// A group empties some time after the last of its processes was killed, and is looked at this often.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(5);
const EMPTY_POLL: Duration = Duration::from_millis(2);

/// Which of the two interfaces a hierarchy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Version {
    V1,
    V2,
}

/// A hierarchy, and our place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    version: Version,
    dir: PathBuf,
}

/// Where each thing that we need of control groups is to be had; what is not to be had is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cgroups {
    memory: Option<Place>,
    cpu: Option<Place>,
    tasks: Option<Place>,
    freezer: Option<Place>,
}

impl Cgroups {
    /// Makes a group for an installation wherever the machine lets us, and keeps what worked.
    pub(super) fn make(installation: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut found = Self::find(&mounts, installation);
        let made = |place: &Place| match place.make() {
            Ok(()) => true,
            Err(error) => {
                tracing::info!(dir = %place.dir.display(), %error, "no control group there");
                false
            }
        };
        for place in [&mut found.memory, &mut found.cpu, &mut found.tasks, &mut found.freezer] {
            *place = place.take().filter(made);
        }
        found
    }

    /// Reads a list of mounts as in proc_pid_mountinfo(5).
    fn find(mounts: &str, installation: &str) -> Self {
        let hierarchies: Vec<(Version, PathBuf, Vec<String>)> = mounts.lines().filter_map(hierarchy).collect();
        let place = |version, dir: &Path| Some(Place { version, dir: dir.join(format!("edd-{installation}")) });
        let with = |controller: &str| {
            let (version, dir, _) = hierarchies.iter().find(|(.., known)| known.iter().any(|c| c == controller))?;
            place(*version, dir)
        };
        // On the unified hierarchy every group but the root can be frozen, and what is frozen can be killed.
        let unified = hierarchies.iter().find(|(version, ..)| *version == Version::V2);
        let freezer = unified.and_then(|(version, dir, _)| place(*version, dir)).or_else(|| with("freezer"));
        Self { memory: with("memory"), cpu: with("cpu"), tasks: with("pids"), freezer }
    }

    pub(super) fn can_limit_memory(&self) -> bool {
        self.memory.is_some()
    }

    pub(super) fn can_limit_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    pub(super) fn can_freeze(&self) -> bool {
        self.freezer.is_some()
    }

    /// The group of a container.
    pub(super) fn of(&self, id: &ContainerId) -> Cgroup {
        let below = |place: &Option<Place>| {
            place.as_ref().map(|place| Place { version: place.version, dir: place.dir.join(id.as_str()) })
        };
        Cgroup(Self {
            memory: below(&self.memory),
            cpu: below(&self.cpu),
            tasks: below(&self.tasks),
            freezer: below(&self.freezer),
        })
    }

    /// Containers that have a group.
    pub(super) fn containers(&self) -> BTreeSet<ContainerId> {
        let dirs = self.dirs().into_iter().filter_map(|dir| std::fs::read_dir(dir).ok());
        dirs.flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Removes the installation's own groups, unless a container is in one.
    pub(super) fn remove(&self) {
        for dir in self.dirs() {
            if let Err(error) = std::fs::remove_dir(dir)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::info!(dir = %dir.display(), %error, "a control group stays");
            }
        }
    }

    fn dirs(&self) -> BTreeSet<&Path> {
        let places = [&self.memory, &self.cpu, &self.tasks, &self.freezer];
        places.into_iter().flatten().map(|place| place.dir.as_path()).collect()
    }
}

/// A hierarchy's interface, where it is, and its controllers.
fn hierarchy(mount: &str) -> Option<(Version, PathBuf, Vec<String>)> {
    let (before, after) = mount.split_once(" - ")?;
    let dir = PathBuf::from(before.split(' ').nth(4)?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    match kind {
        "cgroup" => Some((Version::V1, dir, options.split(',').map(str::to_owned).collect())),
        "cgroup2" => {
            let controllers = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            Some((Version::V2, dir, controllers.split_ascii_whitespace().map(str::to_owned).collect()))
        }
        _ => None,
    }
}

impl Place {
    /// Makes the directory, and on the unified hierarchy hands down the controllers that we use.
    fn make(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        if self.version == Version::V2 {
            for dir in self.dir.parent().into_iter().chain([self.dir.as_path()]) {
                let here = std::fs::read_to_string(dir.join("cgroup.controllers"))?;
                for controller in
                    ["memory", "cpu", "pids"].iter().filter(|ours| here.split(' ').any(|c| c.trim() == **ours))
                {
                    std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
                }
            }
        }
        Ok(())
    }
}

/// What a container may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    pub(super) memory_mb: u32,
    pub(super) cpu_millis: u32,
}

/// The group of one container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cgroup(Cgroups);

impl Cgroup {
    /// Makes it with its limits.
    pub(super) fn make(&self, limits: Limits) -> io::Result<()> {
        for dir in self.0.dirs() {
            std::fs::create_dir_all(dir)?;
        }
        let memory_bytes = (u64::from(limits.memory_mb) << 20).to_string();
        let quota_us = (u64::from(limits.cpu_millis) * PERIOD_US / 1000).to_string();
        if let Some(Place { version, dir }) = &self.0.memory {
            // Swap, where the kernel counts it, is no way around the limit.
            let (limit, swap, swap_bytes) = match version {
                Version::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", memory_bytes.as_str()),
                Version::V2 => ("memory.max", "memory.swap.max", "0"),
            };
            set(dir, limit, &memory_bytes)?;
            if dir.join(swap).exists() {
                set(dir, swap, swap_bytes)?;
            }
        }
        match &self.0.cpu {
            Some(Place { version: Version::V1, dir }) => {
                set(dir, "cpu.cfs_period_us", &PERIOD_US.to_string())?;
                set(dir, "cpu.cfs_quota_us", &quota_us)?;
            }
            Some(Place { version: Version::V2, dir }) => set(dir, "cpu.max", &format!("{quota_us} {PERIOD_US}"))?,
            None => {}
        }
        self.0.tasks.as_ref().map_or(Ok(()), |place| set(&place.dir, "pids.max", &MAX_TASKS.to_string()))
    }

    /// Moves a process into it; what that starts is in it too.
    pub(super) fn enter(&self, pid: i32) -> io::Result<()> {
        self.0.dirs().into_iter().try_for_each(|dir| set(dir, "cgroup.procs", &pid.to_string()))
    }

    /// Stops all of it in its tracks, or lets it go on, and returns once that is so.
    pub(super) async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let Some(Place { version, dir }) = &self.0.freezer else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no control group can freeze it"));
        };
        match version {
            Version::V1 => set(dir, "freezer.state", if frozen { "FROZEN" } else { "THAWED" })?,
            Version::V2 => set(dir, "cgroup.freeze", if frozen { "1" } else { "0" })?,
        }
        let deadline = Instant::now() + EMPTY_TIMEOUT;
        while self.is_frozen()? != frozen {
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{} does not change", dir.display())));
            }
            tokio::time::sleep(EMPTY_POLL).await;
        }
        Ok(())
    }

    pub(super) fn is_frozen(&self) -> io::Result<bool> {
        let Some(Place { version, dir }) = &self.0.freezer else { return Ok(false) };
        let (file, frozen) = match version {
            Version::V1 => ("freezer.state", "FROZEN"),
            Version::V2 => ("cgroup.events", "frozen 1"),
        };
        match std::fs::read_to_string(dir.join(file)) {
            Ok(text) => Ok(text.lines().any(|line| line.trim() == frozen)),
            // No group: nothing of it runs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How many of its processes were killed because it used up its memory.
    pub(super) fn out_of_memory_kills(&self) -> u64 {
        let Some(Place { version, dir }) = &self.0.memory else { return 0 };
        let file = if *version == Version::V1 { "memory.oom_control" } else { "memory.events" };
        let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Kills what is in it and removes it. What is not there needs no removal.
    pub(super) async fn remove(&self) -> io::Result<()> {
        for dir in self.0.dirs() {
            let deadline = Instant::now() + EMPTY_TIMEOUT;
            loop {
                kill_all(dir);
                match std::fs::remove_dir(dir) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => break,
                }
                tokio::time::sleep(EMPTY_POLL).await;
            }
        }
        Ok(())
    }
}

/// Kills every process in a group, a frozen one too.
fn kill_all(dir: &Path) {
    let processes = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for process in processes.lines().filter_map(|line| ProcessId::of(line.parse().ok()?).ok()) {
        process.kill();
    }
    // What is frozen on a hierarchy of version 1 dies when it goes on.
    if dir.join("freezer.state").exists() && set(dir, "freezer.state", "THAWED").is_err() {
        tracing::warn!(dir = %dir.display(), "a control group cannot be thawed");
    }
}

/// Writes one of a group's files, and names it if that fails.
fn set(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = dir.join(file);
    std::fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {value} to {}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
