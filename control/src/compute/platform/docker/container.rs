//! One container in the engine's terms: what it is made of, what is read back.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HostConfig, HostConfigLogConfig,
    ImageInspect, Mount, MountType, ResourcesUlimits,
};
use bollard::query_parameters::InspectContainerOptions;
use edd_proto::ContainerId;
use tokio::time::Instant;

use crate::compute::platform::sshd::Sshd;
use crate::compute::platform::{Observed, Phase, Spec, SshServer};

/// What all that is ours carries, and whose it is: a container's id.
pub(super) const LABEL: &str = "com.eddisonso.edd.container";
pub(super) const INSTALLATION_LABEL: &str = "com.eddisonso.edd.installation";
const OWNER_LABEL: &str = "com.eddisonso.edd.owner";
/// The [`Spec`] as JSON.
const SPEC_LABEL: &str = "com.eddisonso.edd.spec";
const HTTP_LABEL: &str = "com.eddisonso.edd.http-port";
/// An image's own says where its SSH server listens, which reads what is put into `/etc/ssh`; 22 need only be exposed.
const SSH_LABEL: &str = "com.eddisonso.edd.ssh-port";
const HOST_KEY_LABEL: &str = "com.eddisonso.edd.ssh-host-key";
/// How SSH servers were set up when a container was made.
const SSHD_LABEL: &str = "com.eddisonso.edd.sshd";

/// How long Podman may take to clean up after a container, and between two looks whether it has.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(10);
const CLEANUP_POLL: Duration = Duration::from_millis(20);
/// Processes and threads of a container.
const MAX_PROCESSES: i64 = 512;
/// As many as a kernel numbers unless it is told otherwise, which Podman takes for its own limit.
const MAX_PROCESSES_OF_A_USER: i64 = 32_768;
/// Open files of each of its processes.
const MAX_FILES: i64 = 16_384;
/// Log files of this many bytes, two of them.
const LOG_BYTES: &str = "1m";
/// What a container may do as root: what a shell, a package manager and sshd need, and nothing that reaches out of it.
const CAPABILITIES: [&str; 11] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
];
const DEFAULT_HTTP_PORT: u16 = 80;
const SSH_PORT: u16 = 22;

/// What an engine has under the name. Podman says `stopped` of what has ended until it has cleaned up after it, a word
/// that Docker does not have.
pub(super) async fn inspect(docker: &Docker, name: &str) -> Result<ContainerInspectResponse, Error> {
    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    loop {
        let options = None::<InspectContainerOptions>;
        match docker.inspect_container(name, options).await {
            Err(Error::JsonDataError { .. }) if Instant::now() < deadline => tokio::time::sleep(CLEANUP_POLL).await,
            found => return found,
        }
    }
}

pub(super) fn name(id: ContainerId) -> String {
    format!("edd-{id}")
}

pub(super) fn volume(id: ContainerId, index: usize) -> String {
    format!("edd-{id}-{index}")
}

/// The ports that an image says it listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    http: u16,
    ssh: Option<u16>,
}

impl Ports {
    /// 80 if it is exposed, or nothing but SSH is; else the lowest that is not SSH.
    pub(super) fn of(image: &ImageInspect) -> Self {
        let config = image.config.as_ref();
        let exposed = config.and_then(|config| config.exposed_ports.as_deref()).unwrap_or_default();
        let labels = config.and_then(|config| config.labels.as_ref());
        let ssh = labels.and_then(|labels| labels.get(SSH_LABEL)).and_then(|port| port.parse().ok());
        Self::from_exposed(exposed.iter().map(String::as_str), ssh.filter(|port| *port > 0))
    }

    fn from_exposed<'p>(exposed: impl Iterator<Item = &'p str>, ssh: Option<u16>) -> Self {
        let tcp = |port: &str| port.strip_suffix("/tcp").unwrap_or(port).parse::<u16>().ok();
        let mut ports: Vec<u16> = exposed.filter_map(tcp).collect();
        ports.sort_unstable();
        let ssh = ssh.or_else(|| ports.contains(&SSH_PORT).then_some(SSH_PORT));
        let others = || ports.iter().copied().filter(|port| Some(*port) != ssh);
        let http = others().find(|port| *port == DEFAULT_HTTP_PORT).or_else(|| others().next());
        Self { http: http.unwrap_or(DEFAULT_HTTP_PORT), ssh }
    }
}

pub(super) fn labels(spec: &Spec, installation: &str) -> HashMap<String, String> {
    HashMap::from([
        (LABEL.to_owned(), spec.id.to_string()),
        (INSTALLATION_LABEL.to_owned(), installation.to_owned()),
        (OWNER_LABEL.to_owned(), spec.owner.to_string()),
    ])
}

