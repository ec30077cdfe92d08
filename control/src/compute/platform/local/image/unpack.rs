//! Unpacks a tarball: nothing lands outside of the directory, and no more than what is allowed.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

/// Files, directories and links of an image.
const MAX_ENTRIES: usize = 1_000_000;
/// Directories are kept in memory until all else is unpacked, half a kilobyte each and more.
const MAX_DIRECTORIES: usize = 100_000;

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
        let mut entry = entry?;
        match entry.header().entry_type() {
            _ if index == MAX_ENTRIES || directories.len() == MAX_DIRECTORIES => {
                let limits = format!("{MAX_ENTRIES} entries or {MAX_DIRECTORIES} directories");
                return Err(io::Error::other(format!("it has more than {limits}")));
            }
            EntryType::Block | EntryType::Char | EntryType::Fifo => {}
            // Later, the innermost first: a mode may close a directory to what is to be put into it.
            EntryType::Directory => directories.push(entry),
            _ => unpack_entry(&mut entry, root)?,
        }
    }
    directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    directories.iter_mut().try_for_each(|directory| unpack_entry(directory, root))
}

fn unpack_entry(entry: &mut Entry<'_, Bounded>, root: &Path) -> io::Result<()> {
    if entry.unpack_in(root)? {
        return Ok(());
    }
    Err(io::Error::other(format!("{} leads out of it", entry.path()?.display())))
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
