//! Why a task stopped.

use std::fmt;
use std::process::{Command, ExitCode};

/// Why a task stopped, in words for a person, with the exit code that a script sees.
#[derive(Debug, PartialEq)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// A step ran and did not succeed.
    pub fn step(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// The command line cannot be understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: format!("{}\nSee `cargo xtask help`.", message.into()) }
    }

    /// The machine lacks something that cannot be installed from here (EX_UNAVAILABLE of sysexits.h).
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 69, message: message.into() }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// Runs `command` to its end; anything but success is a failure that names the command line.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::step(format!("{}: {status}", line(command)))) }
}

/// The failure for a command that could not even be started.
pub fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::step(format!("cannot start {}: {error}", line(command)))
}

/// The command as one would type it (good enough to read, not to quote).
pub fn line(command: &Command) -> String {
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
