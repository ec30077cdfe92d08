//! Images: root file systems as tarballs in a directory, and one that is made of what this machine has.

mod host;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Deserialize;

use super::config::{Config, Program};
use super::home;
use super::role;
use super::tier::Tier;
use crate::compute::platform::sshd;
use crate::compute::platform::{Image, PlatformError};

/// The name of the image that is made of this machine.
pub(super) const DEFAULT: &str = "default";
/// Where that image has the program that serves its page.
const PROGRAM: &str = "/opt/edd";
/// Where images are unpacked, beside their tarballs.
const UNPACKED: &str = ".unpacked";
/// Ends of a tarball's name.
const ENDS: [&str; 3] = [".tar", ".tar.gz", ".tgz"];
const MAX_NAME_BYTES: usize = 63;
const MAX_MANIFEST_BYTES: u64 = 64 * 1024;
/// What an image without an entry does: it waits for sessions.
const IDLE: [&str; 3] = ["/bin/sh", "-c", "while :; do sleep 3600; done"];

/// This machine's SSH server, which containers of the default image have too.
const SSHD: &str = "/usr/sbin/sshd";
/// Runs the server `$1` with the configuration `$2`. Since version 9.8 it would shut out the gateway, from where all come,
/// for the mistakes of one; an older one does not know what turns that off.
const START_SSHD: &str = r#"
o='-o PerSourcePenalties=no'
"$1" -t $o -f "$2" 2>/dev/null || o=
exec "$1" -D -e $o -f "$2"
"#;

/// `<name>.json` beside an image: what a tarball does not tell.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Manifest {
    description: String,
    /// Program and arguments of the main process.
    entry: Vec<String>,
    environment: BTreeMap<String, String>,
    working_dir: Option<String>,
    /// Where it answers HTTP; a container must do so to count as started.
    http_port: Option<u16>,
    /// Where an SSH server of its own listens, which reads what [`sshd`] puts into `/etc/ssh`.
    ssh_port: Option<u16>,
}

/// An image that is ready to be started.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its files; none where the machine's own are seen.
    pub(super) rootfs: Option<PathBuf>,
    /// Of the machine, read-only: source and place in the container.
    pub(super) binds: Vec<(PathBuf, String)>,
    pub(super) entry: Vec<String>,
    /// What runs beside the entry.
    pub(super) daemons: Vec<Vec<String>>,
    pub(super) working_dir: String,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) http_port: u16,
    /// Whether it must answer there to be ready.
    pub(super) must_answer: bool,
    /// Where its SSH server listens, if it has one that we can set up.
    pub(super) ssh_port: Option<u16>,
}

/// The images of this machine.
#[derive(Debug)]
pub(super) struct Images {
    dir: PathBuf,
    tier: Tier,
    program: Program,
    /// Whether SSH servers are set up: one needs all that root may do in a namespace of its own.
    has_sshd: bool,
    max_bytes: u64,
    /// Held while one is unpacked: two containers may begin with the same.
    unpacking: Mutex<()>,
}

impl Images {
    pub(super) fn new(dir: PathBuf, tier: Tier, config: &Config) -> Self {
        let (program, max_bytes) = (config.program.clone(), config.max_image_bytes);
        let has_sshd = tier == Tier::Root && config.sshd.is_some();
        Self { dir, tier, program, has_sshd, max_bytes, unpacking: Mutex::new(()) }
    }

    /// All that containers can be made of, by name.
    pub(super) fn list(&self) -> io::Result<Vec<Image>> {
        let description = if self.tier.has_rootfs() {
            "this machine's own programs, with a web page and a shell"
        } else {
            "this machine itself, with a web page and a shell"
        };
        let mut images =
            vec![Image { name: DEFAULT.to_owned(), description: description.to_owned(), is_default: true }];
        let names = if self.tier.has_rootfs() { self.names()? } else { BTreeSet::new() };
        for name in names.into_iter().filter(|name| name != DEFAULT) {
            let description = match self.manifest(&name) {
                Ok(manifest) => manifest.description,
                Err(error) => error.to_string(),
            };
            images.push(Image { name, description, is_default: false });
        }
        Ok(images)
    }

