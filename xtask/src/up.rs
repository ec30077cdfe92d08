//! `cargo xtask up`: from a bare machine to a running edd.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::cargo::Cargo;
use crate::failure::{Failure, not_started, run};
use crate::install;
use crate::tool;

/// Replaces this process by edd, so that signals and the exit code are edd's own; returns only on failure.
pub fn up(args: &[String]) -> Result<(), Failure> {
    let cargo = Cargo::new(install::ensure(tool::BUILD)?)?;
    if let Err(failure) = install::ensure(tool::CONTAINERS) {
        eprintln!("xtask: {failure}");
    }
    run(&mut cargo.command(&["build", "--release", "--locked", "--bin", "edd"]))?;
    let mut edd = Command::new(cargo.target().join("release/edd"));
    edd.arg("up").args(args);
    let error = edd.exec();
    Err(not_started(&edd, &error))
}
