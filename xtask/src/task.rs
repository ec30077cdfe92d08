//! The command line of `cargo xtask`.

use crate::failure::Failure;

pub const HELP: &str = "\
cargo xtask <task>

  up [ARGS]            install what is missing, build edd for release, run `edd up ARGS`
  test [--full] [FILTER...]
                       install what is missing, run the tests; --full adds the long ones
  lint                 rustfmt, clippy and cargo-deny, warnings denied
  ci                   what .ci/run does: setup, lint, test, each timed
  bench [ARGS]         the micro-benchmarks: `cargo bench ARGS`
  bench events [ARGS]  events beside the bare rates of their database and bus; `bench events --help` lists ARGS
  bench containers [ARGS]
                       containers, from a commit to an answer; `bench containers --help` lists ARGS
  bench files [ARGS]   the file share beside nginx; `bench files --help` lists ARGS
  bench peers [ARGS]   edd beside nginx, haproxy, envoy and caddy; `bench peers --help` lists ARGS
  bench ssh [ARGS]     SSH through edd beside straight and `ssh -J`; `bench ssh --help` lists ARGS
  fuzz [TARGET] [--seconds N]
                       coverage-guided fuzzing of one target of fuzz/, or of each, for N seconds (60)
  setup                only install what is missing
  help                 this text

Exit codes: 0 done, 1 a step failed, 2 usage, 69 something is missing and cannot be installed from here.
";

/// What was asked for.
#[derive(Debug, PartialEq)]
pub enum Task {
    Up { args: Vec<String> },
    Test { full: bool, filters: Vec<String> },
    Lint,
    Ci,
    Bench { args: Vec<String> },
    BenchEvents { args: Vec<String> },
    BenchContainers { args: Vec<String> },
    BenchFiles { args: Vec<String> },
    BenchPeers { args: Vec<String> },
    BenchSsh { args: Vec<String> },
    Fuzz { args: Vec<String> },
    Setup,
    Help,
}

impl Task {
    /// Reads the words that follow `cargo xtask`.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut words = words.into_iter();
        let Some(name) = words.next() else { return Err(Failure::usage("no task given")) };
        let mut args: Vec<String> = words.collect();
        let task = match name.as_str() {
            "up" => return Ok(Self::Up { args }),
            "fuzz" => return Ok(Self::Fuzz { args }),
            "test" => {
                let full = args.iter().any(|word| word == "--full");
                args.retain(|word| word != "--full");
                return Ok(Self::Test { full, filters: args });
            }
            "bench" => {
                return Ok(match args.first().map(String::as_str) {
                    Some("events") => Self::BenchEvents { args: args.split_off(1) },
                    Some("containers") => Self::BenchContainers { args: args.split_off(1) },
                    Some("files") => Self::BenchFiles { args: args.split_off(1) },
                    Some("peers") => Self::BenchPeers { args: args.split_off(1) },
                    Some("ssh") => Self::BenchSsh { args: args.split_off(1) },
                    _ => Self::Bench { args },
                });
            }
            "lint" => Self::Lint,
            "ci" => Self::Ci,
            "setup" => Self::Setup,
            "help" | "-h" | "--help" => Self::Help,
            other => return Err(Failure::usage(format!("no task named `{other}`"))),
        };
        match args.first() {
            None => Ok(task),
            Some(extra) => Err(Failure::usage(format!("`{name}` takes no arguments, got `{extra}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Task, Failure> {
        Task::parse(line.split_whitespace().map(String::from))
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn some_tasks_take_arguments_of_their_own() {
        assert_eq!(parse("up --json --routes r.yaml"), Ok(Task::Up { args: words("--json --routes r.yaml") }));
        assert_eq!(parse("fuzz ssh_login"), Ok(Task::Fuzz { args: words("ssh_login") }));
        assert_eq!(parse("bench table"), Ok(Task::Bench { args: words("table") }));
        assert_eq!(parse("bench peers --rounds 2"), Ok(Task::BenchPeers { args: words("--rounds 2") }));
        assert_eq!(parse("bench containers --sleeps 3"), Ok(Task::BenchContainers { args: words("--sleeps 3") }));
        assert_eq!(parse("bench files --mib 64"), Ok(Task::BenchFiles { args: words("--mib 64") }));
        assert_eq!(parse("bench ssh --mib 64"), Ok(Task::BenchSsh { args: words("--mib 64") }));
        assert_eq!(parse("bench events --full"), Ok(Task::BenchEvents { args: words("--full") }));
        assert_eq!(parse("bench table peers"), Ok(Task::Bench { args: words("table peers") }));
    }

    #[test]
    fn full_may_stand_anywhere_among_the_filters() {
        assert_eq!(parse("test"), Ok(Task::Test { full: false, filters: vec![] }));
        assert_eq!(parse("test tls --full h2"), Ok(Task::Test { full: true, filters: words("tls h2") }));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["", "tset", "lint now", "ci --full", "setup x"] {
            let failure = parse(line).expect_err(line);
            assert_eq!(failure.exit_code(), std::process::ExitCode::from(2), "{line}: {failure}");
        }
    }

    #[test]
    fn help_names_every_task() {
        for name in [
            "up",
            "test",
            "lint",
            "ci",
            "bench",
            "bench events",
            "bench containers",
            "bench files",
            "bench peers",
            "bench ssh",
            "fuzz",
            "setup",
            "help",
        ] {
            assert!(HELP.contains(&format!("\n  {name} ")), "{name}");
        }
    }
}
