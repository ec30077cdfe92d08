//! `cargo xtask`: everything one does with this repository, from a bare machine on. Std only, so that it builds in a
//! moment where nothing is installed yet.

mod cache;
mod cargo;
mod failure;
mod fuzz;
mod install;
mod lint;
mod machine;
mod npm;
mod peers;
mod pypi;
mod task;
mod test;
mod tool;
mod up;

use std::process::{Command, ExitCode};

use cargo::Cargo;
use failure::{Failure, run};
use task::Task;

fn main() -> ExitCode {
    match Task::parse(std::env::args().skip(1)).and_then(perform) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            failure.exit_code()
        }
    }
}

fn perform(task: Task) -> Result<(), Failure> {
    match task {
        Task::Help => {
            print!("{}", task::HELP);
            Ok(())
        }
        Task::Up { args } => up::up(&args),
        Task::Test { full, filters } => test::test(full, &filters),
        Task::Setup => test::setup().map(drop),
        Task::Lint => lint::lint(),
        // One list of steps, for people and for machines.
        Task::Ci => run(&mut Command::new(cargo::root()?.join(".ci/run"))),
        Task::Bench { args } => {
            let cargo = Cargo::new(install::ensure(tool::BUILD)?)?;
            run(cargo.command(&["bench", "--workspace", "--locked"]).args(args))
        }
        Task::BenchEvents { args } => bench("edd-events", "events", &args),
        Task::BenchContainers { args } => bench("edd", "containers", &args),
        Task::BenchFiles { args } => bench("edd", "files", &args),
        Task::BenchSsh { args } => bench("edd", "ssh", &args),
        Task::Fuzz { args } => fuzz::fuzz(&args),
        Task::BenchPeers { args } => peers::bench(&args),
    }
}

/// Runs a benchmark that has arguments of its own, and needs what tests need.
fn bench(package: &str, name: &str, args: &[String]) -> Result<(), Failure> {
    let command = ["bench", "--package", package, "--bench", name, "--locked", "--"];
    run(test::setup()?.command(&command).args(args))
}
