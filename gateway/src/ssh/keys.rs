//! The gateway's own SSH keys: files in one directory, which replicas share.
//!
//! What is missing is made. A key appears under its name whole or not at all (`link(2)` of a finished file), and of two
//! processes that start at once one wins and the other reads the winner's, so that both show clients the same host.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::ssh_key::{self, LineEnding};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PublicKey};

/// Longest key file that is read, in bytes; an RSA key of 16,384 bits has 12,000.
const MAX_KEY_BYTES: u64 = 64 * 1024;
/// Of a new RSA key; what OpenSSH makes.
const RSA_BITS: usize = 3072;
/// Of an RSA key that is taken: clients refuse smaller ones.
const MIN_RSA_BITS: u32 = 2048;
const USER_CA: &str = "user_ca";
const USER_CA_PUBLIC: &str = "user_ca.pub";

/// What a key file is for, which decides of what kind it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Ed25519Host,
    EcdsaHost,
    RsaHost,
    UserCa,
}

impl Purpose {
    /// The host keys in the order of preference.
    const HOSTS: [Self; 3] = [Self::Ed25519Host, Self::EcdsaHost, Self::RsaHost];

    fn file(self) -> &'static str {
        match self {
            Self::Ed25519Host => "ssh_host_ed25519_key",
            Self::EcdsaHost => "ssh_host_ecdsa_key",
            Self::RsaHost => "ssh_host_rsa_key",
            Self::UserCa => USER_CA,
        }
    }

    /// As `ssh-keygen -t` has it.
    fn kind(self) -> &'static str {
        match self {
            Self::Ed25519Host | Self::UserCa => "ed25519",
            Self::EcdsaHost => "ecdsa",
            Self::RsaHost => "rsa",
        }
    }

    fn comment(self) -> &'static str {
        match self {
            Self::UserCa => "edd user CA",
            _ => "edd gateway",
        }
    }

    fn generate(self) -> ssh_key::Result<PrivateKey> {
        let mut rng = rand::rng();
        let mut key = match self {
            Self::Ed25519Host | Self::UserCa => PrivateKey::random(&mut rng, Algorithm::Ed25519)?,
            Self::EcdsaHost => PrivateKey::random(&mut rng, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })?,
            Self::RsaHost => PrivateKey::new(RsaKeypair::random(&mut rng, RSA_BITS)?.into(), "")?,
        };
        key.set_comment(self.comment());
        Ok(key)
    }

    /// What is wrong with a key for this purpose.
    fn objection(self, key: &PrivateKey) -> Option<String> {
        let fits = match (self, key.algorithm()) {
            (Self::Ed25519Host | Self::UserCa, Algorithm::Ed25519) | (Self::RsaHost, Algorithm::Rsa { .. }) => true,
            (Self::EcdsaHost, Algorithm::Ecdsa { curve }) => curve == EcdsaCurve::NistP256,
            _ => false,
        };
        if !fits {
            return Some(format!("it is of the kind {}", key.algorithm()));
        }
        match key.key_data() {
            KeypairData::Rsa(rsa) if rsa.key_size() < MIN_RSA_BITS => Some(format!("it has {} bits", rsa.key_size())),
            _ => None,
        }
    }
}

/// Why there are no keys: which file, what is wrong with it, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}; {hint}", path.display())]
pub struct KeysError {
    path: PathBuf,
    problem: String,
    hint: String,
}

impl KeysError {
    fn new(path: &Path, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into(), hint: hint.into() }
    }

    fn io<'a>(what: &'a str, path: &'a Path, hint: &'a str) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| Self::new(path, format!("cannot {what}: {error}"), hint)
    }
}

/// The keys of a gateway.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Ed25519, ECDSA and RSA, in this order.
    pub hosts: Vec<PrivateKey>,
    /// Signs who logs in to containers.
    pub user_ca: PrivateKey,
}

