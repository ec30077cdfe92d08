//! A disk that is soon full.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::supervisor::Supervisor;

/// What takes the room that is left.
const BALLAST: &str = "ballast";
/// Written in one go; the last bytes are taken one by one.
const BLOCKS: [usize; 2] = [64 * 1024, 1];

/// A small file system of one's own, in memory. It goes, with all that is on it, when it is dropped or the process ends.
#[derive(Debug)]
pub struct Disk {
    supervisor: Supervisor,
}

impl Disk {
    /// Mounts one of so many MiB for `test`. None where that cannot be done, which takes root and leave to mount: then
    /// it is said aloud that nothing was tested.
    pub fn mount(test: &str, size_mib: u32) -> Option<Self> {
        match Self::try_mount(size_mib) {
            Ok(disk) => Some(disk),
            Err(why) => {
                // Not by a macro: a test that passes is not heard then. There is nobody else to tell.
                let _ = writeln!(io::stderr(), "NOT TESTED: {test}: no disk can be mounted here: {why}");
                None
            }
        }
    }

    fn try_mount(size_mib: u32) -> Result<Self, String> {
        let supervisor = Supervisor::new("disk", "TERM", "mountpoint -q disk && umount -l disk");
        // Servers that do not run as we do come by here.
        let passable = fs::set_permissions(supervisor.folder(), Permissions::from_mode(0o711));
        passable.and_then(|()| fs::create_dir(supervisor.folder().join("disk"))).map_err(|error| error.to_string())?;
        let size = format!("size={size_mib}m");
        supervisor.run(&["mount", "-t", "tmpfs", "-o", &size, "edd-tests", "disk"])?;
        Ok(Self { supervisor })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.supervisor.folder().join("disk")
    }

    /// Leaves no byte free. What files have already may still be written over.
    pub fn fill(&self) {
        let path = self.path().join(BALLAST);
        let mut ballast = File::create(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        for bytes in BLOCKS {
            let block = vec![b'x'; bytes];
            let full = loop {
                match ballast.write_all(&block) {
                    Ok(()) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{}: {full}", path.display());
        }
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn free(&self) {
        let path = self.path().join(BALLAST);
        fs::remove_file(&path).unwrap_or_else(|error| panic!("remove {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_until_it_is_freed_and_goes_when_it_is_dropped() {
        let Some(disk) = Disk::mount("a disk", 1) else { return };
        let (path, file) = (disk.path(), disk.path().join("file"));
        disk.fill();
        assert_eq!(fs::write(&file, "x").expect_err("no room").kind(), ErrorKind::StorageFull);
        disk.free();
        fs::write(&file, "x").expect("room");
        drop(disk);
        assert!(!path.exists(), "{} stayed", path.display());
        let mounts = fs::read_to_string("/proc/mounts").expect("what is mounted");
        assert!(!mounts.contains(path.to_str().expect("a plain name")), "{mounts}");
    }
}
