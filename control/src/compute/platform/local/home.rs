//! A container's directory: all that is known of it, so that what runs is found again after any end of edd.
//!
//! ```text
//! container.json   what it is and where it is reached        written by edd
//! plan.json        how it is started                         written by edd
//! run.json         its processes                             written by its supervisor
//! ready            its first answer was seen                 written by edd
//! ended.json       how it ended                              written by its supervisor
//! supervisor.log   what its supervisor complained of
//! log, log.1       what its main process wrote               written by its supervisor
//! control.sock     where sessions begin
//! volumes/         directories that outlive a stop
//! scratch/         everything else, new with each start
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edd_proto::ContainerId;
use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup::{Cgroup, Limits};
use super::config::Program;
use super::network::Bridge;
use super::process::{self, ProcessId};
use super::tier::Tier;
use crate::compute::platform::sshd::ConfigFile;
use crate::compute::platform::{Spec, SshServer};

/// Between two looks at a lock that another has.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// What a container is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: Spec,
    pub(super) address: Ipv4Addr,
}

/// How a container is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) record: Record,
    pub(super) tier: Tier,
    pub(super) program: Program,
    pub(super) bridge: Option<Bridge>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) limits: Limits,
    /// The image's files; none where the machine's own are seen.
    pub(super) rootfs: Option<PathBuf>,
    /// Of the machine, read-only: source and place in the container.
    pub(super) binds: Vec<(PathBuf, String)>,
    /// Source and place in the container.
    pub(super) volumes: Vec<(PathBuf, String)>,
    pub(super) entry: Vec<String>,
    /// What runs beside the entry, and is started again when it ends.
    #[serde(default)]
    pub(super) daemons: Vec<Vec<String>>,
    /// What its SSH server is set up with.
    #[serde(default)]
    pub(super) files: Vec<ConfigFile>,
    pub(super) working_dir: String,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) ports: Ports,
}

/// Where a container answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) http: u16,
    /// Whether it must answer at `http` to be ready.
    pub(super) must_answer: bool,
    /// It must take connections as well.
    #[serde(default)]
    pub(super) sshd: Option<SshServer>,
}

impl Ports {
    /// Where a container takes connections once it is ready.
    pub(super) fn due(&self) -> impl Iterator<Item = u16> {
        let http = self.must_answer.then_some(self.http);
        http.into_iter().chain(self.sshd.as_ref().map(|sshd| sshd.port))
    }
}

/// A container's processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    boot: String,
    pub(super) supervisor: ProcessId,
    /// Its first process: all others end with it.
    pub(super) init: ProcessId,
    pub(super) address: Ipv4Addr,
    pub(super) ports: Ports,
}

impl Run {
    pub(super) fn new(init: ProcessId, plan: &Plan) -> io::Result<Self> {
        let (address, ports) = (plan.record.address, plan.ports.clone());
        Ok(Self { boot: process::boot()?, supervisor: ProcessId::own()?, init, address, ports })
    }

    /// Whether its supervisor still looks after it.
    pub(super) fn is_alive(&self) -> bool {
        self.is_of_this_boot() && self.supervisor.is_alive()
    }

