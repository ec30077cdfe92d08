//! The folder that outlives a checkout: tools that we built or fetched, and CI's build products.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cargo;
use crate::failure::Failure;

/// Above this a build cache holds mostly products of old lock files and toolchains, so starting afresh is cheaper than
/// keeping it.
const MAX_TARGET_BYTES: u64 = 12 << 30;

/// `$XDG_CACHE_HOME/edd`, or `~/.cache/edd`; where neither can be made, a folder that goes with the checkout.
pub fn folder() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or(home);
    let folder = match base.map(|base| base.join("edd")) {
        Some(folder) if is_writable(&folder) => folder,
        _ => cargo::root()?.join("target/cache"),
    };
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::unavailable(format!("cannot create {}: {error}", folder.display())))?;
    Ok(folder)
}

/// Whether a file can be made in `folder`: its mode alone does not tell (read-only mounts, root).
fn is_writable(folder: &Path) -> bool {
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    fs::create_dir_all(folder).and_then(|()| fs::write(&probe, "")).and_then(|()| fs::remove_file(&probe)).is_ok()
}

/// Deletes `target` when it has grown beyond its bound. A folder that is not there yet is fine.
pub fn bound(target: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::step(format!("build cache {}: {error}", target.display()));
    let bytes = match size_bytes(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    if bytes <= MAX_TARGET_BYTES {
        return Ok(());
    }
    eprintln!("xtask: build cache {} holds {} GiB: deleting it", target.display(), bytes >> 30);
    fs::remove_dir_all(target).map_err(failed)
}

/// The bytes of all files below `folder`. Links are not followed.
fn size_bytes(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { size_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_counts_nested_files_and_a_small_cache_stays() {
        let root = std::env::temp_dir().join(format!("edd-xtask-cache-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("one"), [0; 10]).unwrap();
        fs::write(root.join("a/b/two"), [0; 32]).unwrap();
        assert_eq!(size_bytes(&root).unwrap(), 42);
        bound(&root).unwrap();
        assert!(root.join("a/b/two").exists());
        fs::remove_dir_all(&root).unwrap();
        bound(&root).unwrap();
    }
}
