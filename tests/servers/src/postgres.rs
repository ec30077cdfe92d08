//! A PostgreSQL cluster.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::disk::Disk;
use crate::supervisor::Supervisor;
use crate::{port, program};

/// What PostgreSQL runs as when we are root, as which it refuses to: nobody.
const NOBODY: u32 = 65534;
/// The role that owns everything.
pub const ROLE: &str = "edd";
/// Its password, where one is asked for.
pub const PASSWORD: &str = "h2so4-and:more@home";
/// Several tests at once, each with some pools.
const MAX_CONNECTIONS: u32 = 300;
/// Another process may take the port between the choice and the start.
const TRIES: u32 = 5;
/// A killed cluster leaves its shared memory; a successor finds it by this file, and so does who cleans up.
const FAREWELL: &str = "[ ! -e data/postmaster.pid ] || ipcrm -m \"$(sed -n '7s/.* //p' data/postmaster.pid)\"";

/// What a cluster does beyond holding data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether a commit is on disk when it is acknowledged; else the operating system has it. Tests seldom outlive a
    /// power cut, and benchmarks must.
    pub durable: bool,
    /// Whether TCP clients need TLS and a password. The certificate is [`Postgres::certificate`].
    pub secured: bool,
}

/// A PostgreSQL cluster of one's own. It goes, with its data, when it is dropped or the process ends.
#[derive(Debug)]
pub struct Postgres {
    supervisor: Supervisor,
    /// Where the programs of its release are.
    programs: PathBuf,
    settings: Settings,
    /// Whether the programs must run as nobody.
    as_nobody: bool,
    has_own_disk: bool,
    port: u16,
    databases: AtomicU32,
}

impl Postgres {
    /// The cluster that the tests of this process share. Never stop it; start one for that.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Settings::default()))
    }

    /// Makes a cluster and starts it on a free port of the loopback interface.
    pub fn start(settings: Settings) -> Self {
        Self::start_in(settings, None)
    }

    /// The same, with its data on `disk`, which must outlive it.
    pub fn start_on(disk: &Disk, settings: Settings) -> Self {
        Self::start_in(settings, Some(disk))
    }

    fn start_in(settings: Settings, disk: Option<&Disk>) -> Self {
        // SIGQUIT: every process ends at once, and what is in memory goes.
        let supervisor = Supervisor::new("pg", "QUIT", FAREWELL);
        let folder = supervisor.folder();
        let owner = fs::metadata(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).uid();
        let as_nobody = owner == 0;
        if as_nobody {
            give(folder);
        }
        if let Some(disk) = disk {
            let data = disk.path().join("data");
            let made = fs::create_dir(&data).and_then(|()| symlink(&data, folder.join("data")));
            made.unwrap_or_else(|error| panic!("{}: {error}", data.display()));
            if as_nobody {
                give(&data);
            }
        }
        let (port, databases, has_own_disk) = (port::free(), AtomicU32::new(0), disk.is_some());
        let mut cluster = Self { supervisor, programs: find(), settings, as_nobody, has_own_disk, port, databases };
        cluster.initialize();
        for _ in 1..TRIES {
            if cluster.try_start().is_ok() {
                return cluster;
            }
            cluster.port = port::free();
        }
        cluster.try_start().unwrap_or_else(|failure| panic!("{failure}"));
        cluster
    }

    /// Makes an empty database: its URL, which stays the same when the cluster is restarted.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}"));
        if self.settings.secured {
            let certificate = self.certificate();
            let password = PASSWORD.replace(':', "%3A").replace('@', "%40");
            let tls = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
            return format!("postgres://{ROLE}:{password}@localhost:{}/{name}?{tls}", self.port);
        }
        format!("postgres://{ROLE}@127.0.0.1:{}/{name}", self.port)
    }

    /// What a secured cluster identifies itself with, as `localhost`.
    pub fn certificate(&self) -> PathBuf {
        self.supervisor.folder().join("server.crt")
    }

    /// Has a statement executed by the cluster's own client, as its owner: the rows, columns parted by `|`.
    pub fn sql(&self, statement: &str) -> String {
        let output = self.psql(statement);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {errors}\n{}", self.supervisor.log());
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Ends it as a crash does, with all its processes.
    pub fn kill9(&self) {
        self.supervisor.kill();
    }

    /// Ends it as an operator does: transactions in progress are rolled back.
    pub fn stop(&self) {
        self.supervisor.end("INT");
    }

    /// Starts it with the data and at the port that it had, after ending it if it runs.
    pub fn restart(&self) {
        self.stop();
        self.try_start().unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// Has it lose its data, and all databases with it. It must not run.
    pub fn wipe_data(&self) {
        assert!(!self.supervisor.is_running(), "stop PostgreSQL before its data is removed");
        let data = self.supervisor.folder().join("data");
        fs::remove_dir_all(&data).unwrap_or_else(|error| panic!("remove {}: {error}", data.display()));
        self.initialize();
    }

    fn initialize(&self) {
        let folder = self.supervisor.folder();
        let owner = ["-D", "data", "-U", ROLE, "--auth=trust", "--no-sync"];
        // Texts sort as people expect, which is not by bytes, as SQLite has it: code that needs one order must say so.
        let order = ["--encoding=UTF8", "--locale=C", "--locale-provider=icu", "--icu-locale=en-US"];
        let initdb = self.program("initdb");
        self.run(&[&[initdb.as_str()], &owner[..], &order[..]].concat());
        if self.settings.secured {
            let request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                           -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE \
                           -addext subjectAltName=DNS:localhost -keyout server.key -out server.crt";
            self.run(&request.split(' ').collect::<Vec<_>>());
            let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
            self.write(&folder.join("data/pg_hba.conf"), rules);
        }
    }

    fn try_start(&self) -> Result<(), String> {
        let folder = self.supervisor.folder();
        let mut settings = vec![
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", folder.display()),
            format!("max_connections={MAX_CONNECTIONS}"),
            // Its default lies in /dev/shm, where a killed cluster would leave it.
            "dynamic_shared_memory_type=mmap".to_owned(),
        ];
        if !self.settings.durable {
            // But synchronous, so that a killed server has what it acknowledged.
            settings.extend(["fsync=off", "full_page_writes=off"].map(str::to_owned));
        }
        if self.has_own_disk {
            // Or its log alone could fill that.
            settings.extend(["max_wal_size=64MB", "min_wal_size=32MB"].map(str::to_owned));
        }
        if self.settings.secured {
            let file = |name| folder.join(name).display().to_string();
            settings.push("ssl=on".to_owned());
            settings.push(format!("ssl_cert_file={}", file("server.crt")));
            settings.push(format!("ssl_key_file={}", file("server.key")));
        }
        let postgres = self.program("postgres");
        let mut words = self.as_user(&[&postgres, "-D", "data"]);
        words.extend(settings.iter().flat_map(|setting| ["-c", setting]));
        self.supervisor.start(&words, || self.psql("SELECT 1").status.success())?;
        if self.settings.secured {
            self.sql(&format!("ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'"));
        }
        Ok(())
    }

    fn psql(&self, statement: &str) -> Output {
        let mut psql = Command::new(self.program("psql"));
        psql.arg("-XAtq").args(["-v", "ON_ERROR_STOP=1"]).arg("-h").arg(self.supervisor.folder());
        psql.args(["-p", &self.port.to_string(), "-U", ROLE, "-d", "postgres", "-c", statement]);
        psql.output().unwrap_or_else(|error| panic!("cannot start psql: {error}"))
    }

    fn program(&self, name: &str) -> String {
        self.programs.join(name).display().to_string()
    }

    fn run(&self, words: &[&str]) {
        self.supervisor.run(&self.as_user(words)).unwrap_or_else(|failure| panic!("{failure}"));
    }

    fn as_user<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        if self.as_nobody { [&nobody, words].concat() } else { words.to_vec() }
    }

    fn write(&self, file: &Path, text: &str) {
        fs::write(file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }
}

/// Makes nobody the owner of `folder`.
fn give(folder: &Path) {
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap_or_else(|error| panic!("chown {}: {error}", folder.display()));
}

/// The folder with the programs of one release: of the one on PATH, else of the newest that Debian has installed.
fn find() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<_> = installed.map(|release| release.path()).collect();
    installed.sort_by_key(|folder| release(folder));
    let folders = installed.iter().rev().map(|folder| folder.join("bin"));
    let files = program::candidates("initdb", folders);
    // On PATH it may be a link to where its companions are.
    let mut folders = files.iter().filter_map(|file| Some(file.canonicalize().ok()?.parent()?.to_owned()));
    let is_whole =
        |folder: &PathBuf| ["postgres", "psql"].iter().all(|name| program::is_executable(&folder.join(name)));
    folders
        .find(is_whole)
        .unwrap_or_else(|| panic!("no PostgreSQL here (looked at {files:?}): run `cargo xtask setup`"))
}

