//! The three ways to one container's server, and who works on each.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use edd_events::database::Database;
use edd_servers::sshd::Sshd;
use serde_json::json;
use sqlx::Row;

use crate::harness::{Deployment, Made, Role, Tenant};
use crate::site::{Identity, Site};

/// More than any benchmark holds.
const MANY: &str = "20000";
/// Room for as many connections of the container's server.
const MEMORY_MB: u32 = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the container's server itself.
    Direct,
    /// Through the gateway.
    Edd,
    /// `ssh -J` over OpenSSH's server.
    Jump,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Direct, Self::Edd, Self::Jump];

    pub fn title(self) -> &'static str {
        match self {
            Self::Direct => "straight to the container",
            Self::Edd => "through edd",
            Self::Jump => "`ssh -J` through OpenSSH",
        }
    }

    /// Its name in the configuration.
    pub fn host(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Edd => "gw",
            Self::Jump => "jumped",
        }
    }
}

/// A container with a server of its own, a gateway before it, and an OpenSSH server to jump over.
pub struct Stage {
    deployment: Deployment,
    site: Site,
    sshd: Sshd,
    /// Of the container's server.
    address: String,
    pub config: PathBuf,
}

impl Stage {
    pub async fn build() -> Self {
        let identity = Identity::new();
        let sshd = Sshd::start(&identity.public());
        let mut deployment = Deployment::single();
        deployment.set_all("EDD_SSH_MAX_SESSIONS", MANY);
        deployment.start().await;
        let (login, address) = {
            let tenant = Tenant { gateway: deployment.gateway(), user: deployment.register().await };
            tenant.until_known().await;
            tenant.done("POST /compute/ssh-keys", json!({"name": "k", "public_key": identity.public()})).await;
            let Made { id, host } =
                tenant.create(json!({"name": "x", "ssh_enabled": true, "memory_mb": MEMORY_MB})).await;
            tenant.until_status(&id, "running").await;
            tenant.until_web(&host, 200).await;
            let address = server_of(&deployment, &id).await;
            (id, address)
        };
        let site = Site::new(identity, deployment.gateway().ssh.port(), &login).configure();
        let config = site.dir().join("ways");
        let stage = Self { deployment, site, sshd, address, config };
        stage.site.until_login().await;
        let authorize = "mkdir -p -m 700 ~/.ssh && cat >>~/.ssh/authorized_keys";
        stage.site.ssh(&["gw", authorize]).stdin(stage.site.public() + "\n").run().await.ok();
        stage
    }

    /// Writes the configuration of all ways, with one cipher on every connection.
    pub fn configure(&self, cipher: &str) {
        let dir = self.site.dir().display();
        let all = format!(
            "Host *\n  IdentityFile {dir}/identity\n  IdentitiesOnly yes\n  UserKnownHostsFile {dir}/known_ways\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking accept-new\n  BatchMode yes\n  LogLevel ERROR\n  \
             Compression no\n  Ciphers {cipher}\n  KexAlgorithms curve25519-sha256\n"
        );
        let (address, port) = self.address.rsplit_once(':').expect("an address and a port");
        let me = Command::new("id").arg("-un").output().expect("id, of coreutils").stdout;
        let me = String::from_utf8_lossy(&me).trim().to_owned();
        let host = |name: &str, host: &str, port: &str, user: &str, more: &str| {
            format!("Host {name}\n  HostName {host}\n  Port {port}\n  User {user}\n  HostKeyAlias {name}\n{more}")
        };
        let text = host("direct", address, port, "root", "")
            + &host("gw", "127.0.0.1", &self.site.port.to_string(), &self.site.login, "")
            + &host("stock", "127.0.0.1", &self.sshd.port().to_string(), &me, "")
            + &host("jumped", address, port, "root", "  ProxyJump stock\n")
            + &all;
        fs::write(&self.config, text).expect("the folder takes files");
    }

    /// `ssh` by a way; OpenSSH's jumps read the same file.
    pub fn ssh(&self, way: Way, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.config).args([way.host(), command]).stdin(Stdio::null());
        ssh
    }

    /// What holds connections by a way: a number of them, until its input ends. It says when all are there.
    pub fn holder(&self, way: Way, connections: usize) -> Command {
        let python = edd_servers::program::fetched_program("python3").expect("`cargo xtask setup` installs asyncssh");
        let (jump_port, inner) = match way {
            Way::Direct => panic!("nobody is on this way"),
            Way::Edd => (self.site.port, ""),
            Way::Jump => (self.sshd.port(), self.address.as_str()),
        };
        let login = if way == Way::Edd { self.site.login.as_str() } else { "" };
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/ssh/hold.py"));
        command.arg(self.site.dir().join("identity")).args([&jump_port.to_string(), login, inner]);
        command.arg(connections.to_string());
        command
    }

    /// The processes that work on a way, besides the client's and the container's: their number and all that they
    /// started.
    pub fn workers(&self, way: Way) -> Vec<u32> {
        match way {
            Way::Direct => Vec::new(),
            Way::Edd => vec![self.deployment.gateway().pid()],
            Way::Jump => family(self.sshd.pid()),
        }
    }

    pub async fn end(mut self) {
        self.deployment.end(Role::Up, rustix::process::Signal::TERM).await;
    }
}

/// Where the container's server listens.
async fn server_of(deployment: &Deployment, id: &str) -> String {
    let compute = Database::attach(deployment.database("compute")).await.expect("compute's database");
    let select = sqlx::query("SELECT address, ssh_port FROM containers WHERE id = $1").bind(id);
    let row = select.fetch_one(compute.reader()).await.expect("a row");
    compute.close().await;
    let address = format!("{}:{}", row.get::<String, _>("address"), row.get::<i64, _>("ssh_port"));
    let reached = TcpStream::connect(&address);
    assert!(reached.is_ok(), "this machine's containers have no SSH server of their own ({address}): {reached:?}");
    address
}

/// A process and all that descend from it.
fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let process: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            // The name before it may hold anything; the parent is the second field behind.
            Some((process, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(process, _)| *process));
        at += 1;
    }
    found
}
