//! Which uploads have begun: files in the user's cache folder, so that the next run of the same command goes on.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::place::Place;
use super::source::Hash;
use crate::exit::Failure;

/// No server keeps an upload for so long that nobody goes on with.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(14 * 24 * 3600);
/// Longer ones are not of ours, in bytes.
const MAX_LOCATION_BYTES: u64 = 4096;

/// Where the upload of one file, as it is now, to one place is remembered.
#[derive(Clone, Debug)]
pub struct Memory(PathBuf);

impl Memory {
    /// Of `source`, which goes to `target` at `base`. It is another one as soon as the file has changed.
    pub fn of(base: &str, target: &Place, source: &Path) -> Result<Self, Failure> {
        Self::within(&folder()?, base, target, source)
    }

    fn within(folder: &Path, base: &str, target: &Place, source: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::config(format!("{}: {error}", folder.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        forget_old(folder).map_err(failed)?;
        let source = source.canonicalize()?;
        let about = fs::metadata(&source)?;
        let mut hash = Hash::default();
        let changed = format!("{}.{}", about.mtime(), about.mtime_nsec());
        let told = [base, &target.to_string(), &source.display().to_string(), &about.len().to_string(), &changed];
        for part in told {
            hash.add(part.as_bytes());
            hash.add(&[0]);
        }
        Ok(Self(folder.join(hash.digits())))
    }

    /// Where the server has it; none: it has not begun.
    pub fn location(&self) -> Option<String> {
        let is_ours = fs::metadata(&self.0).is_ok_and(|about| about.len() <= MAX_LOCATION_BYTES);
        fs::read_to_string(&self.0).ok().filter(|text| is_ours && text.starts_with('/'))
    }

    pub fn remember(&self, location: &str) -> Result<(), Failure> {
        let new = self.0.with_extension(format!("{}.new", std::process::id()));
        let saved = fs::write(&new, location).and_then(|()| fs::rename(&new, &self.0));
        saved.map_err(|error| Failure::config(format!("{}: {error}", self.0.display())))
    }

    pub fn forget(&self) {
        // What stays is of no use to anybody, and goes when it is old.
        let _ = fs::remove_file(&self.0);
    }
}

/// `$XDG_CACHE_HOME/edd/uploads`, or `~/.cache/edd/uploads`.
fn folder() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let nowhere = || Failure::config("set HOME or XDG_CACHE_HOME: what is sent is remembered there, to go on later");
    Ok(cache.ok_or_else(nowhere)?.join("edd/uploads"))
}

fn forget_old(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_old = |changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > FORGOTTEN_AFTER);
        if entry.metadata().and_then(|about| about.modified()).is_ok_and(is_old) {
            match fs::remove_file(entry.path()) {
                // Another process was faster.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_remembered_until_its_file_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, uploads) = (folder.path().join("file"), folder.path().join("uploads"));
        fs::write(&file, "one").expect("a file");
        let memory = |target: &str| {
            let target = target.parse().expect("a place");
            Memory::within(&uploads, "https://a", &target, &file).expect("a memory")
        };
        assert_eq!(memory("docs/a").location(), None);
        memory("docs/a").remember("/storage/tus/1").expect("room");
        assert_eq!(memory("docs/a").location().as_deref(), Some("/storage/tus/1"));
        assert_eq!(memory("docs/b").location(), None);
        fs::write(&file, "longer").expect("a file");
        assert_eq!(memory("docs/a").location(), None);
        memory("docs/a").remember("/storage/tus/2").expect("room");
        memory("docs/a").forget();
        assert_eq!(memory("docs/a").location(), None);
    }

    #[test]
    fn what_nobody_went_on_with_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        for file in [&old, &new] {
            fs::write(file, "/x").expect("a file");
        }
        let long_ago = SystemTime::now() - 2 * FORGOTTEN_AFTER;
        fs::File::options().write(true).open(&old).and_then(|file| file.set_modified(long_ago)).expect("a time");
        forget_old(folder.path()).expect("a look");
        assert!(!old.exists() && new.exists());
    }
}