/// `15` of `/usr/lib/postgresql/15`.
fn release(folder: &Path) -> u32 {
    folder.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_empty_and_outlive_a_crash() {
        let cluster = Postgres::start(Settings { durable: true, ..Settings::default() });
        let folder = cluster.supervisor.folder().to_owned();
        let (first, second) = (cluster.database(), cluster.database());
        assert!(first != second && first.starts_with(&format!("postgres://{ROLE}@127.0.0.1:")), "{first} {second}");
        cluster.sql("CREATE TABLE notes (body TEXT)");
        cluster.sql("INSERT INTO notes VALUES ('kept'), ('too')");
        cluster.kill9();
        assert!(!cluster.psql("SELECT 1").status.success());
        for restart in ["after kill -9", "while it runs"] {
            cluster.restart();
            assert_eq!(cluster.sql("SELECT * FROM notes"), "kept\ntoo", "{restart}");
        }
        assert_eq!(cluster.sql("SHOW fsync"), "on");
        cluster.stop();
        cluster.wipe_data();
        cluster.restart();
        assert_eq!(cluster.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'test%'"), "0");
        let lock = fs::read_to_string(folder.join("data/postmaster.pid")).expect("the server's own notes");
        let segment = lock.lines().nth(6).and_then(|line| line.split_whitespace().last()).expect("its shared memory");
        let segments = || fs::read_to_string("/proc/sysvipc/shm").expect("shared memory");
        let is_there = || segments().lines().any(|line| line.split_whitespace().nth(1) == Some(segment));
        cluster.kill9();
        assert!(is_there(), "{segment}");
        drop(cluster);
        assert!(!is_there() && !folder.exists(), "{segment} or {} stayed", folder.display());
    }

    #[test]
    fn a_secured_cluster_wants_tls_and_a_password() {
        let cluster = Postgres::start(Settings { secured: true, ..Settings::default() });
        let url = cluster.database();
        let ask = |url: &str| Command::new(cluster.program("psql")).args(["-w", "-c", "SELECT 1", url]).output();
        let succeeds = |url: &str| ask(url).expect("psql").status.success();
        assert!(succeeds(&url));
        assert!(!succeeds(&url.replace("h2so4", "guess")));
        assert!(!succeeds(&url.replace("verify-full", "disable")));
        assert_eq!(cluster.sql("SHOW fsync"), "off");
        assert_eq!(cluster.sql("SELECT 'a' < 'B', 'B' < 'c'"), "t|t", "not by bytes");
    }
}
