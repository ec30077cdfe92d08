//! A folder of the local disk.
//!
//! `object_store` writes a file as `<name>#<number>` and renames it when it is whole. What a killed process leaves is of
//! that form, and no listing shows it.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use super::{BlobId, StorageError};

/// What is written at once, in bytes: each takes a thread for a moment, and two are in memory.
pub(super) const PART_BYTES: usize = 512 * 1024;
/// Nobody but us reads what users stored.
const MODE: u32 = 0o700;

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

pub(super) fn open(folder: &Path) -> Result<(Arc<dyn ObjectStore>, Folder), StorageError> {
    let made = DirBuilder::new().recursive(true).mode(MODE).create(folder);
    made.map_err(|error| StorageError::disk(folder, &error))?;
    let objects = LocalFileSystem::new_with_prefix(folder).map_err(StorageError::general)?;
    Ok((Arc::new(objects.with_fsync(true)), Folder(folder.to_owned())))
}

impl Folder {
    /// Removes what was being written of `id`.
    pub(super) async fn remove_staged(&self, id: BlobId) -> Result<(), StorageError> {
        let folder = self.0.clone();
        blocking(move || {
            // An id is written by one writer, once. Numbers count from 1, and the next is taken while one is there.
            for number in 1_u32.. {
                let file = folder.join(format!("{}#{number}", id.key()));
                match fs::remove_file(&file) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    Err(error) => return Err(StorageError::disk(&file, &error)),
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes whatever was being written and has not changed for `idle`: so many files.
    pub(super) async fn sweep(&self, idle: Duration) -> Result<u64, StorageError> {
        let mut removed = 0;
        for name in BlobId::folders() {
            let folder = self.0.join(name);
            removed += blocking(move || {
                sweep_folder(&folder, idle).map_err(|(file, error)| StorageError::disk(&file, &error))
            })
            .await?;
        }
        Ok(removed)
    }
}

fn sweep_folder(folder: &Path, idle: Duration) -> Result<u64, (PathBuf, io::Error)> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(|error| (folder.to_owned(), error))?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(|error| (folder.to_owned(), error))?;
        if is_staged(&entry.file_name().to_string_lossy()) {
            match remove_idle(&entry.path(), idle) {
                Ok(is_removed) => removed += u64::from(is_removed),
                // Its writer was faster.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err((entry.path(), error)),
            }
        }
    }
    Ok(removed)
}

fn remove_idle(file: &Path, idle: Duration) -> io::Result<bool> {
    let changed = fs::symlink_metadata(file)?.modified()?;
    // A change in the future, of a clock that was set back, counts as one of now.
    let is_idle = SystemTime::now().duration_since(changed).is_ok_and(|since| since >= idle);
    if is_idle {
        fs::remove_file(file)?;
    }
    Ok(is_idle)
}

/// Whether a file is a blob that was being written.
fn is_staged(name: &str) -> bool {
    name.split_once('#').is_some_and(|(id, number)| id.parse::<BlobId>().is_ok() && number.parse::<u32>().is_ok())
}

/// Has a thread wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StorageError::Broken(Box::new(error))))
}
