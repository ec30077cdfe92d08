//! The default image: this machine's programs below an own, small rest.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// Directories of the machine that hold programs. Where `/usr` has all of them, the others are links into it.
const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Directories of its own, with their modes.
const OWN: [(&str, u32); 18] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("home/user", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/sshd", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/tmp", 0o1777),
];
/// Directories of the machine that tell nothing of it: links to programs, and the authorities that are trusted.
const PUBLIC: [&str; 2] = ["/etc/alternatives", "/etc/ssl/certs"];
/// What programs look up in the machine's `/etc`, as far as it tells nothing of the machine.
const COPIED: [&str; 10] = [
    "debian_version",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "protocols",
    "services",
];
const FILES: [(&str, &str); 9] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n\
         sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\ntty:x:5:\nwww-data:x:33:\nusers:x:100:\nuser:x:1000:\nnogroup:x:65534:\n"),
    ("etc/shells", "/bin/sh\n/bin/bash\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n"),
    ("etc/profile", "PS1='\\u@\\h:\\w\\$ '\numask 022\nexport LANG=\"${LANG:-C.UTF-8}\"\n"),
    ("etc/bash.bashrc", "PS1='\\u@\\h:\\w\\$ '\n"),
    ("etc/host.conf", "multi on\n"),
    ("etc/resolv.conf", ""),
    // What it is replaced by is bound over it.
    ("opt/edd", ""),
];

/// Counted up with each change below, so that what an earlier edd made is not taken for this.
const EDITION: u32 = 2;
/// The one plain user, and the group of the same number.
const USER: (&str, u32) = ("home/user", 1000);

/// Changes when the image would be made otherwise.
pub(super) fn stamp() -> String {
    let changed = |path: &str| fs::metadata(path).map_or(0, |file| file.mtime());
    format!("{}-{}.{EDITION}", changed("/etc/ld.so.cache"), env!("CARGO_PKG_VERSION"))
}

/// What is bound into it: directories that are no links.
pub(super) fn directories() -> Vec<(PathBuf, String)> {
    let real =
        PROGRAMS.into_iter().chain(PUBLIC).filter(|dir| fs::symlink_metadata(dir).is_ok_and(|file| file.is_dir()));
    real.map(|dir| (PathBuf::from(dir), dir.to_owned())).collect()
}

/// Fills `root`.
pub(super) fn make(root: &Path) -> io::Result<()> {
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    for (dir, mode) in OWN {
        fs::create_dir(root.join(dir))?;
        fs::set_permissions(root.join(dir), Permissions::from_mode(mode))?;
    }
    // Nobody but root can give files away, and nobody but root's containers have users.
    if rustix::process::geteuid().is_root() {
        let (home, id) = USER;
        chown(root.join(home), Some(id), Some(id))?;
    }
    for dir in PROGRAMS.into_iter().map(Path::new) {
        let place = root.join(dir.strip_prefix("/").unwrap_or(dir));
        match fs::read_link(dir) {
            Ok(target) => symlink(target, place)?,
            Err(_) if dir.is_dir() && !place.exists() => fs::create_dir(place)?,
            Err(_) => {}
        }
    }
    symlink("/run", root.join("var/run"))?;
    symlink("/proc/self/mounts", root.join("etc/mtab"))?;
    for (file, content) in FILES {
        fs::write(root.join(file), content)?;
    }
    for copied in COPIED {
        copy(&Path::new("/etc").join(copied), &root.join("etc").join(copied))?;
    }
    Ok(())
}

/// Copies files, links and directories; what is not there or not for us to read is left out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(from) else { return Ok(()) };
    if found.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if found.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    match fs::copy(from, to) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}
