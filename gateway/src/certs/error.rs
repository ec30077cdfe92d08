//! What can be wrong with certificates, said so that an operator can put it right.

use std::io;
use std::path::{Path, PathBuf};

use crate::route::{HostName, HostPattern};

/// A problem with a certificate, a key, or the settings around them.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The operating system refused something.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A file is there, and its content is no good.
    #[error("`{}`: {problem}; {hint}", path.display())]
    File { path: PathBuf, problem: String, hint: String },
    /// The local authority was asked to sign for a name that is not one.
    #[error("`{0}` is an address, and the local authority signs for names; set EDD_BASE_DOMAIN to a name")]
    LocalName(HostName),
    /// Two routes of one host disagree: TLS is negotiated before the path is known.
    #[error("the host `{0}` has two different client_auth settings; give all of its routes the same one")]
    ClientAuthConflict(HostPattern),
    /// rustls refused its settings.
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A program of the operating system failed.
    #[error("`{command}` failed: {output}")]
    Command { command: String, output: String },
}

impl CertsError {
    /// Wraps an I/O error with what was being done, and where.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn file(path: &Path, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), problem: problem.into(), hint: hint.into() }
    }
}
