//! What a container has of this machine, looked for from outside.

use std::fs;
use std::path::{Path, PathBuf};

/// Everything that tells of the container `id`: processes, control groups, links, mounts.
pub fn traces(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(processes(id, None).into_iter().map(|process| format!("process {process}")));
    let is_named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(id));
    found.extend(entries("/sys/class/net").into_iter().filter(is_named).map(|path| path.display().to_string()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|mount| mount.contains(id)).map(str::to_owned));
    // Below a controller with version 1, and at the top with version 2; the installation is in between.
    let tops = entries("/sys/fs/cgroup").into_iter().chain([PathBuf::from("/sys/fs/cgroup")]);
    let groups = tops.flat_map(entries).map(|installation| installation.join(id)).filter(|group| group.exists());
    found.extend(groups.map(|group| group.display().to_string()));
    found
}

/// The processes that were started for the container `id`, in the given role or in any, by their environment.
pub fn processes(id: &str, role: Option<&str>) -> Vec<u32> {
    let (is_it, home) = (format!("EDD_CONTAINER_ID={id}"), format!("/containers/{id}"));
    let role = role.map(|role| format!("EDD_CONTAINER_ROLE={role}"));
    let processes = entries("/proc").into_iter().filter_map(|path| Some((number(&path)?, path)));
    let of_it = processes.filter(|(_, path)| {
        // One that has ended meanwhile has none.
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let variables: Vec<_> = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        variables.iter().any(|variable| *variable == is_it || variable.ends_with(&home))
            && role.as_ref().is_none_or(|role| variables.iter().any(|variable| variable == role))
    });
    of_it.map(|(process, _)| process).collect()
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