    fn names(&self) -> io::Result<BTreeSet<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries?,
        };
        let files = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let stem = |file: String| ENDS.iter().find_map(|end| file.strip_suffix(end)).map(str::to_owned);
        Ok(files.filter_map(stem).filter(|name| is_name(name)).collect())
    }

    /// Whether there is such an image.
    pub(super) fn check(&self, name: &str) -> Result<(), PlatformError> {
        if name == DEFAULT {
            return Ok(());
        }
        if !self.tier.has_rootfs() {
            let reason = "this machine cannot give containers files of their own, so `default` is its only image";
            return Err(PlatformError::Impossible(format!("there is no image {name:?}: {reason}")));
        }
        self.tarball(name).map(drop)
    }

    fn tarball(&self, name: &str) -> Result<PathBuf, PlatformError> {
        let candidates = ENDS.iter().map(|end| self.dir.join(format!("{name}{end}")));
        let found = candidates.into_iter().find(|path| is_name(name) && path.is_file());
        found.ok_or_else(|| PlatformError::Impossible(format!("there is no image {name:?}")))
    }

    fn manifest(&self, name: &str) -> Result<Manifest, PlatformError> {
        let path = self.dir.join(format!("{name}.json"));
        let wrong = |reason: String| PlatformError::Impossible(format!("image {name:?}: {name}.json {reason}"));
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Manifest::default()),
            Ok(metadata) if metadata.len() > MAX_MANIFEST_BYTES => {
                return Err(wrong(format!("has {} bytes; at most {MAX_MANIFEST_BYTES} are read", metadata.len())));
            }
            _ => {}
        }
        let text = fs::read(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        serde_json::from_slice(&text).map_err(|error| wrong(format!("is not understood: {error}")))
    }

    /// Unpacks an image unless that was done. Takes as long as that takes.
    pub(super) fn prepare(&self, name: &str) -> Result<Prepared, PlatformError> {
        self.check(name)?;
        if name == DEFAULT {
            return self.prepare_default();
        }
        let (tarball, manifest) = (self.tarball(name)?, self.manifest(name)?);
        let unpack = |into: &Path| unpack::unpack(&tarball, into, self.max_bytes);
        let stamp = fs::metadata(&tarball).map(|file| format!("{}.{}-{}", file.mtime(), file.mtime_nsec(), file.len()));
        let rootfs = stamp.and_then(|stamp| self.once(&format!("{name}@{stamp}"), unpack));
        let rootfs = rootfs.map_err(|error| {
            PlatformError::Impossible(format!("image {name:?} cannot be unpacked: {}", whole(&error)))
        })?;
        let entry = if manifest.entry.is_empty() { IDLE.map(str::to_owned).to_vec() } else { manifest.entry };
        Ok(Prepared {
            rootfs: Some(rootfs),
            binds: Vec::new(),
            entry,
            daemons: Vec::new(),
            working_dir: manifest.working_dir.unwrap_or_else(|| "/".to_owned()),
            environment: manifest.environment,
            http_port: self.port(manifest.http_port.unwrap_or(80)),
            must_answer: manifest.http_port.is_some(),
            ssh_port: manifest.ssh_port.filter(|_| self.has_sshd),
        })
    }

    fn prepare_default(&self) -> Result<Prepared, PlatformError> {
        let (mut rootfs, mut binds, mut program) = (None, Vec::new(), self.program.path.clone());
        if self.tier.has_rootfs() {
            let failed = |error| PlatformError::Unavailable(format!("the default image cannot be made: {error}"));
            let stamp = host::stamp();
            rootfs = Some(self.once(&format!("{DEFAULT}@{stamp}"), host::make).map_err(failed)?);
            binds = host::directories();
            binds.push((program, PROGRAM.to_owned()));
            program = PathBuf::from(PROGRAM);
        }
        let mut entry = vec!["/usr/bin/env".to_owned(), format!("{}={}", role::VARIABLE, role::PAGE)];
        entry.push(program.display().to_string());
        entry.extend(self.program.arguments.iter().cloned());
        let has_sshd = self.has_sshd && Path::new(SSHD).is_file();
        let start_sshd = ["/bin/sh", "-c", START_SSHD, "sshd", SSHD, sshd::CONFIG].map(str::to_owned).to_vec();
        Ok(Prepared {
            rootfs,
            binds,
            entry,
            daemons: if has_sshd { vec![start_sshd] } else { Vec::new() },
            working_dir: "/".to_owned(),
            environment: BTreeMap::new(),
            http_port: self.port(80),
            must_answer: true,
            ssh_port: has_sshd.then_some(22),
        })
    }

    /// A port that a container may listen on: on the machine's own network the lowest belong to its root.
    fn port(&self, wanted: u16) -> u16 {
        let first = || {
            let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
            text.trim().parse().unwrap_or(1024)
        };
        let is_root = self.tier == Tier::Plain && rustix::process::geteuid().is_root();
        if self.tier.has_network() || is_root || wanted >= first() { wanted } else { wanted.saturating_add(8000) }
    }

    /// The directory that `make` fills, once.
    fn once(&self, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
        // Whoever panicked here left a directory under another name.
        let _unpacking = self.unpacking.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let unpacked = self.dir.join(UNPACKED);
        let (done, begun) = (unpacked.join(name), unpacked.join(format!("{name}.begun")));
        if !done.exists() {
            home::private_dir(&unpacked)?;
            home::remove_tree(&begun)?;
            fs::create_dir(&begun)?;
            make(&begun)?;
            fs::rename(&begun, &done)?;
        }
        Ok(done)
    }

    /// Removes what was unpacked and is neither current nor used.
    pub(super) fn prune(&self, used: &BTreeSet<PathBuf>) -> io::Result<()> {
        let _unpacking = self.unpacking.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entries = match fs::read_dir(self.dir.join(UNPACKED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if !used.contains(&path) {
                home::remove_tree(&path)?;
            }
        }
        Ok(())
    }
}

/// An error with those behind it.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether `name` may name an image: it is a part of file names.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = name.bytes().next().is_some_and(plain);
    first && name.len() <= MAX_NAME_BYTES && name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests;