/// What a container is run by. All are set, because those that are not are taken over from the image.
pub(super) fn run_labels(spec: &Spec, ports: Ports, sshd: Option<&Sshd>) -> [(String, String); 5] {
    let ssh = sshd.zip(ports.ssh);
    let label = |name: &str, value: String| (name.to_owned(), value);
    [
        label(SPEC_LABEL, spec_text(spec)),
        label(HTTP_LABEL, ports.http.to_string()),
        label(SSH_LABEL, ssh.map(|(_, port)| port.to_string()).unwrap_or_default()),
        label(HOST_KEY_LABEL, ssh.map(|(sshd, _)| sshd.fingerprint(spec.id)).unwrap_or_default()),
        label(SSHD_LABEL, sshd_text(sshd)),
    ]
}

fn sshd_text(sshd: Option<&Sshd>) -> String {
    sshd.map(Sshd::digest).unwrap_or_default()
}

/// Finds what an installation has, or one container has of it.
pub(super) fn filter(id: Option<ContainerId>, installation: &str) -> HashMap<String, Vec<String>> {
    let container = id.map_or_else(|| LABEL.to_owned(), |id| format!("{LABEL}={id}"));
    HashMap::from([("label".to_owned(), vec![container, format!("{INSTALLATION_LABEL}={installation}")])])
}