impl Keys {
    /// Reads the keys of `dir`, and makes those that it lacks. Blocks; making an RSA key takes a second or more.
    ///
    /// # Errors
    /// A file is no key of its kind, others may read it or own it, or one is missing and cannot be written.
    pub fn open(dir: &Path) -> Result<Self, KeysError> {
        if !dir.exists() {
            let make = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            make.map_err(KeysError::io(
                "create the directory",
                dir,
                "create it, or name another with EDD_SSH_KEYS_DIR",
            ))?;
        }
        let hosts = Purpose::HOSTS.map(|purpose| open(dir, purpose)).into_iter().collect::<Result<_, _>>()?;
        let user_ca = open(dir, Purpose::UserCa)?;
        check_public(dir, user_ca.public_key())?;
        Ok(Self { hosts, user_ca })
    }
}

fn open(dir: &Path, purpose: Purpose) -> Result<PrivateKey, KeysError> {
    let path = dir.join(purpose.file());
    if let Some(key) = read(&path, purpose)? {
        return Ok(key);
    }
    let key = purpose.generate().map_err(|error| impossible(&path, &error))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|error| impossible(&path, &error))?;
    let by_hand = format!("write the missing key: ssh-keygen -q -N '' -t {} -f {}", purpose.kind(), path.display());
    if appear(&path, text.as_bytes(), 0o600).map_err(KeysError::io("write", &path, &by_hand))? {
        tracing::info!(path = %path.display(), "made an SSH key");
        return Ok(key);
    }
    // Another process was faster: both use what it made.
    read(&path, purpose)?.ok_or_else(|| KeysError::new(&path, "it was there and is gone", "start again"))
}

fn impossible(path: &Path, error: &ssh_key::Error) -> KeysError {
    KeysError::new(path, format!("no key could be made: {error}"), "make one with ssh-keygen")
}

/// The key of a file; none if there is no file.
fn read(path: &Path, purpose: Purpose) -> Result<Option<PrivateKey>, KeysError> {
    let again = format!(
        "put back the file from a backup, or move it away to have a new key made, which {}",
        match purpose {
            Purpose::UserCa => "every container has to be told of",
            _ => "clients will take for another host",
        }
    );
    let bad = |problem: String| KeysError::new(path, problem, again.as_str());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeysError::io("read", path, "let this process read it")(error)),
    };
    check_access(path, &file)?;
    let mut text = Vec::new();
    file.take(MAX_KEY_BYTES + 1).read_to_end(&mut text).map_err(KeysError::io("read", path, "look at the disk"))?;
    if text.len() as u64 > MAX_KEY_BYTES {
        return Err(bad(format!("it is larger than {MAX_KEY_BYTES} bytes")));
    }
    match parse(&text, purpose) {
        Ok(key) => Ok(Some(key)),
        Err(Fault::Locked) => {
            let decrypt = format!("decrypt it: ssh-keygen -p -N '' -f {}", path.display());
            Err(KeysError::new(path, "it has a passphrase, and nobody is there to type it", decrypt))
        }
        Err(Fault::Other(problem)) => Err(bad(problem)),
    }
}

/// Why a file has no key for a purpose.
enum Fault {
    Locked,
    Other(String),
}

fn parse(text: &[u8], purpose: Purpose) -> Result<PrivateKey, Fault> {
    let key = PrivateKey::from_openssh(text);
    let key = key.map_err(|error| Fault::Other(format!("no OpenSSH private key: {error}")))?;
    if key.is_encrypted() {
        return Err(Fault::Locked);
    }
    match purpose.objection(&key) {
        Some(objection) => Err(Fault::Other(format!("{objection}, and has to be {}", wanted(purpose)))),
        None => Ok(key),
    }
}

/// For fuzzers: any bytes are a key, which is read again as it is written, or refused.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(text: &[u8]) {
    for purpose in Purpose::HOSTS {
        if let Ok(key) = parse(text, purpose) {
            let written = key.to_openssh(LineEnding::LF).expect("it was read");
            assert!(parse(written.as_bytes(), purpose).is_ok_and(|again| again.public_key() == key.public_key()));
        }
    }
}

fn wanted(purpose: Purpose) -> String {
    match purpose {
        Purpose::RsaHost => format!("an RSA key of {MIN_RSA_BITS} bits or more"),
        Purpose::EcdsaHost => "an ECDSA key on P-256".to_owned(),
        Purpose::Ed25519Host | Purpose::UserCa => "an Ed25519 key".to_owned(),
    }
}

