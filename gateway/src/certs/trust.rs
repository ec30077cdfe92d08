//! Making this machine trust the local authority, and no longer trust it.
//!
//! Nothing here is done unasked: `edd certs trust` calls it. What this process may not do itself comes back as
//! commands for a person to run.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use super::CertsError;
use super::certificate::Facts;
use super::pair::{certificates, read_pem};
use super::root::ROOT_FILE;

/// The certificate's file name in the system's store; `update-ca-certificates` takes none but `.crt`.
const ANCHOR_FILE: &str = "edd-local-ca.crt";
/// Its name in the stores of browsers.
const NICKNAME: &str = "edd local CA";

/// The system's store: a folder of certificates, and a program that takes them up.
#[derive(Clone, Debug)]
pub struct SystemStore {
    pub dir: PathBuf,
    pub update: Vec<OsString>,
}

/// What became of the system's store, and what is left to do by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustReport {
    /// The authority's certificate.
    pub root: PathBuf,
    /// SHA-256 of the certificate, in lower-case hex.
    pub sha256: String,
    pub system: SystemOutcome,
    /// For what this program does not do: other systems, and browsers with a store of their own.
    pub manual: Vec<ManualStep>,
}

/// What became of the system's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemOutcome {
    /// The certificate is in the store.
    Installed(PathBuf),
    /// The certificate is out of the store.
    Removed(PathBuf),
    /// It was not in the store.
    NotInstalled,
    /// It takes more rights than this process has; run these.
    NeedsRights { commands: Vec<String> },
    /// The system has no store that is known here.
    Unknown,
}

/// Commands for a person to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManualStep {
    /// For whom the step is.
    pub target: &'static str,
    pub commands: Vec<String>,
}

/// Makes the system trust the authority of `ca_dir`.
///
/// # Errors
/// When there is no authority yet, the store cannot be written for another reason than missing rights, or the system's
/// own program fails.
pub fn install(ca_dir: &Path, store: Option<&SystemStore>) -> Result<TrustReport, CertsError> {
    let root = Root::read(ca_dir)?;
    let system = match store {
        None => SystemOutcome::Unknown,
        Some(store) => match store.add(&root.pem) {
            Ok(path) => SystemOutcome::Installed(path),
            Err(error) if lacks_rights(&error) => {
                SystemOutcome::NeedsRights { commands: store.add_commands(&root.path) }
            }
            Err(error) => return Err(error),
        },
    };
    Ok(root.report(system, install_steps))
}

/// Makes the system no longer trust the authority of `ca_dir`.
///
/// # Errors
/// As [`install`].
pub fn remove(ca_dir: &Path, store: Option<&SystemStore>) -> Result<TrustReport, CertsError> {
    let root = Root::read(ca_dir)?;
    let system = match store {
        None => SystemOutcome::Unknown,
        Some(store) => match store.remove() {
            Ok(Some(path)) => SystemOutcome::Removed(path),
            Ok(None) => SystemOutcome::NotInstalled,
            Err(error) if lacks_rights(&error) => SystemOutcome::NeedsRights { commands: store.remove_commands() },
            Err(error) => return Err(error),
        },
    };
    Ok(root.report(system, remove_steps))
}

impl SystemStore {
    /// The store of this machine: that of Debian and its kin, or that of Fedora and its kin.
    pub fn detect() -> Option<Self> {
        let known: [(&str, &[&str]); 2] = [
            ("/usr/local/share/ca-certificates", &["update-ca-certificates"]),
            ("/etc/pki/ca-trust/source/anchors", &["update-ca-trust", "extract"]),
        ];
        known
            .into_iter()
            .find(|(dir, _)| Path::new(dir).is_dir())
            .map(|(dir, update)| Self { dir: dir.into(), update: update.iter().map(Into::into).collect() })
    }

    fn anchor(&self) -> PathBuf {
        self.dir.join(ANCHOR_FILE)
    }

