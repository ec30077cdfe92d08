//! Starts a container: what it is started with, its supervisor, and the wait for its first answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use edd_proto::ContainerId;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::cgroup::Limits;
use super::home::{Ended, Home, Plan, Ports, Record, Run};
use super::image::Prepared;
use super::installation::Installation;
use super::process::ProcessId;
use super::supervisor::Report;
use super::tier::Tier;
use super::{adoption, blocking, broken, role, wire};
use crate::compute::platform::{Phase, PlatformError, SshServer};

/// How long a supervisor may take until it reports.
const REPORT_TIMEOUT: Duration = Duration::from_secs(20);
/// An image that does not say where it answers counts as started when it has not ended after this.
const SETTLE_TIME: Duration = Duration::from_millis(300);
/// Between two tries to connect.
const CONNECT_POLL: Duration = Duration::from_millis(10);
/// A packet that came before the link carried anything is sent again after a second; a new one is sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// A container that never answered gets this long to end.
const FAILED_GRACE: Duration = Duration::from_secs(1);
/// Tells a container's processes whose they are, and us.
pub(super) const ID_VARIABLE: &str = "EDD_CONTAINER_ID";
/// Where the system's programs are, whatever the shell of whoever started edd knows.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Installation {
    /// Starts it unless it runs. A container that cannot run is `Failed` afterwards, which is no error of ours.
    pub(super) async fn start(self: &Arc<Self>, id: ContainerId) -> Result<(), PlatformError> {
        let (record, home) = (self.known(id)?, self.home(id));
        match self.phase(&home).map_err(broken)? {
            (Phase::Running, _) => Ok(()),
            (Phase::Paused, _) => match home.plan().map_err(broken)?.and_then(|plan| plan.cgroup) {
                Some(cgroup) => cgroup.freeze(false).await.map_err(broken),
                None => Ok(()),
            },
            // Begun before we were.
            (_, Some(run)) => self.await_ready(id, &run).await,
            (_, None) => {
                let (inner, planned) = (self.clone(), home.clone());
                adoption::tidy(&home).await.map_err(broken)?;
                blocking(move || inner.plan(record, &planned)).await?;
                self.launch(id, &home).await
            }
        }
    }

    /// Writes down how it is to be started, and makes room.
    fn plan(&self, record: Record, home: &Home) -> Result<(), PlatformError> {
        let (id, prepared) = (record.spec.id, self.images.prepare(&record.spec.image)?);
        home.clear().map_err(broken)?;
        let volume = |place: &String| Ok((home.volume(place)?, place.clone()));
        let volumes: std::io::Result<Vec<_>> = record.spec.mount_paths.iter().map(volume).collect();
        let sshd = self.config.sshd.as_ref().zip(prepared.ssh_port);
        let mut plan = Plan {
            tier: self.tier,
            program: self.config.program.clone(),
            bridge: self.bridge.clone(),
            cgroup: self.cgroups.as_ref().map(|cgroups| cgroups.of(&record.spec.id)),
            limits: Limits { memory_mb: record.spec.memory_mb, cpu_millis: record.spec.cpu_millis },
            volumes: volumes.map_err(broken)?,
            rootfs: prepared.rootfs.clone(),
            binds: prepared.binds.clone(),
            entry: prepared.entry.clone(),
            daemons: prepared.daemons.clone(),
            files: Vec::new(),
            working_dir: prepared.working_dir.clone(),
            ports: Ports {
                http: prepared.http_port,
                must_answer: prepared.must_answer,
                sshd: sshd.map(|(sshd, port)| SshServer { port, host_key: sshd.fingerprint(id) }),
            },
            environment: BTreeMap::new(),
            record,
        };
        plan.environment = environment(&plan, &prepared, home);
        plan.files = sshd.map(|(sshd, port)| sshd.files(id, port, &plan.environment)).unwrap_or_default();
        home.save_plan(&plan).map_err(broken)
    }

    async fn launch(self: &Arc<Self>, id: ContainerId, home: &Home) -> Result<(), PlatformError> {
        let (near, far) = UnixStream::pair().map_err(broken)?;
        near.set_nonblocking(true).map_err(broken)?;
        let mut supervisor = tokio::net::UnixStream::from_std(near).map_err(broken)?;
        let program = &self.config.program;
        // Its end is waited for by what is written down of it, as after an adoption.
        let child = Command::new(&program.path)
            .args(&program.arguments)
            // What edd knows, such as passwords, is nothing for containers.
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env(role::VARIABLE, role::supervisor(home.dir()).map_err(broken)?)
            .current_dir(home.dir())
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::null())
            .stderr(home.new_complaints().map_err(broken)?)
            // A terminal's Ctrl-C is for edd.
            .process_group(0)
            .spawn()
            .map_err(|error| broken(format!("cannot run {}: {error}", program.path.display())))?;
        let child = ProcessId::of(child.id().cast_signed()).map_err(broken)?.open();
        let report = match tokio::time::timeout(REPORT_TIMEOUT, wire::hear(&mut supervisor)).await {
            Ok(heard) => heard.map_err(broken)?,
            Err(_) => return Err(broken("the container's supervisor does not report")),
        };
        match (report, home.run().map_err(broken)?) {
            (Some(Report::Started), Some(run)) => {
                self.watch(id, &run);
                self.await_ready(id, &run).await
            }
            // It has written down how it ended, and is about to end itself.
            (Some(Report::Started | Report::Failed(_)), _) => match child {
                Some(child) => child.ended().await.map_err(broken),
                None => Ok(()),
            },
            (None, _) => Err(broken(format!("the container's supervisor ended early: {}", home.complaints().trim()))),
        }
    }

    /// Waits until the container answers, and ends one that does not.
    async fn await_ready(self: &Arc<Self>, id: ContainerId, run: &Run) -> Result<(), PlatformError> {
        let home = self.home(id);
        let Some(supervisor) = run.supervisor.open() else { return Ok(()) };
        let timeout = self.config.ready_timeout;
        let deadline = Instant::now() + timeout;
        let silent = async {
            for port in run.ports.due() {
                if timeout_at(deadline, connect(SocketAddr::from((run.address, port)))).await.is_err() {
                    return Some(port);
                }
            }
            if run.ports.due().next().is_none() {
                tokio::time::sleep(SETTLE_TIME).await;
            }
            None
        };
        let silent = tokio::select! {
            ended = supervisor.ended() => return ended.map_err(broken),
            silent = silent => silent,
        };
        let Some(port) = silent else { return home.set_ready().map_err(broken) };
        self.end(id, FAILED_GRACE).await?;
        let seconds = timeout.as_secs_f32();
        let failure = format!("it did not answer on port {port} within {seconds} s; its log may say why");
        home.save_ended(&Ended { failure: Some(failure) }).map_err(broken)
    }
}

