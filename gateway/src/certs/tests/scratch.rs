//! A directory that is gone when its test is.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::authority::Pem;
use crate::certs::{CertStore, CertsConfig};

pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("edd-certs-{}-{number}", std::process::id()));
        // Of an earlier process with the same id.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// Writes a file, and the folders above it, in one step as careful tools do.
    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let draft = path.with_file_name(".draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, path).unwrap();
    }

    pub fn put_pair(&self, name: &str, pem: &Pem) {
        self.put(&format!("{name}.crt"), &pem.cert);
        self.put(&format!("{name}.key"), &pem.key);
    }

    /// A store over this directory alone.
    pub fn store(&self) -> CertStore {
        CertStore::open(CertsConfig { certs_dir: Some(self.to_path_buf()), local_ca: None }).unwrap()
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
