//! The file tree of a container, put together by its first process in a mount namespace of its own. It goes with the
//! namespace.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use super::home::{Home, Plan};
use super::tier::Tier;
use crate::compute::platform::sshd::{self, ConfigFile};

/// What programs expect in `/dev`; all else is the machine's.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// What root could change of the machine.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// What tells of the machine and of others.
const HIDDEN: [&str; 7] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];

/// Makes the tree and makes it the root of this process.
pub(super) fn enter(plan: &Plan, home: &Home) -> io::Result<()> {
    let Some(lower) = &plan.rootfs else { return Ok(()) };
    let tree = Tree::mount(lower, &home.scratch(), plan.tier)?;
    for (source, place) in &plan.binds {
        tree.bind(source, place, MountFlags::RDONLY | MountFlags::NODEV)?;
    }
    tree.proc()?;
    tree.dev(plan.tier)?;
    if plan.tier.has_network() {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        tree.mount_new("sysfs", "/sys", flags, "")?;
    }
    for place in READ_ONLY.iter().filter(|place| tree.has(place)) {
        tree.bind(&tree.outside(place), place, MountFlags::RDONLY)?;
    }
    for place in HIDDEN.iter().filter(|place| tree.has(place)) {
        tree.hide(place)?;
    }
    // The shorter first, so that one within another is not covered by it.
    let mut volumes: Vec<_> = plan.volumes.iter().collect();
    volumes.sort_by_key(|(_, place)| place.len());
    for (source, place) in volumes {
        tree.bind(source, place, MountFlags::NOSUID | MountFlags::NODEV)?;
    }
    tree.pivot()?;
    name(plan)?;
    plan.files.iter().try_for_each(place)
}

/// Puts a file of the SSH server where it looks for it: links of the image lead nowhere but within.
fn place(file: &ConfigFile) -> io::Result<()> {
    let path = Path::new(&file.path);
    let written = || {
        fs::create_dir_all(sshd::EMPTY_DIR)?;
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let mut new = File::options().write(true).create(true).truncate(true).mode(file.mode).open(path)?;
        new.set_permissions(fs::Permissions::from_mode(file.mode))?;
        new.write_all(file.content.as_bytes())
    };
    written().map_err(|error| failed("write", path, error))
}

/// Tells the container its name. An image without `/etc` does without.
fn name(plan: &Plan) -> io::Result<()> {
    let name = plan.record.spec.id.as_str();
    rustix::system::sethostname(name.as_bytes())?;
    if Path::new("/etc").is_dir() {
        fs::write("/etc/hostname", format!("{name}\n"))?;
        let own = if plan.tier.has_network() { plan.record.address.to_string() } else { "127.0.0.1".to_owned() };
        fs::write("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n{own} {name}\n"))?;
    }
    Ok(())
}

/// A tree that is not the root yet. Places in it are found as they will be from within: no link of an image leads out.
struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