/// Returns once a connection was taken.
async fn connect(address: SocketAddr) {
    while !matches!(tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await, Ok(Ok(_))) {
        tokio::time::sleep(CONNECT_POLL).await;
    }
}

/// What the image's entry and sessions see: the owner's word over the image's over ours, but for where it is reached.
fn environment(plan: &Plan, prepared: &Prepared, home: &Home) -> BTreeMap<String, String> {
    let spec = &plan.record.spec;
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut all: BTreeMap<String, String> = [
        own("PATH", SEARCH_PATH),
        own("HOME", "/root"),
        own("USER", "root"),
        own("LOGNAME", "root"),
        own("LANG", "C.UTF-8"),
    ]
    .into();
    if plan.tier == Tier::Plain {
        let temporary = home.scratch().join("tmp");
        let root = plan.volumes.iter().find(|(_, place)| place.trim_end_matches('/') == "/root");
        let lives_in = root.map_or(&temporary, |(volume, _)| volume);
        all.extend([own("HOME", &lives_in.to_string_lossy()), own("TMPDIR", &temporary.to_string_lossy())]);
        all.retain(|name, _| !["USER", "LOGNAME"].contains(&name.as_str()));
    }
    all.extend(prepared.environment.clone());
    all.extend(spec.environment.clone());
    let host = if plan.tier.has_network() { "0.0.0.0".to_owned() } else { plan.record.address.to_string() };
    all.extend([
        own("HOST", &host),
        own("PORT", &plan.ports.http.to_string()),
        own(ID_VARIABLE, spec.id.as_str()),
        own("EDD_CONTAINER_NAME", &spec.name.replace('\0', "")),
    ]);
    all
}