/// Refuses a key that others know or could replace.
fn check_access(path: &Path, file: &File) -> Result<(), KeysError> {
    let facts = file.metadata().map_err(KeysError::io("read", path, "let this process read it"))?;
    if !facts.is_file() {
        return Err(KeysError::new(path, "it is not a file", "move it away"));
    }
    let access = Access { mode: facts.mode() & 0o777, owner: facts.uid(), group: facts.gid() };
    let own = Own::new().map_err(KeysError::io("tell whose it is", path, "start again"))?;
    match access.objection(&own) {
        None => Ok(()),
        Some(Objection::Owner) => {
            let (owner, chown) = (access.owner, format!("chown {} {}", own.user, path.display()));
            Err(KeysError::new(path, format!("it belongs to the user {owner}, who could replace it"), chown))
        }
        Some(Objection::Mode) => {
            let chmod = format!("chmod 600 {}", path.display());
            Err(KeysError::new(path, format!("its mode {:03o} lets others at it", access.mode), chmod))
        }
    }
}

/// Who may do what to a file.
#[derive(Clone, Copy, Debug)]
struct Access {
    mode: u32,
    owner: u32,
    group: u32,
}

/// What is wrong with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Objection {
    Owner,
    Mode,
}

/// Who this process acts as.
#[derive(Debug)]
struct Own {
    user: u32,
    group: u32,
}

impl Own {
    /// As the kernel tells the other end of a socket.
    fn new() -> io::Result<Self> {
        let (one, _other) = UnixStream::pair()?;
        let peer = rustix::net::sockopt::socket_peercred(&one)?;
        Ok(Self { user: peer.uid.as_raw(), group: peer.gid.as_raw() })
    }
}

impl Access {
    /// The owner has to be this process or root, and others must not read or write it. Its group may read it where
    /// root says so, as Secrets are mounted for a group (`fsGroup`), or where that is the process's own.
    fn objection(self, own: &Own) -> Option<Objection> {
        if self.owner != own.user && self.owner != 0 {
            return Some(Objection::Owner);
        }
        let is_for_group = self.owner == 0 || own.group == self.group;
        let open_to = if is_for_group { 0o027 } else { 0o077 };
        (self.mode & open_to != 0).then_some(Objection::Mode)
    }
}

/// `user_ca.pub` is what containers are told: a file of other keys would lock everybody out. It may have a second one,
/// while one authority follows another.
fn check_public(dir: &Path, key: &PublicKey) -> Result<(), KeysError> {
    let path = dir.join(USER_CA_PUBLIC);
    let own = key.to_openssh().map_err(|error| impossible(&path, &error))?;
    let by_hand = format!("write it: ssh-keygen -y -f {} > {}", dir.join(USER_CA).display(), path.display());
    let mut text = String::new();
    match File::open(&path) {
        Ok(file) => {
            let read = file.take(MAX_KEY_BYTES).read_to_string(&mut text);
            read.map_err(KeysError::io("read", &path, &by_hand))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = appear(&path, format!("{own}\n").as_bytes(), 0o644);
            return made.map(drop).map_err(KeysError::io("write", &path, &by_hand));
        }
        Err(error) => return Err(KeysError::io("read", &path, "let this process read it")(error)),
    }
    let keys = text.lines().filter(|line| !line.trim().is_empty()).map(PublicKey::from_openssh);
    if keys.flatten().any(|known| known.key_data() == key.key_data()) {
        return Ok(());
    }
    Err(KeysError::new(&path, format!("it lacks the public key of {USER_CA}"), by_hand))
}

/// Makes a file appear whole under its name. False: there is one by now.
fn appear(path: &Path, text: &[u8], mode: u32) -> io::Result<bool> {
    let draft = path.with_extension(format!("new-{:016x}", rand::random::<u64>()));
    let appeared = write(&draft, text, mode).and_then(|()| match fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    });
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %draft.display(), %error, "a draft of a key stays behind; delete it");
    }
    if appeared.as_ref().is_ok_and(|won| *won)
        && let Some(dir) = path.parent()
    {
        File::open(dir)?.sync_all()?;
    }
    appeared
}

fn write(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text)?;
    // On disk before it has its name.
    file.sync_all()
}

#[cfg(test)]
mod tests;
