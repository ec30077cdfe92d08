//! How the command ends: the codes that scripts rely on.

use std::fmt;
use std::process::ExitCode;

/// Exit codes; 2 (usage) is clap's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    /// A failure, or a difference was found.
    Failure = 1,
    /// EX_UNAVAILABLE: something that is needed does not answer.
    Unavailable = 69,
    /// EX_CONFIG: the configuration is invalid.
    Config = 78,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error and the code that it ends the command with.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub fn config(message: impl fmt::Display) -> Self {
        Self::new(Code::Config, message)
    }

    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(Code::Unavailable, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Code::Failure, error)
    }
}

/// What every verb returns.
pub type Outcome = Result<Code, Failure>;
