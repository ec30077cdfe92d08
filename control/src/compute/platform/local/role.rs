//! What a program does that was started beside, or within, a container. It is edd itself, run again, because a process
//! with threads can neither change its namespaces nor be the first of one.

use std::io;
use std::path::{Path, PathBuf};

use super::home::Home;
use super::{init, page, supervisor};

/// The variable that tells a process its part.
pub(super) const VARIABLE: &str = "EDD_CONTAINER_ROLE";
/// The page of the default image.
pub(super) const PAGE: &str = "page";
const SUPERVISOR: &str = "supervisor:";
const INIT: &str = "init:";

/// The part of who looks after the container in `dir`.
pub(super) fn supervisor(dir: &Path) -> io::Result<String> {
    with_dir(SUPERVISOR, dir)
}

/// The part of the container's first process.
pub(super) fn init(dir: &Path) -> io::Result<String> {
    with_dir(INIT, dir)
}

fn with_dir(role: &str, dir: &Path) -> io::Result<String> {
    let dir = dir.to_str().ok_or_else(|| io::Error::other(format!("{} is not text", dir.display())))?;
    Ok(format!("{role}{dir}"))
}

/// Plays the part that this process was started for, to its end.
pub fn play() -> io::Result<()> {
    let role = std::env::var(VARIABLE)
        .map_err(|_| io::Error::other(format!("{VARIABLE} is not set: edd runs this itself, beside each container")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let home = |dir: &str| Home::at(PathBuf::from(dir));
    let local = tokio::task::LocalSet::new();
    if let Some(dir) = role.strip_prefix(SUPERVISOR) {
        local.block_on(&runtime, supervisor::run(home(dir)))
    } else if let Some(dir) = role.strip_prefix(INIT) {
        local.block_on(&runtime, init::run(home(dir)))
    } else if role == PAGE {
        runtime.block_on(page::serve())
    } else {
        Err(io::Error::other(format!("{VARIABLE}={role} is no part that there is")))
    }
}