/// What the engine is told to make.
pub(super) fn body(spec: &Spec, image: &str, network: &str, labels: HashMap<String, String>) -> ContainerCreateBody {
    let mounts = spec.mount_paths.iter().enumerate().map(|(index, path)| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume(spec.id, index)),
        target: Some(path.clone()),
        ..Mount::default()
    });
    let memory_bytes = i64::from(spec.memory_mb) * 1024 * 1024;
    let log = HashMap::from([("max-size".to_owned(), LOG_BYTES.to_owned()), ("max-file".to_owned(), "2".to_owned())]);
    ContainerCreateBody {
        hostname: Some(spec.id.to_string()),
        image: Some(image.to_owned()),
        env: Some(environment(spec)),
        labels: Some(labels),
        host_config: Some(HostConfig {
            memory: Some(memory_bytes),
            // As much as memory: no swap besides.
            memory_swap: Some(memory_bytes),
            nano_cpus: Some(i64::from(spec.cpu_millis) * 1_000_000),
            pids_limit: Some(MAX_PROCESSES),
            network_mode: Some(network.to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
            mounts: Some(mounts.collect()),
            ulimits: Some(vec![limit("nofile", MAX_FILES), limit("nproc", max_processes_of_a_user())]),
            // It reaps what nobody waits for, and hands signals on.
            init: Some(true),
            log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(log) }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn limit(name: &str, most: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) }
}

/// It counts what a user has in all containers; those of one container are limited by [`MAX_PROCESSES`]. Podman would
/// raise what it is not told, which not every root may.
fn max_processes_of_a_user() -> i64 {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum;
    own.and_then(|most| i64::try_from(most).ok())
        .map_or(MAX_PROCESSES_OF_A_USER, |most| most.min(MAX_PROCESSES_OF_A_USER))
}

fn environment(spec: &Spec) -> Vec<String> {
    let own = [("EDD_CONTAINER_ID", spec.id.as_str()), ("EDD_CONTAINER_NAME", &spec.name)];
    let wanted = spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    wanted.chain(own).map(|(name, value)| format!("{name}={value}")).collect()
}

fn spec_text(spec: &Spec) -> String {
    serde_json::to_string(spec).expect("a struct of numbers and texts")
}

pub(super) fn id_of(labels: &HashMap<String, String>) -> Option<ContainerId> {
    labels.get(LABEL)?.parse().ok()
}

fn labels_of(found: &ContainerInspectResponse) -> Option<&HashMap<String, String>> {
    found.config.as_ref()?.labels.as_ref()
}

pub(super) fn is_ours(found: &ContainerInspectResponse, id: ContainerId, installation: &str) -> bool {
    labels_of(found).is_some_and(|labels| are_of(labels, id, installation))
}

/// Whether what carries `labels` is of this container and installation. Podman's filters are satisfied with either.
pub(super) fn are_of(labels: &HashMap<String, String>, id: ContainerId, installation: &str) -> bool {
    id_of(labels) == Some(id) && labels.get(INSTALLATION_LABEL).is_some_and(|its| its == installation)
}

/// What it was made to be.
pub(super) fn spec(found: &ContainerInspectResponse) -> Option<Spec> {
    serde_json::from_str(labels_of(found)?.get(SPEC_LABEL)?).ok()
}

/// Whether it was made by this very spec and set-up, and has not run yet.
pub(super) fn is_fresh(found: &ContainerInspectResponse, spec: &Spec, sshd: Option<&Sshd>) -> bool {
    let status = found.state.as_ref().and_then(|state| state.status);
    let made_by = |label| labels_of(found).and_then(|labels| labels.get(label));
    status == Some(ContainerStateStatusEnum::CREATED)
        && made_by(SPEC_LABEL) == Some(&spec_text(spec))
        && made_by(SSHD_LABEL) == Some(&sshd_text(sshd))
}

/// The SSH server that it was made to have.
pub(super) fn ssh(found: &ContainerInspectResponse) -> Option<SshServer> {
    let label = |name| labels_of(found).and_then(|labels| labels.get(name)).filter(|value| !value.is_empty());
    Some(SshServer { port: label(SSH_LABEL)?.parse().ok()?, host_key: label(HOST_KEY_LABEL)?.clone() })
}

pub(super) fn observed(id: ContainerId, found: &ContainerInspectResponse) -> Observed {
    let port = |label| labels_of(found).and_then(|labels| labels.get(label)).and_then(|port| port.parse().ok());
    let phase = phase(found);
    let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    // It is in one alone.
    let endpoint = networks.and_then(|networks| networks.values().next());
    let address = endpoint.and_then(|endpoint| endpoint.ip_address.as_deref()).and_then(|ip| ip.parse().ok());
    Observed {
        id,
        address: address.filter(|_| matches!(phase, Phase::Running | Phase::Paused)),
        ssh: ssh(found).filter(|_| matches!(phase, Phase::Running | Phase::Paused)),
        phase,
        http_port: port(HTTP_LABEL).unwrap_or(DEFAULT_HTTP_PORT),
    }
}

fn phase(found: &ContainerInspectResponse) -> Phase {
    use ContainerStateStatusEnum as Status;
    let state = found.state.clone().unwrap_or_default();
    let code = state.exit_code.unwrap_or_default();
    match state.status {
        Some(Status::RUNNING | Status::RESTARTING) => Phase::Running,
        Some(Status::PAUSED) => Phase::Paused,
        Some(Status::EXITED | Status::DEAD) if state.oom_killed == Some(true) => {
            Phase::Failed("it ran out of memory".to_owned())
        }
        Some(Status::EXITED | Status::DEAD) => {
            let error = state.error.filter(|error| !error.is_empty()).map(|error| format!(": {error}"));
            Phase::Failed(format!("its main process ended with code {code}{}", error.unwrap_or_default()))
        }
        _ => Phase::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerState;

    use super::*;

    #[test]
    fn the_web_is_where_the_image_says() {
        let of = |ports: &[&str]| Ports::from_exposed(ports.iter().copied(), None);
        assert_eq!(of(&[]), Ports { http: 80, ssh: None });
        assert_eq!(of(&["22/tcp"]), Ports { http: 80, ssh: Some(22) });
        assert_eq!(of(&["9000/tcp", "3000/tcp", "53/udp"]), Ports { http: 3000, ssh: None });
        assert_eq!(of(&["22/tcp", "8080/tcp", "80/tcp"]), Ports { http: 80, ssh: Some(22) });
        let labelled = Ports::from_exposed(["2222/tcp", "3000/tcp"].into_iter(), Some(2222));
        assert_eq!(labelled, Ports { http: 3000, ssh: Some(2222) });
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_failure() {
        let phase = |status, code, oom_killed| {
            let state = ContainerState {
                status: Some(status),
                exit_code: Some(code),
                oom_killed: Some(oom_killed),
                ..ContainerState::default()
            };
            phase(&ContainerInspectResponse { state: Some(state), ..ContainerInspectResponse::default() })
        };
        use ContainerStateStatusEnum as Status;
        assert!(matches!(phase(Status::EXITED, 0, false), Phase::Failed(why) if why.contains("code 0")));
        assert!(matches!(phase(Status::EXITED, 1, false), Phase::Failed(why) if why.contains("code 1")));
        assert!(matches!(phase(Status::EXITED, 137, true), Phase::Failed(why) if why.contains("memory")));
        assert_eq!(phase(Status::CREATED, 0, false), Phase::Stopped);
        assert_eq!(phase(Status::RUNNING, 0, false), Phase::Running);
    }
}
