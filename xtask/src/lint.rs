//! `cargo xtask lint`: what a change must pass before anybody reads it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cargo::{self, Cargo};
use crate::failure::{Failure, run};
use crate::{install, machine, tool};

/// deny.toml is written for this release.
const CARGO_DENY: &str = "0.20.2";
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub fn lint() -> Result<(), Failure> {
    let cargo = Cargo::new(install::ensure(tool::BUILD)?)?;
    components(&cargo)?;
    lock_file(&cargo::root()?.join("Cargo.lock"))?;
    run(&mut cargo.command(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    run(&mut cargo.command(&clippy))?;
    let deny = cargo.tool("cargo-deny", CARGO_DENY)?;
    let checks = ["--workspace", "--locked", "check", "bans", "licenses", "sources"];
    run(Command::new(deny).args(checks).current_dir(cargo::root()?))
}

/// rustfmt and clippy, which a minimal toolchain lacks.
fn components(cargo: &Cargo) -> Result<(), Failure> {
    let works = |name: &str| {
        let mut command = cargo.command(&[name, "--version"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if works("fmt") && works("clippy") {
        return Ok(());
    }
    if machine::find("rustup").is_none() {
        return Err(Failure::unavailable("missing: rustfmt and clippy\nrun: rustup component add rustfmt clippy"));
    }
    run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
}

/// The lock file may name crates.io and nothing else, whatever registry the machine that wrote it was set to.
fn lock_file(file: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(file).map_err(|error| Failure::step(format!("{}: {error}", file.display())))?;
    match foreign_source(&text) {
        None => Ok(()),
        Some((number, source)) => Err(Failure::step(format!(
            "{}:{number}: source is {source}, not crates.io\nhint: remove the registry setting, then `cargo update -w`",
            file.display()
        ))),
    }
}

/// The first source of a lock file that is not crates.io, with its line.
fn foreign_source(lock: &str) -> Option<(usize, &str)> {
    lock.lines().enumerate().find_map(|(index, line)| {
        let source = line.strip_prefix("source = ")?.trim_matches('"');
        (source != CRATES_IO).then_some((index + 1, source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_source_but_crates_io_is_foreign() {
        let own = format!("[[package]]\nname = \"a\"\nsource = \"{CRATES_IO}\"\n[[package]]\nname = \"edd\"\n");
        assert_eq!(foreign_source(&own), None);
        let mirror = format!("{own}source = \"registry+https://mirror.example/index\"\n");
        assert_eq!(foreign_source(&mirror), Some((6, "registry+https://mirror.example/index")));
        let git = format!("{own}source = \"git+https://git.example/a#1\"\n");
        assert_eq!(foreign_source(&git), Some((6, "git+https://git.example/a#1")));
    }
}
