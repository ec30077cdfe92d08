//! A whole gateway, a container's sshd, and a user with a key.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use edd_events::clock::SystemClock;
use edd_proto::ContainerId;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::diary::Diary;
use super::platform::Platform;
use super::sshd::Sshd;
use crate::access_log::AccessLog;
use crate::certs::{CertsConfig, LocalCaConfig};
use crate::containers::Presence;
use crate::containers::keeper::{Keeper, KeeperError};
use crate::gateway::{Config, Gateway, Stop};
use crate::health::Health;
use crate::live::{Ledger, LedgerReader, Life};
use crate::metrics::Metrics;
use crate::proxy::http1::HeadLimits;
use crate::route::{Authority as Address, HostName};
use crate::router::Router;
use crate::ssh;
use crate::ssh::admission::{Admission, Admitter, Attempt, Entrance, Outcome, Refusal, Run, Target, Way};
use crate::ssh::authority::Authority;
use crate::ssh::login::Login;
use crate::ssh::patience::Patience;
use crate::ssh::upstream::fingerprint;
use crate::table::fingerprint::Fingerprint;

pub const CONTAINER: &str = "abcdefghij";
const OWNER: &str = "V1StGXR8_Z5jdHi6B-myT";
/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lets one key in, to one container.
#[derive(Debug)]
pub struct Doorman {
    fingerprint: String,
    pub target: Mutex<Target>,
    /// Of everybody who is in.
    pub revoked: CancellationToken,
    pub retired: CancellationToken,
    pub arrived: Mutex<Vec<IpAddr>>,
    pub outcomes: Mutex<Vec<Outcome>>,
    life: Arc<Life>,
    ledger: Ledger,
    _reader: LedgerReader,
}

impl Doorman {
    fn check(&self, attempt: &Attempt<'_>) -> Result<Way, Refusal> {
        if fingerprint(attempt.key) != self.fingerprint {
            return Err(Refusal::new("unknown_key", "nobody has this key"));
        }
        match Login::parse(attempt.username) {
            Some(Login::Container { id, user }) => Ok(Way::Container { id, user }),
            Some(Login::Jump) => Ok(Way::Jump),
            None => Err(Refusal::new("unknown_user", "no such user")),
        }
    }

    fn door(&self) -> Entrance {
        let target = self.target.lock().unwrap().clone();
        let visit = Some(self.ledger.visit(&self.life));
        Entrance { container: CONTAINER.parse().unwrap(), target, visit, retired: self.retired.clone() }
    }
}

impl Admitter for Doorman {
    fn arrived(&self, peer: IpAddr) -> Result<(), Refusal> {
        self.arrived.lock().unwrap().push(peer);
        Ok(())
    }

    fn settled(&self, _peer: IpAddr, outcome: Outcome) {
        self.outcomes.lock().unwrap().push(outcome);
    }

    fn offer(&self, attempt: &Attempt<'_>) -> Result<(), Refusal> {
        self.check(attempt).map(drop)
    }

    fn admit(&self, attempt: &Attempt<'_>) -> Result<Admission, Refusal> {
        Ok(Admission {
            owner: OWNER.parse().unwrap(),
            key_id: 7,
            fingerprint: Fingerprint::of(attempt.key),
            way: self.check(attempt)?,
            run: Run::default(),
            revoked: self.revoked.clone(),
        })
    }

    fn entrance(&self, _admission: &Admission) -> Result<Entrance, Refusal> {
        Ok(self.door())
    }

    fn jump(&self, _admission: &Admission, host: &str) -> Result<Entrance, Refusal> {
        if host == CONTAINER { Ok(self.door()) } else { Err(Refusal::new("unknown_container", "no such container")) }
    }
}

/// Compute, which takes reports as long as it is open for them.
#[derive(Debug)]
pub struct Compute {
    pub is_open: watch::Sender<bool>,
    pub told: Mutex<Vec<ContainerId>>,
}

#[async_trait]
impl Keeper for Compute {
    async fn wake(&self, _id: ContainerId) -> Result<(), KeeperError> {
        Ok(())
    }

    async fn active(&self, ids: &[ContainerId]) -> Result<Vec<ContainerId>, KeeperError> {
        self.told.lock().unwrap().extend(ids);
        self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
        Ok(Vec::new())
    }
}

/// What differs from world to world.
pub struct Setting {
    pub login_grace: Duration,
    pub rekey_after_bytes: usize,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub patience: Patience,
    pub shows_nist_keys: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            login_grace: PATIENCE,
            rekey_after_bytes: ssh::REKEY_AFTER_BYTES,
            trusted_proxies: Vec::new(),
            patience: Patience::default(),
            shows_nist_keys: false,
        }
    }
}

