//! Unpacks a tarball: nothing lands outside of the directory, and no more than what is allowed.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

/// Files, directories and links of an image.
const MAX_ENTRIES: usize = 1_000_000;

/// Unpacks `tarball` into the empty directory `root`. Devices are left out: a container has its own.
pub(super) fn unpack(tarball: &Path, root: &Path, max_bytes: u64) -> io::Result<()> {
    let file = BufReader::new(File::open(tarball)?);
    let is_packed = tarball.extension().is_some_and(|extension| extension != "tar");
    let content: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    // Headers count too, and so does what a gzip bomb is made of.
    let mut archive = Archive::new(Bounded { content, left_bytes: max_bytes, max_bytes });
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    archive.set_overwrite(true);
    let mut directories = Vec::new();
    for (index, entry) in archive.entries()?.enumerate() {
        if index == MAX_ENTRIES {
            return Err(io::Error::other(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let mut entry = entry?;
        match entry.header().entry_type() {
            EntryType::Block | EntryType::Char | EntryType::Fifo => continue,
            // Their modes come last: one may close a directory to what is to be put into it.
            EntryType::Directory => {
                let path = entry.path()?.into_owned();
                let mode = entry.header().mode()?;
                entry.set_preserve_permissions(false);
                if entry.unpack_in(root)? {
                    directories.push((path, mode));
                    continue;
                }
            }
            _ if entry.unpack_in(root)? => continue,
            _ => {}
        }
        return Err(io::Error::other(format!("{} leads out of it", entry.path()?.display())));
    }
    for (path, mode) in directories.into_iter().rev() {
        let relative: std::path::PathBuf =
            path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
        let dir = root.join(relative);
        // A later entry may have put a link in its place, which might lead anywhere.
        if fs::symlink_metadata(&dir).is_ok_and(|file| file.is_dir())
            && dir.canonicalize()?.starts_with(root.canonicalize()?)
        {
            fs::set_permissions(&dir, Permissions::from_mode(mode & 0o7777))?;
        }
    }
    Ok(())
}

/// Reads at most so much, and fails instead of ending when there is more.
struct Bounded {
    content: Box<dyn Read>,
    left_bytes: u64,
    max_bytes: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.left_bytes = self
            .left_bytes
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(format!("it holds more than {} bytes", self.max_bytes)))?;
        Ok(read)
    }
}
