//! A directory of one test's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed with everything in it when dropped.
pub struct Workdir(PathBuf);

impl Workdir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, because the path of a Unix socket has at most 108 bytes.
        let path = std::env::temp_dir().join(format!("edd-it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a directory in it, made if need be.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        path
    }

    /// Writes a file as editors and ConfigMaps do: whole, by a rename, so that no reader sees half of it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        let new = self.0.join(format!(".{name}.new"));
        std::fs::write(&new, text).unwrap_or_else(|e| panic!("write {}: {e}", new.display()));
        std::fs::rename(&new, &path).unwrap_or_else(|e| panic!("rename to {}: {e}", path.display()));
        path
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        // Left behind, it harms nothing; the system cleans its temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