    /// Whether the numbers of its processes mean anything.
    pub(super) fn is_of_this_boot(&self) -> bool {
        process::boot().is_ok_and(|boot| boot == self.boot)
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    /// Why, in words for its owner; none when it was stopped.
    pub(super) failure: Option<String>,
}

/// The directory of one container.
#[derive(Clone, Debug)]
pub(super) struct Home(PathBuf);

impl Home {
    pub(super) fn at(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// The home of `id` among all.
    pub(super) fn of(containers: &Path, id: ContainerId) -> Self {
        Self(containers.join(id.as_str()))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// Makes the directory with its record, at once or not at all.
    pub(super) fn make(&self, record: &Record) -> io::Result<()> {
        private_dir(&self.0)?;
        private_dir(&self.0.join("volumes"))?;
        self.save_record(record)
    }

    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        self.read("container.json")
    }

    pub(super) fn save_record(&self, record: &Record) -> io::Result<()> {
        self.write("container.json", record)
    }

    pub(super) fn plan(&self) -> io::Result<Option<Plan>> {
        self.read("plan.json")
    }

    pub(super) fn save_plan(&self, plan: &Plan) -> io::Result<()> {
        self.write("plan.json", plan)
    }

    pub(super) fn run(&self) -> io::Result<Option<Run>> {
        self.read("run.json")
    }

    pub(super) fn save_run(&self, run: &Run) -> io::Result<()> {
        self.write("run.json", run)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.0.join("ready").exists()
    }

    pub(super) fn set_ready(&self) -> io::Result<()> {
        File::create(self.0.join("ready")).map(drop)
    }

    pub(super) fn ended(&self) -> io::Result<Option<Ended>> {
        self.read("ended.json")
    }

    /// Its processes are gone, for this reason.
    pub(super) fn save_ended(&self, ended: &Ended) -> io::Result<()> {
        self.write("ended.json", ended)?;
        self.forget("run.json")?;
        self.forget("ready")
    }

    /// Takes away what the last run left, and makes room for another.
    pub(super) fn clear(&self) -> io::Result<()> {
        for file in ["run.json", "ready", "ended.json", "control.sock"] {
            self.forget(file)?;
        }
        remove_tree(&self.scratch())?;
        for part in ["upper", "work", "merged", "tmp"] {
            fs::create_dir_all(self.scratch().join(part))?;
        }
        fs::set_permissions(self.scratch().join("upper"), Permissions::from_mode(0o755))
    }

    /// Where a supervisor's complaints go, empty.
    pub(super) fn new_complaints(&self) -> io::Result<File> {
        File::create(self.0.join("supervisor.log"))
    }

    pub(super) fn complaints(&self) -> String {
        fs::read_to_string(self.0.join("supervisor.log")).unwrap_or_default()
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.0.join("scratch")
    }

    /// Where a mounted directory is kept, made if it is not there.
    pub(super) fn volume(&self, mount_path: &str) -> io::Result<PathBuf> {
        let name = mount_path.trim_matches('/').replace('%', "%25").replace('/', "%2F");
        let dir = self.0.join("volumes").join(name);
        if !dir.exists() {
            fs::create_dir_all(&dir)?;
            fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        }
        Ok(dir)
    }

    /// Held by a supervisor as long as it lives; none when another keeps it for so long.
    pub(super) async fn lock(&self, timeout: Duration) -> io::Result<Option<File>> {
        lock(&self.0.join("lock"), timeout).await
    }

    /// Removes it with all that is in it. It is out of sight at once.
    pub(super) fn remove(&self, trash: &Path) -> io::Result<()> {
        private_dir(trash)?;
        let unique = format!("{}-{:x}", self.0.file_name().unwrap_or_default().display(), rand::random::<u64>());
        let gone = trash.join(unique);
        match fs::rename(&self.0, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        remove_tree(&gone)
    }

    fn forget(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> io::Result<Option<T>> {
        let path = self.0.join(file);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| io::Error::other(format!("{} is damaged: {error}", path.display()))),
        }
    }

    /// A reader sees the old content or the new.
    fn write(&self, file: &str, content: &impl Serialize) -> io::Result<()> {
        let new = self.0.join(format!("{file}.new"));
        let mut out = File::create(&new)?;
        out.write_all(&serde_json::to_vec(content)?)?;
        out.sync_data()?;
        fs::rename(&new, self.0.join(file))
    }
}

/// Makes a directory that only this user looks into.
pub(super) fn private_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
}

/// Takes a lock that ends with the file. None: another has it, and did not let go within `timeout`, which gives one
/// that is about to end time to do so.
pub(super) async fn lock(path: &Path, timeout: Duration) -> io::Result<Option<File>> {
    let file = File::options().create(true).append(true).open(path)?;
    let deadline = Instant::now() + timeout;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => tokio::time::sleep(LOCK_POLL).await,
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes a directory and what is in it, those directories too that their modes close to us: an overlay leaves such.
pub(super) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(dir)?;
            fs::remove_dir_all(dir)
        }
        removed => removed,
    }
}

fn open_up(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_of_different_paths_are_different() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        let paths = ["/a/b", "/a%2Fb", "/a", "/a%b"];
        let dirs: std::collections::BTreeSet<_> = paths.map(|path| home.volume(path).expect("made")).into();
        assert_eq!(dirs.len(), paths.len());
        assert!(dirs.iter().all(|dir| dir.parent() == Some(&folder.path().join("volumes"))));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("run.json"), "{").expect("written");
        let error = Home::at(folder.path()).run().expect_err("damaged").to_string();
        assert!(error.contains("run.json is damaged"), "{error}");
    }

    #[tokio::test]
    async fn a_lock_is_had_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        let lock = async |timeout_ms| home.lock(Duration::from_millis(timeout_ms)).await.expect("looked at");
        let held = lock(0).await;
        assert!(held.is_some() && lock(20).await.is_none());
        let (waited, ()) = tokio::join!(lock(10_000), async { drop(held) });
        assert!(waited.is_some());
    }

    #[test]
    fn closed_directories_are_removed_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("x");
        fs::create_dir_all(dir.join("work/work")).expect("made");
        fs::set_permissions(dir.join("work/work"), Permissions::from_mode(0o000)).expect("closed");
        remove_tree(&dir).expect("removed");
        assert!(!dir.exists());
        remove_tree(&dir).expect("nothing to do");
    }
}
