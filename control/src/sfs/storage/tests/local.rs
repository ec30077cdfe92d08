use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::time::{Duration, SystemTime};

use edd_servers::disk::Disk;
use futures_util::StreamExt;

use super::suite::{self, MIB, id, noise};
use crate::sfs::storage::{BlobStore, StorageError};

/// A store and where it is.
fn store() -> (tempfile::TempDir, BlobStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = BlobStore::local(&folder.path().join("blobs")).expect("a store");
    (folder, store)
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn what_is_written_is_read() {
    let (_folder, store) = store();
    let sizes =
        [(1, 1), (70_000, 999), (MIB / 2, MIB), (MIB / 2 + 1, 100_000), (3 * MIB + 7, 300_000), (3 * MIB, MIB / 2)];
    suite::what_is_written_is_read(&store, &sizes).await;
}

#[tokio::test]
async fn an_empty_blob_is_one() {
    let (_folder, store) = store();
    suite::write(&store, id(1), &noise(0), 1).await;
    assert_eq!(suite::list(&store).await, [(id(1), 0)]);
}

#[tokio::test]
async fn what_is_unfinished_is_nothing() {
    let (folder, store) = store();
    suite::what_is_unfinished_is_nothing(&store, 2 * MIB).await;
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    let mut dropped = store.create(id(2)).await.expect("a writer");
    dropped.write(noise(2 * MIB)).await.expect("room");
    assert_eq!(files(folder.path()).len(), 1);
    drop(dropped);
    // A task removes it, soon.
    while !files(folder.path()).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_listing_passes_over_what_is_no_blob() {
    let (folder, store) = store();
    suite::all_are_listed(&store, 50).await;
    let blobs = folder.path().join("blobs");
    let before = suite::list(&store).await;
    let name = id(1).to_string();
    for foreign in ["README", "lost+found", "zz"] {
        fs::create_dir_all(blobs.join(foreign)).expect("a folder");
        fs::write(blobs.join(foreign).join(&name), "x").expect("a file");
    }
    fs::write(blobs.join(&name[..2]).join("notes.txt"), "x").expect("a file");
    fs::write(blobs.join(&name[..2]).join(format!("{name}#7")), "x").expect("a file");
    assert_eq!(suite::list(&store).await, before);
}

#[tokio::test]
async fn only_we_may_look_into_the_folder() {
    let (folder, _store) = store();
    let mode = fs::metadata(folder.path().join("blobs")).expect("the folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// As a process leaves it that was killed.
fn leftover(folder: &Path, number: u64, suffix: u32, age: Duration) -> PathBuf {
    let name = id(number).to_string();
    let file = folder.join("blobs").join(&name[..2]).join(format!("{name}#{suffix}"));
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let staged = File::create(&file).expect("a file");
    staged.set_modified(SystemTime::now() - age).expect("a time");
    file
}

#[tokio::test]
async fn a_deletion_takes_along_what_a_killed_writer_left() {
    let (folder, store) = store();
    let left = [1, 2].map(|suffix| leftover(folder.path(), 1, suffix, Duration::ZERO));
    let others = leftover(folder.path(), 2, 1, Duration::ZERO);
    store.delete(id(1)).await.expect("a deletion");
    assert!(left.iter().all(|file| !file.exists()) && others.exists());
}

#[tokio::test]
async fn a_sweep_takes_what_nobody_writes_any_more() {
    let (folder, store) = store();
    suite::write(&store, id(1), &noise(10), 10).await;
    let hour = Duration::from_secs(3600);
    let old = leftover(folder.path(), 1, 3, 2 * hour);
    let new = leftover(folder.path(), 2, 1, hour / 2);
    let foreign = old.with_file_name("report#1");
    fs::write(&foreign, "x").expect("a file");
    File::open(&foreign).and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).expect("a time");
    assert_eq!(store.sweep(hour).await.expect("a sweep"), 1);
    assert!(!old.exists() && new.exists() && foreign.exists());
    assert_eq!(suite::list(&store).await, [(id(1), 10)]);
}

#[tokio::test]
async fn a_reader_keeps_what_is_deleted() {
    let (_folder, store) = store();
    let bytes = noise(2 * MIB);
    suite::write(&store, id(1), &bytes, MIB).await;
    let mut pieces = pin!(store.read(id(1), 0..bytes.len() as u64));
    let mut read = pieces.next().await.expect("a piece").expect("bytes").to_vec();
    store.delete(id(1)).await.expect("a deletion");
    while let Some(piece) = pieces.next().await {
        read.extend_from_slice(&piece.expect("bytes"));
    }
    assert!(read == bytes);
}

#[tokio::test]
async fn a_blob_that_was_cut_is_noticed() {
    let (folder, store) = store();
    for length in [1000, 2 * MIB] {
        suite::write(&store, id(1), &noise(length), MIB).await;
        let file = files(folder.path()).pop().expect("a file");
        File::options().write(true).open(file).and_then(|file| file.set_len(900)).expect("a shorter file");
        let cut = suite::read(&store, id(1), 0..length as u64).await;
        assert!(matches!(cut, Err(StorageError::Short(short)) if short == id(1)), "{length}: {cut:?}");
        store.delete(id(1)).await.expect("a deletion");
    }
}

/// Writes until it is refused.
async fn fill(store: &BlobStore, number: u64, length: usize) -> Result<u64, StorageError> {
    let mut writer = store.create(id(number)).await?;
    writer.write(noise(length)).await?;
    writer.finish().await
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_keeps_nothing_half() {
    let Some(disk) = Disk::mount("blobs on a full disk", 4) else { return };
    let store = BlobStore::local(&disk.path().join("blobs")).expect("a store");
    suite::write(&store, id(1), &noise(MIB), MIB).await;
    for length in [5 * MIB, 100] {
        if length < MIB {
            disk.fill();
        }
        let full = fill(&store, 2, length).await;
        assert!(matches!(full, Err(StorageError::Full)), "{length}: {full:?}");
        assert_eq!(suite::list(&store).await, [(id(1), MIB as u64)]);
    }
    disk.free();
    // What was given up is removed by a task.
    while files(&disk.path()).len() > 1 {
        tokio::task::yield_now().await;
    }
    fill(&store, 2, MIB).await.expect("room");
}

/// Set for a process that may write no large file.
const LIMITED: &str = "EDD_STORAGE_LIMITED";

/// Not a test by itself: what [`a_limit_on_files_is_a_full_disk`] runs.
#[tokio::test]
async fn limited() {
    if std::env::var_os(LIMITED).is_some() {
        let (folder, store) = store();
        let full = fill(&store, 1, 3 * MIB).await;
        assert!(matches!(full, Err(StorageError::Full)), "{full:?}");
        while !files(folder.path()).is_empty() {
            tokio::task::yield_now().await;
        }
        println!("\nfull");
    }
}

#[test]
fn a_limit_on_files_is_a_full_disk() {
    let me = std::env::current_exe().expect("this program");
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" --exact --nocapture sfs::storage::tests::local::limited";
    let output = Command::new("sh").args(["-c", script]).arg(me).env(LIMITED, "1").output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.lines().any(|line| line == "full"), "{output:?}");
}