    fn add(&self, pem: &[u8]) -> Result<PathBuf, CertsError> {
        let anchor = self.anchor();
        // Under an ending that the system's program passes over, until it is whole.
        let draft = anchor.with_added_extension("new");
        let written = fs::File::create(&draft).and_then(|mut file| file.write_all(pem).and_then(|()| file.sync_all()));
        written.and_then(|()| fs::rename(&draft, &anchor)).map_err(CertsError::io("write", &anchor))?;
        self.run_update()?;
        Ok(anchor)
    }

    fn remove(&self) -> Result<Option<PathBuf>, CertsError> {
        let anchor = self.anchor();
        match fs::remove_file(&anchor) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            removed => removed.map_err(CertsError::io("remove", &anchor))?,
        }
        self.run_update()?;
        Ok(Some(anchor))
    }

    fn run_update(&self) -> Result<(), CertsError> {
        let failed = |output: String| CertsError::Command { command: self.update_command(), output };
        let [program, arguments @ ..] = self.update.as_slice() else { return Ok(()) };
        let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let done = done.map_err(|error| failed(error.to_string()))?;
        if done.status.success() {
            return Ok(());
        }
        Err(failed(format!("{}; {}", done.status, String::from_utf8_lossy(&done.stderr).trim())))
    }

    fn add_commands(&self, root: &Path) -> Vec<String> {
        let copy = format!("sudo install -m 0644 {} {}", quoted(root), quoted(&self.anchor()));
        vec![copy, format!("sudo {}", self.update_command())]
    }

    fn remove_commands(&self) -> Vec<String> {
        vec![format!("sudo rm {}", quoted(&self.anchor())), format!("sudo {}", self.update_command())]
    }

    fn update_command(&self) -> String {
        self.update.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// The authority's certificate, checked.
struct Root {
    path: PathBuf,
    pem: Vec<u8>,
    facts: Facts,
}

impl Root {
    fn read(ca_dir: &Path) -> Result<Self, CertsError> {
        let path = ca_dir.join(ROOT_FILE);
        let path = std::path::absolute(&path).map_err(CertsError::io("find", &path))?;
        let hint = "start `edd up` once, which makes a local authority, or name its data directory by EDD_DATA_DIR";
        let pem = read_pem(&path).map_err(|error| match error {
            CertsError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                CertsError::file(&path, "there is no local authority yet", hint)
            }
            error => error,
        })?;
        let facts = Facts::parse(&certificates(&path, &pem)?[0]).map_err(|e| CertsError::file(&path, e, hint))?;
        Ok(Self { path, pem, facts })
    }

    fn report(self, system: SystemOutcome, steps: fn(&str) -> Vec<ManualStep>) -> TrustReport {
        let manual = steps(&quoted(&self.path));
        TrustReport { root: self.path, sha256: self.facts.sha256, system, manual }
    }
}

fn install_steps(root: &str) -> Vec<ManualStep> {
    vec![
        ManualStep {
            target: "macOS",
            commands: vec![format!(
                "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {root}"
            )],
        },
        ManualStep {
            target: "Chromium on Linux",
            commands: vec![format!("certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n '{NICKNAME}' -i {root}")],
        },
        ManualStep {
            target: "Firefox",
            commands: vec![format!(
                "for db in ~/.mozilla/firefox/*/cert9.db; do certutil -d sql:$(dirname \"$db\") -A -t C,, -n '{NICKNAME}' -i {root}; done"
            )],
        },
    ]
}

fn remove_steps(root: &str) -> Vec<ManualStep> {
    vec![
        ManualStep { target: "macOS", commands: vec![format!("sudo security remove-trusted-cert -d {root}")] },
        ManualStep {
            target: "Chromium on Linux",
            commands: vec![format!("certutil -d sql:$HOME/.pki/nssdb -D -n '{NICKNAME}'")],
        },
        ManualStep {
            target: "Firefox",
            commands: vec![format!(
                "for db in ~/.mozilla/firefox/*/cert9.db; do certutil -d sql:$(dirname \"$db\") -D -n '{NICKNAME}'; done"
            )],
        },
    ]
}

fn lacks_rights(error: &CertsError) -> bool {
    let denied = [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem];
    matches!(error, CertsError::Io { source, .. } if denied.contains(&source.kind()))
}

/// A path as a POSIX shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte)) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