pub struct World {
    pub dir: TempDir,
    pub address: SocketAddr,
    pub doorman: Arc<Doorman>,
    pub diary: Diary,
    pub platform: Arc<Platform>,
    pub compute: Arc<Compute>,
    pub sshd: Sshd,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Setting::default()).await
    }

    pub async fn with(setting: Setting) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = make_key(&dir.path().join("key"));
        let ca = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let (ca_line, own_line) = [&ca, &key].map(|key| key.public_key().to_openssh().unwrap()).into();
        let sshd = Sshd::start(dir.path(), &ca_line, CONTAINER, &own_line);
        let target = Target::Sshd {
            address: Address::parse(&sshd.address.to_string()).unwrap(),
            host_key_fingerprint: sshd.host_key_fingerprint.clone(),
        };
        let (ledger, reader) = Ledger::new();
        let doorman = Arc::new(Doorman {
            fingerprint: fingerprint(key.public_key()),
            target: Mutex::new(target),
            revoked: CancellationToken::new(),
            retired: CancellationToken::new(),
            arrived: Mutex::default(),
            outcomes: Mutex::default(),
            life: Arc::new(Life::new(CONTAINER.parse().unwrap(), OWNER.parse().unwrap())),
            ledger,
            _reader: reader,
        });
        let compute = Arc::new(Compute { is_open: watch::Sender::new(true), told: Mutex::default() });
        let (diary, platform) = (Diary::default(), Arc::new(Platform::default()));
        let kinds = [Algorithm::Ed25519, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }];
        let host_keys = kinds.map(|kind| PrivateKey::random(&mut rand::rng(), kind).unwrap());
        let host_lines = host_keys.each_ref().map(|key| key.public_key().to_openssh().unwrap());
        let ssh = ssh::Config {
            host_keys: host_keys.into(),
            shows_nist_keys: setting.shows_nist_keys,
            admitter: Arc::clone(&doorman) as _,
            authority: Authority::new(ca, Arc::new(SystemClock)),
            events: Arc::new(diary.clone()),
            sessions: None,
            programs: Arc::clone(&platform) as _,
            wakes: None,
            presence: Some(Presence::new(Arc::clone(&compute) as _)),
            login_grace: setting.login_grace,
            patience: setting.patience,
            rekey_after_bytes: setting.rekey_after_bytes,
        };
        let gateway = Gateway::start(config(dir.path(), ssh, &setting)).await.unwrap();
        let address = gateway.addresses.ssh.unwrap();
        let known: String = host_lines.map(|line| format!("[127.0.0.1]:{} {line}\n", address.port())).concat();
        std::fs::write(dir.path().join("known_hosts"), known).unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(gateway.run(async {
            let _ = stopped.await;
            Stop::Now
        }));
        Self { dir, address, doorman, diary, platform, compute, sshd, stop: Some(stop), running }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command of OpenSSH's client side, with the options that all of them take.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "/dev/null"]);
        // What a jump leads to has a key of its own, which is not looked at here.
        let known = format!("UserKnownHostsFile={}", self.path("known_hosts").display());
        for option in ["StrictHostKeyChecking=no", &known, "BatchMode=yes", "IdentitiesOnly=yes"] {
            command.args(["-o", option]);
        }
        command.arg("-i").arg(self.path("key"));
        command
    }

    /// `ssh options... user@gateway`.
    pub fn ssh_as(&self, user: &str, options: &[&str]) -> Command {
        let mut command = self.command("ssh");
        command.args(["-p", &self.address.port().to_string()]).args(options).arg(format!("{user}@127.0.0.1"));
        command
    }

    pub fn ssh(&self, options: &[&str]) -> Command {
        self.ssh_as(CONTAINER, options)
    }

    /// A command in the container, past the gateway.
    pub fn straight(&self, script: &str) -> Command {
        let mut command = self.command("ssh");
        command.args(["-p", &self.sshd.address.port().to_string(), "root@127.0.0.1", script]);
        command
    }

    /// What a command in the container does with `input`.
    pub async fn run(&self, script: &str, input: &[u8]) -> Output {
        let mut command = self.ssh(&[]);
        command.arg(script);
        finish(command, input).await
    }

    pub async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, self.running).await.expect("it ends").unwrap();
    }
}

pub fn make_key(path: &Path) -> PrivateKey {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    key.write_openssh_file(path, LineEnding::LF).unwrap();
    key
}

/// Runs a command to its end.
pub async fn finish(mut command: Command, input: &[u8]) -> Output {
    let input = input.to_vec();
    let pipes = (Stdio::piped(), Stdio::piped(), Stdio::piped());
    let mut child = command.stdin(pipes.0).stdout(pipes.1).stderr(pipes.2).spawn().unwrap();
    let (id, mut stdin) = (child.id(), child.stdin.take().unwrap());
    let running = tokio::task::spawn_blocking(move || {
        let writing = std::thread::spawn(move || {
            // Some read nothing of it.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        output
    });
    match tokio::time::timeout(PATIENCE, running).await {
        Ok(output) => output.unwrap(),
        Err(_) => {
            // Or the test would wait for its threads.
            let killed = Command::new("kill").args(["-KILL", &id.to_string()]).status();
            panic!("{command:?} hangs; killed: {killed:?}");
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    until_some(what, || condition().then_some(())).await;
}

/// Waits until there is something.
pub async fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} in time"))
}

fn config(dir: &Path, ssh: ssh::Config, setting: &Setting) -> Config {
    // Another test may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let base = HostName::parse("cloud.localhost").unwrap();
    let routes_file = dir.join("routes.yaml");
    std::fs::write(&routes_file, "routes: []\n").unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let second = Duration::from_secs(1);
    let metrics = Arc::new(Metrics::new().unwrap());
    Config {
        http: any,
        https: any,
        admin: any,
        ssh: Some((any, ssh)),
        dynamic_bind: any.ip(),
        routes_file,
        data_dir: dir.to_owned(),
        certs: CertsConfig {
            certs_dir: None,
            local_ca: Some(LocalCaConfig { dir: dir.join("ca"), names: vec![base] }),
        },
        trusted_proxies: setting.trusted_proxies.clone(),
        limits: HeadLimits { max_head_bytes: 32 * 1024, header_timeout: second, keepalive_timeout: PATIENCE },
        max_connections: 1000,
        handshake_timeout: PATIENCE,
        drain_timeout: second,
        shutdown_delay: Duration::ZERO,
        access_log: AccessLog::start(None, Arc::clone(&metrics)).unwrap(),
        builtin_targets: HashMap::new(),
        builtin_routes: Vec::new(),
        metrics,
        router: Router::default(),
        containers: None,
        static_routes: watch::channel(None).1,
        health: Health::default(),
        takeover: false,
        worker_threads: 2,
    }
}
