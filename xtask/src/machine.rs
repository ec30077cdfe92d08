//! What this machine offers: programs on PATH, and the right to install packages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The file that `program` would run, found on PATH and in the folders that Debian leaves out of a user's PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    find_in(std::env::split_paths(&path).chain(system).chain(postgresql()), program)
}

/// Debian keeps the servers of each release of PostgreSQL apart.
fn postgresql() -> impl Iterator<Item = PathBuf> {
    let releases = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    releases.map(|release| release.path().join("bin"))
}

fn find_in(folders: impl Iterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    folders.map(|folder| folder.join(program)).find(|file| is_executable(file))
}

pub fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The words that turn a command line into one with root's rights without asking anybody: none for root itself, None
/// when there is no such way.
pub fn root_prefix() -> Option<&'static [&'static str]> {
    if is_root() {
        return Some(&[]);
    }
    find("sudo")?;
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sudo.status().is_ok_and(|status| status.success()).then_some(&["sudo", "-n"])
}

pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_user(&status) == Some(0))
}

/// The effective user id in the text of `/proc/<pid>/status`.
fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_the_second_of_four() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t7\t8\nGid:\t9\t9\t9\t9\n"), Some(0));
        assert_eq!(effective_user("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_user("Name:\tx\n"), None);
    }

    #[test]
    fn a_program_is_an_executable_file() {
        let folder = std::env::temp_dir().join(format!("edd-xtask-find-{}", std::process::id()));
        fs::create_dir_all(folder.join("a-folder")).unwrap();
        fs::write(folder.join("plain"), "").unwrap();
        fs::write(folder.join("runs"), "").unwrap();
        fs::set_permissions(folder.join("runs"), fs::Permissions::from_mode(0o755)).unwrap();
        let find = |program| find_in([folder.join("nowhere"), folder.clone()].into_iter(), program);
        assert_eq!(find("runs"), Some(folder.join("runs")));
        assert_eq!(find("plain"), None);
        assert_eq!(find("a-folder"), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
