//! Clients from npm, set below the cache folder exactly as `tests/node/package-lock.json` says.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{Failure, run};
use crate::{cache, cargo, machine};

/// The folder in the cache folder; `tests/servers` looks there too.
const FOLDER: &str = "node";
/// What is copied there; the lock comes last, because it says that all is in place.
const FILES: [&str; 3] = ["package.json", ".npmrc", "package-lock.json"];

/// Whether this machine has npm.
pub fn possible() -> bool {
    machine::find("npm").is_some()
}

/// Brings what the lock file names. Quick when that has not changed.
pub fn install() -> Result<(), Failure> {
    let (ours, theirs) = (cargo::root()?.join("tests/node"), cache::folder()?.join(FOLDER));
    let lock = FILES[FILES.len() - 1];
    if fs::read(ours.join(lock)).ok() == fs::read(theirs.join(lock)).ok() {
        return Ok(());
    }
    eprintln!("xtask: installing what tests run on node from npm into {}", theirs.display());
    copy(&ours, &theirs).map_err(|error| Failure::unavailable(format!("{}: {error}", theirs.display())))?;
    let mut npm = Command::new("npm");
    // No package of a test has to run anything to be installed.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    let done = run(npm.current_dir(&theirs).stdin(Stdio::null()).stdout(io::stderr()));
    done.map_err(|failure| {
        // The next run begins anew; that it cannot be removed changes nothing about the failure.
        let _ = fs::remove_file(theirs.join(lock));
        Failure::unavailable(failure.to_string())
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    FILES.iter().try_for_each(|file| fs::copy(from.join(file), to.join(file)).map(drop))
}
