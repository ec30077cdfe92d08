//! `cargo xtask fuzz`: coverage-guided fuzzing of what edd parses itself, each target for a bounded time.

use std::fs;

use crate::cargo::{self, Cargo};
use crate::failure::{Failure, run};
use crate::{install, tool};

/// fuzz/Cargo.toml is written for this release.
const CARGO_FUZZ: &str = "0.13.2";
/// For each target, unless told otherwise.
const SECONDS: u32 = 60;
const MAX_SECONDS: u32 = 24 * 60 * 60;
/// An input that takes longer than this is a failure: what is parsed is short.
const INPUT_SECONDS: u32 = 10;

#[derive(Debug, PartialEq)]
struct Options {
    /// None: all of them.
    target: Option<String>,
    seconds: u32,
}

/// Builds the targets and runs one or all; what was found before is in fuzz/corpus, and what fails in fuzz/artifacts.
pub fn fuzz(args: &[String]) -> Result<(), Failure> {
    let Options { target, seconds } = Options::parse(args)?;
    let all = targets()?;
    let chosen = match target {
        None => all,
        Some(target) if all.contains(&target) => vec![target],
        Some(target) => return Err(Failure::usage(format!("no target `{target}`; there are {}", all.join(", ")))),
    };
    let cargo = Cargo::new(install::ensure(tool::BUILD)?)?;
    let program = cargo.tool("cargo-fuzz", CARGO_FUZZ)?;
    // Build scripts are built otherwise than everywhere else, and would be built anew each time.
    let folder = cargo.target().join("fuzz");
    let fuzz = |words: &[&str]| {
        let mut command = cargo.program(&program);
        // The sanitizers of a stable compiler are there, and are not asked for by stable options.
        command.args(words).arg("--target-dir").arg(&folder).env("RUSTC_BOOTSTRAP", "1");
        command
    };
    run(&mut fuzz(&["build"]))?;
    for target in chosen {
        eprintln!("xtask: {target} for {seconds} s");
        let bounds = [format!("-max_total_time={seconds}"), format!("-timeout={INPUT_SECONDS}")];
        run(fuzz(&["run", &target]).arg("--").args(bounds))?;
    }
    Ok(())
}

/// One for each file.
fn targets() -> Result<Vec<String>, Failure> {
    let folder = cargo::root()?.join("fuzz/fuzz_targets");
    let failed = |error: std::io::Error| Failure::step(format!("{}: {error}", folder.display()));
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        targets.extend(entry.map_err(failed)?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, Failure> {
        let mut options = Self { target: None, seconds: SECONDS };
        let mut words = args.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seconds" => options.seconds = seconds(words.next())?,
                option if option.starts_with('-') => return Err(Failure::usage(format!("fuzz: no option `{option}`"))),
                target if options.target.is_none() => options.target = Some(target.to_owned()),
                extra => return Err(Failure::usage(format!("fuzz: one target at a time, got `{extra}`, too"))),
            }
        }
        Ok(options)
    }
}

fn seconds(text: Option<&String>) -> Result<u32, Failure> {
    let number = text.and_then(|text| text.parse().ok()).filter(|number| (1..=MAX_SECONDS).contains(number));
    number.ok_or_else(|| Failure::usage(format!("--seconds takes a number from 1 to {MAX_SECONDS}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failure> {
        Options::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_run_ends_by_itself() {
        assert_eq!(parse(""), Ok(Options { target: None, seconds: 60 }));
        let one = Options { target: Some("ssh_login".to_owned()), seconds: 180 };
        assert_eq!(parse("--seconds 180 ssh_login"), Ok(one));
        for line in ["--seconds", "--seconds 0", "--seconds ever", "--seconds 86401", "a b", "--jobs 2"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_target_is_in_the_manifest() {
        let manifest = fs::read_to_string(cargo::root().unwrap().join("fuzz/Cargo.toml")).unwrap();
        let targets = targets().unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
        for target in targets {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        }
    }
}
