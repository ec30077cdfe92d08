//! `edd container-init`: what edd runs beside and within each container of the local platform.

use edd_control::compute::platform::local::{Program, role};

use crate::exit::{Code, Failure, Outcome};

/// The verb, which nobody is shown.
pub const VERB: &str = "container-init";

/// Plays the part that the environment tells.
pub fn run() -> Outcome {
    role::play()?;
    Ok(Code::Ok)
}

/// This program, as the platform starts it.
pub fn program() -> Result<Program, Failure> {
    Ok(Program { path: std::env::current_exe()?, arguments: vec![VERB.to_owned()] })
}
