//! `cargo xtask test` and `cargo xtask setup`.

use crate::cache;
use crate::cargo::{self, Cargo};
use crate::failure::{Failure, run};
use crate::install;
use crate::npm;
use crate::tool;

/// Installs what building and testing need.
pub fn setup() -> Result<Cargo, Failure> {
    let reach = install::ensure(tool::BUILD)?;
    install::ensure(tool::TEST)?;
    install::ensure(tool::SSH)?;
    install::ensure(tool::FILES)?;
    if npm::possible() {
        npm::install()?;
    }
    if let Err(failure) = install::ensure(tool::CONTAINERS) {
        // Tests of what cannot be had here say so.
        eprintln!("xtask: {failure}");
    }
    let cargo = Cargo::new(reach)?;
    if cargo::is_ci() {
        cache::bound(cargo.target())?;
    }
    Ok(cargo)
}

/// Runs the workspace's tests. Long ones look for EDD_TEST_FULL themselves, so that a short run still lists them.
pub fn test(full: bool, filters: &[String]) -> Result<(), Failure> {
    // A run takes minutes: it tells of all that fails.
    let mut command = setup()?.command(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    if full {
        install::ensure(tool::FULL)?;
        npm::install()?;
        command.env("EDD_TEST_FULL", "1");
    }
    if !filters.is_empty() {
        command.arg("--").args(filters);
    }
    run(&mut command)
}