impl Tree {
    /// Lays an empty directory over an image's files.
    fn mount(lower: &Path, scratch: &Path, tier: Tier) -> io::Result<Self> {
        // By number, since a path may hold what separates the options.
        let open = |path: &Path| File::open(path).map_err(|error| failed("open", path, error));
        let (lower, upper, work) = (open(lower)?, open(&scratch.join("upper"))?, open(&scratch.join("work"))?);
        let fd = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = format!("lowerdir={},upperdir={},workdir={}", fd(&lower), fd(&upper), fd(&work));
        if tier == Tier::User {
            // Marks of an overlay are otherwise root's alone.
            options += ",userxattr";
        }
        let path = scratch.join("merged");
        mount("overlay", &path, "overlay", MountFlags::NODEV, &options)?;
        let root = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, path })
    }

    fn open(&self, place: &str) -> rustix::io::Result<OwnedFd> {
        let relative = place.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, relative, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    fn has(&self, place: &str) -> bool {
        self.open(place).is_ok()
    }

    /// A name of a place for as long as the process is outside.
    fn outside(&self, place: &str) -> PathBuf {
        self.path.join(place.trim_start_matches('/'))
    }

    /// The directory at `place`, made if it is not there.
    fn directory(&self, place: &str) -> io::Result<OwnedFd> {
        let mut at = self.open("/")?;
        let mut so_far = String::new();
        for part in place.split('/').filter(|part| !part.is_empty()) {
            so_far = format!("{so_far}/{part}");
            at = match self.open(&so_far) {
                Err(rustix::io::Errno::NOENT) => {
                    let made = rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755));
                    made.and_then(|()| self.open(&so_far))
                }
                opened => opened,
            }
            .map_err(|error| failed("make", Path::new(&so_far), error.into()))?;
        }
        Ok(at)
    }

    /// Binds a file or directory of the machine. `flags` hold for this place alone.
    fn bind(&self, source: &Path, place: &str, flags: MountFlags) -> io::Result<()> {
        let target = if source.is_dir() { self.directory(place)? } else { self.open(place)? };
        rustix::mount::mount_bind(source, by_fd(&target)).map_err(|error| failed("bind", source, error.into()))?;
        let bound = self.open(place)?;
        // What restricts the source must be said again, or a user namespace may not change anything.
        let kept = rustix::fs::fstatvfs(&bound)?.f_flag;
        let kept = [
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
            (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
            (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        ]
        .into_iter()
        .filter(|(has, _)| kept.contains(*has))
        .fold(flags, |all, (_, flag)| all | flag);
        rustix::mount::mount_remount(by_fd(&bound), MountFlags::BIND | kept, "")
            .map_err(|error| failed("restrict", source, error.into()))
    }

    /// Mounts a file system of the kernel's.
    fn mount_new(&self, kind: &str, place: &str, flags: MountFlags, options: &str) -> io::Result<()> {
        mount(kind, &by_fd(&self.directory(place)?), kind, flags, options)
    }

    fn proc(&self) -> io::Result<()> {
        self.mount_new("proc", "/proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "")
    }

    fn dev(&self, tier: Tier) -> io::Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        self.mount_new("tmpfs", "/dev", flags, "mode=755,size=64k")?;
        let opened = self.open("/dev")?;
        let dev = by_fd(&opened);
        for device in DEVICES {
            File::create(dev.join(device))?;
            rustix::mount::mount_bind(Path::new("/dev").join(device), dev.join(device))
                .map_err(|error| failed("bind", &Path::new("/dev").join(device), error.into()))?;
        }
        for (link, target) in DEVICE_LINKS {
            symlink(target, dev.join(link))?;
        }
        // Group 5 owns terminals; a user namespace of one user has no groups.
        let group = if tier == Tier::Root { ",gid=5" } else { "" };
        self.mount_new("devpts", "/dev/pts", flags, &format!("newinstance,ptmxmode=666,mode=620{group}"))?;
        self.mount_new("tmpfs", "/dev/shm", flags | MountFlags::NODEV, "mode=1777,size=64m")
    }

    /// Puts nothing over a file, and an empty directory over a directory.
    fn hide(&self, place: &str) -> io::Result<()> {
        let target = self.open(place)?;
        if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode).is_dir() {
            return mount("tmpfs", &by_fd(&target), "tmpfs", MountFlags::RDONLY, "size=0,nr_inodes=1");
        }
        rustix::mount::mount_bind("/dev/null", by_fd(&target))
            .map_err(|error| failed("hide", Path::new(place), error.into()))
    }

    /// Makes the tree the root, and lets go of the old one.
    fn pivot(self) -> io::Result<()> {
        rustix::process::fchdir(&self.root)?;
        // Stacked upon each other, so that the old one needs no place of its own: pivot_root(2).
        rustix::process::pivot_root(".", ".")
            .map_err(|error| failed("change the root to", &self.path, error.into()))?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        std::env::set_current_dir("/")
    }
}

/// Names an open file for calls that take paths.
fn by_fd(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn mount(source: &str, target: &Path, kind: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    rustix::mount::mount(source, target, kind, flags, options.as_c_str())
        .map_err(|error| failed(&format!("mount {kind} on"), target, error.into()))
}

fn failed(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}
