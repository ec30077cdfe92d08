//! The operator's directory of certificates: which pairs it holds, and what became of each.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::OffsetDateTime;

use super::CertsError;
use super::certificate::Certificate;
use super::info::{CertInfo, CertSource, CertState, validity};
use super::pair::PairText;
use super::report::{Problem, ReloadReport};

/// The pairs of the directory, by the path of their files without the ending.
#[derive(Default)]
pub(super) struct FileSet {
    pairs: BTreeMap<PathBuf, Pair>,
    /// Why the directory could not be read; the pairs are then those of the last time.
    problem: Option<Problem>,
}

#[derive(Clone)]
struct Pair {
    cert_path: PathBuf,
    /// Of the files as last read, good or bad; none when they could not be.
    digest: Option<[u8; 32]>,
    /// The last version that was good.
    good: Option<Arc<Certificate>>,
    /// Why the present version is not.
    problem: Option<String>,
}

impl FileSet {
    /// Reads the directory again. Pairs that did not change are kept as they are, and so are those that went bad.
    /// A directory that is not there is empty, but one that vanishes with certificates in it is a problem.
    pub fn read(dir: &Path, last: &Self) -> Self {
        let found = match discover(dir) {
            Ok(found) => found,
            Err(CertsError::Io { source, .. }) if source.kind() == ErrorKind::NotFound && last.pairs.is_empty() => {
                return Self::default();
            }
            Err(error) => {
                let in_service = !last.pairs.is_empty();
                let problem = Problem { path: dir.to_owned(), message: error.to_string(), in_service };
                return Self { pairs: last.pairs.clone(), problem: Some(problem) };
            }
        };
        let pairs = found.into_iter().map(|(id, files)| {
            let pair = files.load(last.pairs.get(&id));
            (id, pair)
        });
        Self { pairs: pairs.collect(), problem: None }
    }

    /// The certificates that are in service.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.pairs.values().filter_map(|pair| pair.good.as_ref())
    }

    pub fn list(&self, now: OffsetDateTime) -> impl Iterator<Item = CertInfo> {
        self.pairs.values().filter_map(move |pair| {
            let source = CertSource::File(pair.cert_path.clone());
            match (&pair.good, &pair.problem) {
                (None, problem) => problem.as_ref().map(|message| CertInfo::unusable(source, message)),
                (Some(good), None) => Some(CertInfo::of(&good.facts, source, now)),
                (Some(good), Some(message)) => Some(CertInfo {
                    state: CertState::Error,
                    message: Some(message.clone()),
                    ..CertInfo::of(&good.facts, source, now)
                }),
            }
        })
    }

    /// Adds to `report` what changed since `last`, and what is wrong now.
    pub fn report(&self, last: &Self, now: OffsetDateTime, report: &mut ReloadReport) {
        report.problems.extend(self.problem.clone());
        for (id, pair) in &self.pairs {
            let before = last.pairs.get(id).and_then(|pair| pair.good.as_ref());
            if pair.good.as_ref().map(Arc::as_ptr) != before.map(Arc::as_ptr) {
                report.loaded.push(pair.cert_path.clone());
            }
            report.problems.extend(pair.problem());
            report.warnings.extend(pair.warning(now));
        }
        let gone = last.pairs.iter().filter(|(id, pair)| pair.good.is_some() && !self.pairs.contains_key(*id));
        report.removed.extend(gone.map(|(_, pair)| pair.cert_path.clone()));
    }
}

impl Pair {
    fn problem(&self) -> Option<Problem> {
        let message = self.problem.clone()?;
        Some(Problem { path: self.cert_path.clone(), message, in_service: self.good.is_some() })
    }

    fn warning(&self, now: OffsetDateTime) -> Option<Problem> {
        let message = validity(&self.good.as_ref()?.facts, now).1?;
        Some(Problem { path: self.cert_path.clone(), message, in_service: true })
    }
}

/// The files that make up a pair, of which some may be missing.
#[derive(Default)]
struct PairFiles {
    certs: Vec<PathBuf>,
    key: Option<PathBuf>,
    /// Where the missing ones should be.
    id: PathBuf,
}

impl PairFiles {
    fn load(self, last: Option<&Pair>) -> Pair {
        let cert_path = self.certs.first().cloned().unwrap_or_else(|| self.id.with_added_extension("crt"));
        let (digest, certificate) = match self.read(&cert_path) {
            Err(error) => (None, Err(error)),
            Ok(text) => {
                let digest = text.digest();
                if let Some(last) = last.filter(|last| last.digest == Some(digest)) {
                    return Pair { cert_path, ..last.clone() };
                }
                (Some(digest), text.certificate())
            }
        };
        match certificate {
            Ok(good) => Pair { cert_path, digest, good: Some(Arc::new(good)), problem: None },
            Err(error) => {
                let good = last.and_then(|last| last.good.clone());
                Pair { cert_path, digest, good, problem: Some(error.to_string()) }
            }
        }
    }

    fn read(&self, cert_path: &Path) -> Result<PairText, CertsError> {
        let Some(key_path) = &self.key else {
            let hint = format!(
                "put its key into `{}`, or move what is no server certificate elsewhere",
                self.id.with_added_extension("key").display()
            );
            return Err(CertsError::file(cert_path, "there is no key beside it", hint));
        };
        match self.certs.as_slice() {
            [] => Err(CertsError::file(
                key_path,
                "there is no certificate beside it",
                format!("put its certificate into `{}`", cert_path.display()),
            )),
            [_, other, ..] => Err(CertsError::file(
                cert_path,
                format!("`{}` is the same certificate's file as well", other.display()),
                "remove one of the two",
            )),
            [cert_path] => PairText::read(cert_path, key_path),
        }
    }
}

/// Finds the pairs: `name.crt` or `name.pem` with `name.key`, and folders with `tls.crt` and `tls.key`.
///
/// What begins with a dot is left out, among it the `..data` through which Kubernetes swaps all files at once.
fn discover(dir: &Path) -> Result<BTreeMap<PathBuf, PairFiles>, CertsError> {
    let mut pairs = BTreeMap::new();
    for entry in visible_entries(dir)? {
        if entry.is_dir() {
            for name in ["tls.crt", "tls.key"] {
                let path = entry.join(name);
                // A dangling symlink is a file that cannot be read, which is worth an error.
                if path.symlink_metadata().is_ok() {
                    add(&mut pairs, path);
                }
            }
        } else {
            add(&mut pairs, entry);
        }
    }
    Ok(pairs)
}

/// The entries of a directory that are not hidden, sorted.
pub(super) fn visible_entries(dir: &Path) -> Result<Vec<PathBuf>, CertsError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(CertsError::io("read", dir))? {
        let entry = entry.map_err(CertsError::io("read", dir))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn add(pairs: &mut BTreeMap<PathBuf, PairFiles>, path: PathBuf) {
    let ending = path.extension().and_then(OsStr::to_str);
    if !matches!(ending, Some("crt" | "pem" | "key")) {
        return;
    }
    let id = path.with_extension("");
    let files = pairs.entry(id.clone()).or_insert_with(|| PairFiles { id, ..PairFiles::default() });
    if ending == Some("key") {
        files.key = Some(path);
    } else {
        files.certs.push(path);
    }
}
