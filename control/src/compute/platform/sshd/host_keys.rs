//! The host keys of containers: made of one secret and the container's id, so that a container has the same one
//! wherever and whenever it starts, and nothing of it has to be kept.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use edd_proto::ContainerId;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

/// The file of the secret.
const FILE: &str = "ssh_host_secret";
const SECRET_BYTES: usize = 32;
/// What else may be made of the secret one day is made with another word.
const PURPOSE: &[u8] = b"edd container ssh host key 1:";

/// The host keys of all containers of one installation.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKeys([u8; SECRET_BYTES]);

impl fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKeys")
    }
}

impl HostKeys {
    /// Those whose secret is in `dir`, where it is made if there is none: of several who do so at once, one has its way.
    ///
    /// # Errors
    /// The file cannot be made or read, is damaged, or is open to others. The error names it and says what to do.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if !path.exists() {
            make(dir, &path).map_err(failed)?;
        }
        let mut file = File::open(&path).map_err(failed)?;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(failed(io::Error::other(
                "others may read it: chmod 600 it, or remove it to have a new one made",
            )));
        }
        let mut secret = Vec::with_capacity(SECRET_BYTES);
        Read::by_ref(&mut file).take(SECRET_BYTES as u64 + 1).read_to_end(&mut secret).map_err(failed)?;
        let damaged =
            |_| failed(io::Error::other("it does not have 32 bytes: remove it, and containers get new host keys"));
        secret.try_into().map(Self).map_err(damaged)
    }

    /// Those that are made of `secret`.
    pub fn from_secret(secret: [u8; SECRET_BYTES]) -> Self {
        Self(secret)
    }

    pub(super) fn of(&self, id: ContainerId) -> PrivateKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(PURPOSE);
        mac.update(id.as_str().as_bytes());
        Ed25519Keypair::from_seed(&mac.finalize().into_bytes().into()).into()
    }

    /// The key of `id` as OpenSSH reads it.
    pub(super) fn to_openssh(&self, id: ContainerId) -> String {
        self.of(id).to_openssh(LineEnding::LF).expect("an ed25519 key without a password has a form").to_string()
    }

    /// Tells one secret from another, and nothing of either.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"edd container ssh host keys:").chain_update(self.0).finalize().into()
    }
}

/// Writes a new secret aside and gives it its name, unless another has taken that meanwhile.
fn make(dir: &Path, path: &Path) -> io::Result<()> {
    let own = dir.join(format!(".{FILE}.{:016x}", rand::random::<u64>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&own)?;
    let named = file.write_all(&rand::random::<[u8; SECRET_BYTES]>()).and_then(|()| file.sync_all()).and_then(|()| {
        match fs::hard_link(&own, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    });
    fs::remove_file(&own)?;
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> [ContainerId; 2] {
        ["abcdefgh12", "abcdefgh13"].map(|id| id.parse().expect("an id"))
    }

    #[test]
    fn a_container_has_one_key_and_shares_it_with_none() {
        let [one, other] = ids();
        let keys = HostKeys::from_secret([7; 32]);
        let print = |keys: &HostKeys, id| keys.of(id).fingerprint(ssh_key::HashAlg::Sha256).to_string();
        assert_eq!(print(&keys, one), print(&keys.clone(), one));
        assert_ne!(print(&keys, one), print(&keys, other));
        assert_ne!(print(&keys, one), print(&HostKeys::from_secret([8; 32]), one));
        let read = PrivateKey::from_openssh(keys.to_openssh(one)).expect("OpenSSH's form");
        assert_eq!(read.public_key().key_data(), keys.of(one).public_key().key_data());
    }

    #[test]
    fn all_who_open_the_directory_at_once_have_one_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = std::sync::Barrier::new(8);
        let open = || {
            start.wait();
            HostKeys::open(folder.path()).expect("keys")
        };
        let all: Vec<HostKeys> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        assert!(all.iter().all(|keys| *keys == all[0]));
        let left: Vec<_> =
            fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [FILE]);
    }

    #[test]
    fn a_secret_that_is_none_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        HostKeys::open(folder.path()).expect("keys");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("opened");
        let error = HostKeys::open(folder.path()).expect_err("open to others").to_string();
        assert!(error.contains(FILE) && error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed");
        for content in [&[1; 31][..], &[1; 33]] {
            fs::write(&path, content).expect("written");
            let error = HostKeys::open(folder.path()).expect_err("no secret").to_string();
            assert!(error.contains(FILE) && error.contains("32 bytes"), "{error}");
        }
    }
}
