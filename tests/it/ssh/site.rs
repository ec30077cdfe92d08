//! A place to log in, as clients see it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use edd_servers::program;

use crate::harness::{Program, Workdir, until};

/// What runs longer hangs: scripts have no limits of their own, which a busy machine would find.
const SCRIPT_SECONDS: &str = "300";

/// What `skip` of the prelude ends a script with.
const SKIPPED: i32 = 77;

/// How a script ended.
pub enum Run {
    Done,
    /// This machine lacks something: what.
    Skipped(String),
}

/// A key pair and a folder to keep it in.
pub struct Identity {
    dir: Workdir,
}

impl Identity {
    pub fn new() -> Self {
        let dir = Workdir::new();
        let identity = Self { dir };
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "somebody", "-f"])
            .arg(identity.file())
            .status();
        assert!(made.as_ref().is_ok_and(|status| status.success()), "ssh-keygen, of openssh-client: {made:?}");
        identity
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("identity")
    }

    /// In one line, as it is registered.
    pub fn public(&self) -> String {
        fs::read_to_string(self.file().with_extension("pub")).expect("ssh-keygen wrote it").trim().to_owned()
    }
}

/// Where a client logs in, and what it finds there.
pub struct Site {
    identity: Identity,
    pub port: u16,
    pub login: String,
    /// Another user of the same container, if there is one.
    pub user_login: String,
    /// A folder over there.
    pub there: String,
    /// The host to jump over, by its name in the configuration.
    pub jump: &'static str,
    /// Where that leads: host, port and user.
    pub inner: (String, u16, String),
    /// What only some places have: `sshd`, `edd`.
    pub offers: Vec<&'static str>,
    /// Of its ed25519 host key.
    pub host_key: String,
}

impl Site {
    /// One at `port` of this machine, whose host key is what it shows now.
    pub fn new(identity: Identity, port: u16, login: &str) -> Self {
        let mut site = Self {
            identity,
            port,
            login: login.to_owned(),
            user_login: login.to_owned(),
            there: String::new(),
            jump: "gw",
            inner: ("127.0.0.1".to_owned(), port, login.to_owned()),
            offers: Vec::new(),
            host_key: String::new(),
        };
        site.host_key = site.scan();
        site
    }

    /// Writes the configuration; again after its fields have changed.
    pub fn configure(self) -> Self {
        let host = |name: &str, place: (&str, u16, &str)| {
            let (dir, (host, port, user)) = (self.dir().display(), place);
            format!(
                "Host {name}\n  HostName {host}\n  Port {port}\n  User {user}\n  HostKeyAlias {name}-{port}\n  \
                 IdentityFile {dir}/identity\n  IdentitiesOnly yes\n  UserKnownHostsFile {dir}/known_hosts\n  \
                 GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking accept-new\n  BatchMode yes\n  \
                 ConnectTimeout 60\n  LogLevel ERROR\n"
            )
        };
        let (inner, inner_port, inner_user) = (&self.inner.0, self.inner.1, &self.inner.2);
        let config = host("gw", ("127.0.0.1", self.port, &self.login))
            + &host("jump", ("127.0.0.1", self.port, "jump"))
            + &host("inner", (inner, inner_port, inner_user));
        fs::write(self.config(), config).expect("the folder takes files");
        self
    }

    pub fn dir(&self) -> &Path {
        self.identity.dir.path()
    }

    /// The public key of who logs in, in one line.
    pub fn public(&self) -> String {
        self.identity.public()
    }

    fn config(&self) -> PathBuf {
        self.dir().join("config")
    }

    /// OpenSSH, with the configuration in which this place is `gw`.
    pub fn ssh(&self, arguments: &[&str]) -> Program {
        let config = self.config();
        let program = Program::new("ssh").env("HOME", text(self.dir())).dir(self.dir());
        program.args(&["-F", text(&config)]).args(arguments)
    }

    /// Runs a case's script, in an empty folder called `name`, to its end, as `prelude.sh` says. What it complains of.
    ///
    /// # Errors
    /// It failed.
    pub fn run(&self, name: &str, script: &Path) -> Result<Run, String> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/ssh");
        let dir = self.identity.dir.dir(name);
        let python = program::fetched_program("python3").expect("`cargo xtask setup` installs clients for it");
        let mut bash = Command::new("timeout");
        bash.args(["--kill-after", "5", SCRIPT_SECONDS, "bash", "-c", ". \"$0\"; . \"$1\""]);
        bash.arg(home.join("prelude.sh")).arg(script).current_dir(&dir).stdin(Stdio::null());
        bash.env_clear().env("PATH", path()).env("HOME", &dir).env("LANG", "C.UTF-8").env("CONFIG", self.config());
        bash.env("PORT", self.port.to_string()).env("LOGIN", &self.login).env("USER_LOGIN", &self.user_login);
        bash.env("IDENTITY", self.identity.file()).env("HOST_KEY", &self.host_key).env("THERE", &self.there);
        bash.env("JUMP", self.jump).env("PROGRAMS", home.join("programs")).env("PYTHON", python);
        let output = bash.output().map_err(|error| format!("bash: {error}"))?;
        let told = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        match output.status.code() {
            Some(0) => return Ok(Run::Done),
            Some(SKIPPED) => return Ok(Run::Skipped(told.trim().to_owned())),
            _ => {}
        }
        Err(format!("{}\n{told}", output.status))
    }

    /// Waits until who may log in is let in: keys and containers travel by events.
    pub async fn until_login(&self) {
        until("a login", async || match self.ssh(&["gw", "true"]).run().await {
            output if output.code == Some(0) => Ok(()),
            output => Err(output.stderr),
        })
        .await;
    }

    /// The fingerprint of the host key that it shows now.
    pub fn scan(&self) -> String {
        let known = self.dir().join("scanned");
        // There may be one from before.
        let _ = fs::remove_file(&known);
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "PreferredAuthentications=none"]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "HostKeyAlgorithms=ssh-ed25519"]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
        let told = ssh.args(["-p", &self.port.to_string(), "nobody@127.0.0.1"]).output().expect("ssh");
        let shown = Command::new("ssh-keygen").arg("-lf").arg(&known).output().expect("ssh-keygen");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        shown.split(' ').nth(1).unwrap_or_else(|| panic!("no host key at port {}: {told:?}", self.port)).to_owned()
    }
}

/// Where programs are looked for: the machine's own first, so that what runs here is what runs in a container.
fn path() -> OsString {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let own = ["/usr/bin", "/bin", "/usr/sbin"].map(PathBuf::from);
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&others))).expect("folders without colons")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}
