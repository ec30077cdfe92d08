//! Cargo as every task runs it: from the workspace's root, with one known target folder.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache;
use crate::failure::{Failure, run};
use crate::install::Reach;

pub struct Cargo {
    program: OsString,
    root: PathBuf,
    target: PathBuf,
    reach: Reach,
}

impl Cargo {
    /// `reach` says where the compiler's helpers are, beside PATH.
    pub fn new(reach: Reach) -> Result<Self, Failure> {
        let root = root()?;
        let target = target_folder(&root)?;
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self { program, root, target, reach })
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    /// `cargo words...`, ready to run.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.program(&self.program);
        command.args(words);
        command
    }

    /// A program that runs cargo.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        // What cargo tells this program of its own package would make build scripts, ring's for one, run again: half the
        // tree is built anew then whenever somebody changes between `cargo xtask` and plain cargo.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_of_a_package) {
                command.env_remove(name);
            }
        }
        command.envs(self.reach.variables.iter().copied());
        if !self.reach.folders.is_empty() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = self.reach.folders.iter().cloned().chain(std::env::split_paths(&path));
            // Joining fails only for a folder with a colon in its name; PATH could not have named it either.
            if let Ok(path) = std::env::join_paths(folders) {
                command.env("PATH", path);
            }
        }
        command
    }

    /// A program from crates.io in our cache folder, built when it is absent or of another release.
    pub fn tool(&self, name: &str, release: &str) -> Result<PathBuf, Failure> {
        let tools = cache::folder()?.join("tools");
        let program = tools.join("bin").join(name);
        let version = Command::new(&program).arg("--version").output();
        if version.is_ok_and(|output| output.stdout.trim_ascii() == format!("{name} {release}").as_bytes()) {
            return Ok(program);
        }
        eprintln!("xtask: building {name} {release} into {}", tools.display());
        let mut command = self.command(&["install", "--locked", "--force", name, "--version", release]);
        // Its build products would stay in our target folder for ever.
        command.env_remove("CARGO_TARGET_DIR").arg("--root").arg(&tools);
        run(&mut command).map(|()| program)
    }
}

/// Whether cargo sets `variable` for the package that it runs.
fn is_of_a_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| variable.starts_with(prefix))
}

/// The workspace: the folder above this crate's.
pub fn root() -> Result<PathBuf, Failure> {
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = crate_folder.and_then(|folder| folder.parent().map(Path::to_owned));
    root.ok_or_else(|| Failure::usage("start this program as `cargo xtask`: it finds the workspace through cargo"))
}

/// Where build products go: CARGO_TARGET_DIR if set, for CI the cache folder, else `target`.
fn target_folder(root: &Path) -> Result<PathBuf, Failure> {
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        return std::path::absolute(target).map_err(|error| Failure::usage(format!("CARGO_TARGET_DIR: {error}")));
    }
    if is_ci() { Ok(cache::folder()?.join("target")) } else { Ok(root.join("target")) }
}

pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_run_as_from_a_shell() {
        let cargo = Cargo::new(Reach::default()).unwrap();
        let command = cargo.command(&["build"]);
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
            assert!(std::env::var_os(name).is_some(), "cargo sets {name} for tests, too");
            assert!(command.get_envs().any(|(key, value)| key == name && value.is_none()), "{name} is passed on");
        }
    }
}
