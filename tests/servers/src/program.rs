//! Where the programs of the servers are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The files named `program` on PATH and then in `others`.
pub fn candidates(program: &str, others: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(others);
    folders.map(|folder| folder.join(program)).filter(|file| is_executable(file)).collect()
}

pub fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The first `program` that `cargo xtask setup` has fetched.
pub fn fetched_program(program: &str) -> Option<PathBuf> {
    fetched().into_iter().map(|folder| folder.join(program)).find(|file| is_executable(file))
}

/// Where the programs are that `cargo xtask setup` fetches (`xtask/src/install.rs`).
pub fn fetched() -> Vec<PathBuf> {
    caches().map(|cache| cache.join("wheels/bin")).collect()
}

/// The packages of npm that it fetches (`xtask/src/npm.rs`), as node's variable NODE_PATH takes them. None: there is no
/// npm here.
pub fn fetched_packages() -> Option<PathBuf> {
    caches().map(|cache| cache.join("node/node_modules")).find(|folder| folder.is_dir())
}

/// The folders that outlive a checkout (`xtask/src/cache.rs`).
fn caches() -> impl Iterator<Item = PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let cache = cache.or_else(|| variable("HOME").map(|home| home.join(".cache"))).map(|cache| cache.join("edd"));
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cache");
    cache.into_iter().chain([checkout])
}
