//! Containers of a Docker engine, or of Podman, which speaks the same API.
//!
//! ```text
//! edd-<id>           the container; made anew for each start, so that only its volumes outlive a stop
//! edd-<id>-<n>       its n-th volume
//! edd-<hash>         the installation's network: the gateway reaches every container, no container another
//! ```
//!
//! All of it carries labels of ours with the name of the installation, and nothing without them is touched. What a
//! container should be is kept in a label as well, so that this process may die at any point.

mod container;
mod image;
mod log;
mod network;
mod session;
mod sshd;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptionsBuilder, StopContainerOptionsBuilder,
};
use bytes::Bytes;
use edd_proto::ContainerId;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use self::container::Ports;
use super::sshd::Sshd;
use super::{Capabilities, Exec, Image, LogQuery, Observed, Phase, Platform, PlatformError, Session, Spec};

/// Longest wait for one answer of the engine, seconds.
const ANSWER_TIMEOUT_S: u64 = 120;
/// Changes that a slow watcher may fall behind by.
const WATCHED: usize = 1024;
/// How long a container that runs may take until it answers where its image says; then it counts as running all the
/// same, since that an image exposes a port does not make a program listen there.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a removal that another one has begun may take.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a container that starts, or goes.
const READY_POLL: Duration = Duration::from_millis(50);

/// A Docker engine.
#[derive(Clone)]
pub struct DockerPlatform {
    docker: Docker,
    engine: Arc<str>,
    /// Its id.
    network: Arc<str>,
    default_image: Arc<str>,
    /// One engine may serve several.
    installation: Arc<str>,
    /// None: SSH servers of images are left alone, and sessions are the way in.
    sshd: Option<Arc<Sshd>>,
    /// As wanted last, where the engine has something older.
    wanted: Arc<Mutex<HashMap<ContainerId, Spec>>>,
    changes: broadcast::Sender<ContainerId>,
}

impl fmt::Debug for DockerPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerPlatform").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl DockerPlatform {
    /// Finds the engine at the socket `path`, and makes the network. `default_image` is what a tenant gets who names none,
    /// `installation` a name that no other installation on this engine has, `sshd` how SSH servers of images that have
    /// one are set up.
    ///
    /// # Errors
    /// [`PlatformError::Unavailable`]: nobody answers there.
    pub async fn connect(
        path: &str,
        default_image: &str,
        installation: &str,
        sshd: Option<Sshd>,
    ) -> Result<Self, PlatformError> {
        let connect = async {
            let docker = Docker::connect_with_unix(path, ANSWER_TIMEOUT_S, bollard::API_DEFAULT_VERSION)?;
            let docker = docker.negotiate_version().await?;
            let version = docker.version().await?;
            Ok((docker, version))
        };
        let away = |error: Error| {
            PlatformError::Unavailable(format!("no Docker engine at {path}: {error}; set DOCKER_HOST, or start it"))
        };
        let (docker, version) = connect.await.map_err(away)?;
        let name = version.platform.map(|platform| platform.name).filter(|name| !name.is_empty());
        let engine = format!("{} {}", name.as_deref().unwrap_or("Docker"), version.version.unwrap_or_default());
        let network = network::ensure(&docker, installation).await?;
        let platform = Self {
            docker,
            network: network.into(),
            engine: engine.into(),
            default_image: default_image.into(),
            installation: installation.into(),
            sshd: sshd.map(Arc::new),
            wanted: Arc::default(),
            changes: broadcast::channel(WATCHED).0,
        };
        tokio::spawn(watch::follow(
            platform.docker.clone(),
            Arc::clone(&platform.installation),
            platform.changes.downgrade(),
        ));
        Ok(platform)
    }

    /// What the engine has under the name, if it is ours.
    async fn inspect(&self, id: ContainerId) -> Result<Option<ContainerInspectResponse>, PlatformError> {
        match container::inspect(&self.docker, &container::name(id)).await {
            Ok(found) if container::is_ours(&found, id, &self.installation) => Ok(Some(found)),
            Ok(_) => Err(PlatformError::Impossible(format!(
                "the engine has a container {} that is not of this installation; rename or remove it",
                container::name(id)
            ))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn ours(&self, id: ContainerId) -> Result<ContainerInspectResponse, PlatformError> {
        self.inspect(id).await?.ok_or(PlatformError::NotFound(id))
    }

    /// Makes the container, without starting it.
    async fn create(&self, spec: &Spec) -> Result<(), PlatformError> {
        let image = self.image(spec).await?;
        for index in 0..spec.mount_paths.len() {
            let volume = VolumeCreateRequest {
                name: Some(container::volume(spec.id, index)),
                labels: Some(container::labels(spec, &self.installation)),
                ..VolumeCreateRequest::default()
            };
            self.docker.create_volume(volume).await.map_err(unavailable)?;
        }
        let mut labels = container::labels(spec, &self.installation);
        labels.extend(container::run_labels(spec, Ports::of(&image), self.sshd.as_deref()));
        let body = container::body(spec, self.image_name(spec), &self.network, labels);
        let options = CreateContainerOptionsBuilder::new().name(&container::name(spec.id)).build();
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => Ok(()),
            // Another one was quicker; what it made is what this would have.
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) if status(&error) == Some(400) => Err(PlatformError::Impossible(message(&error))),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), PlatformError> {
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        loop {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            match self.docker.remove_container(name, Some(options)).await {
                Ok(()) => return Ok(()),
                Err(error) if status(&error) == Some(404) => return Ok(()),
                // Another one is removing it, or it is ending.
                Err(error) if status(&error) == Some(409) && Instant::now() < deadline => {
                    tokio::time::sleep(READY_POLL).await;
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
    }

    /// Waits until it answers, or has shown that it does not end at once.
    async fn ready(&self, id: ContainerId) -> Result<Observed, PlatformError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let observed = container::observed(id, &self.ours(id).await?);
            let (Phase::Running, Some(address)) = (&observed.phase, observed.address) else { return Ok(observed) };
            let answers = async |port: u16| {
                matches!(tokio::time::timeout(READY_POLL, TcpStream::connect((address, port))).await, Ok(Ok(_)))
            };
            let lets_in = match &observed.ssh {
                Some(ssh) => answers(ssh.port).await,
                None => true,
            };
            if (lets_in && answers(observed.http_port).await) || Instant::now() >= deadline {
                return Ok(observed);
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    fn wanted(&self, id: ContainerId) -> Option<Spec> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn want(&self, id: ContainerId, spec: Option<&Spec>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        match spec {
            Some(spec) => wanted.insert(id, spec.clone()),
            None => wanted.remove(&id),
        };
    }
}

#[async_trait]
impl Platform for DockerPlatform {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            platform: "docker",
            isolation: format!("containers of {}", self.engine),
            can_pause: true,
            limits_memory: true,
            limits_cpu: true,
        }
    }

    async fn images(&self) -> Result<Vec<Image>, PlatformError> {
        self.listed_images().await
    }

    async fn ensure(&self, spec: &Spec) -> Result<(), PlatformError> {
        super::spec::check(spec)?;
        self.want(spec.id, Some(spec));
        match self.inspect(spec.id).await? {
            None => self.create(spec).await,
            Some(_) => Ok(()),
        }
    }

    async fn start(&self, id: ContainerId) -> Result<Observed, PlatformError> {
        let found = self.inspect(id).await?;
        let kept = found.as_ref().and_then(container::spec);
        match found.as_ref().map(|found| container::observed(id, found).phase) {
            Some(Phase::Running) => return self.ready(id).await,
            Some(Phase::Paused) => {
                match self.docker.unpause_container(&container::name(id)).await {
                    Ok(()) => {}
                    // It is not paused any more.
                    Err(error) if status(&error) == Some(409) => {}
                    Err(error) => return Err(unavailable(error)),
                }
                return self.ready(id).await;
            }
            Some(Phase::Stopped | Phase::Failed(_)) | None => {}
        }
        let spec = self.wanted(id).or(kept).ok_or(PlatformError::NotFound(id))?;
        // What it wrote outside of its volumes does not come back, and neither does an older form of it.
        let sshd = self.sshd.as_deref();
        let is_fresh = found.as_ref().is_some_and(|found| container::is_fresh(found, &spec, sshd));
        if !is_fresh {
            if found.is_some() {
                self.remove(&container::name(id)).await?;
            }
            self.create(&spec).await?;
        }
        self.set_up_sshd(id).await?;
        let options = None::<bollard::query_parameters::StartContainerOptions>;
        match self.docker.start_container(&container::name(id), options).await {
            Ok(()) => self.ready(id).await,
            Err(error) if status(&error) == Some(304) => self.ready(id).await,
            Err(error) if status(&error) == Some(400) => Err(PlatformError::Impossible(message(&error))),
            Err(error) if status(&error) == Some(404) => Err(PlatformError::Unavailable(message(&error))),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn stop(&self, id: ContainerId, grace: Duration) -> Result<(), PlatformError> {
        let found = self.ours(id).await?;
        let name = container::name(id);
        if container::observed(id, &found).phase == Phase::Paused {
            // A frozen process hears no signal.
            if let Err(error) = self.docker.unpause_container(&name).await
                && status(&error) != Some(409)
            {
                return Err(unavailable(error));
            }
        }
        let grace_s = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(grace_s).build();
        match self.docker.stop_container(&name, Some(options)).await {
            Ok(()) => {}
            Err(error) if matches!(status(&error), Some(304 | 404)) => {}
            Err(error) => return Err(unavailable(error)),
        }
        // One that has ended looks the same whether it was told to or not. One that was never started is stopped.
        match self.wanted(id).or_else(|| container::spec(&found)) {
            Some(spec) if !container::is_fresh(&found, &spec, self.sshd.as_deref()) => {
                self.remove(&name).await?;
                self.create(&spec).await
            }
            _ => Ok(()),
        }
    }

    async fn pause(&self, id: ContainerId) -> Result<(), PlatformError> {
        let phase = container::observed(id, &self.ours(id).await?).phase;
        match phase {
            Phase::Paused => Ok(()),
            Phase::Running => self.docker.pause_container(&container::name(id)).await.map_err(unavailable),
            Phase::Stopped | Phase::Failed(_) => {
                Err(PlatformError::WrongPhase(format!("{id} does not run, so that it cannot be paused")))
            }
        }
    }

    async fn delete(&self, id: ContainerId) -> Result<(), PlatformError> {
        let found = match self.inspect(id).await {
            Ok(found) => found,
            Err(PlatformError::Impossible(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        if found.is_some() {
            self.remove(&container::name(id)).await?;
        }
        let filters = container::filter(Some(id), &self.installation);
        let options = bollard::query_parameters::ListVolumesOptionsBuilder::new().filters(&filters).build();
        let volumes = self.docker.list_volumes(Some(options)).await.map_err(unavailable)?;
        let volumes = volumes.volumes.unwrap_or_default().into_iter();
        for volume in volumes.filter(|volume| container::are_of(&volume.labels, id, &self.installation)) {
            let options = RemoveVolumeOptionsBuilder::new().force(true).build();
            match self.docker.remove_volume(&volume.name, Some(options)).await {
                Ok(()) => {}
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        self.want(id, None);
        Ok(())
    }

    async fn observe(&self, id: ContainerId) -> Result<Option<Observed>, PlatformError> {
        match self.inspect(id).await {
            Ok(found) => Ok(found.map(|found| container::observed(id, &found))),
            Err(PlatformError::Impossible(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self) -> Result<Vec<Observed>, PlatformError> {
        let filters = container::filter(None, &self.installation);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.docker.list_containers(Some(options)).await.map_err(unavailable)?;
        let mut listed = Vec::with_capacity(found.len());
        for id in found.iter().filter_map(|summary| container::id_of(summary.labels.as_ref()?)) {
            // One that goes while the list is read is not listed.
            listed.extend(self.observe(id).await?);
        }
        Ok(listed)
    }

    fn watch(&self) -> broadcast::Receiver<ContainerId> {
        self.changes.subscribe()
    }

    async fn exec(&self, id: ContainerId, exec: Exec) -> Result<Session, PlatformError> {
        if container::observed(id, &self.ours(id).await?).phase != Phase::Running {
            return Err(PlatformError::WrongPhase(format!("{id} does not run")));
        }
        session::open(&self.docker, &container::name(id), exec).await
    }

    async fn logs(&self, id: ContainerId, query: LogQuery) -> Result<mpsc::Receiver<Bytes>, PlatformError> {
        self.ours(id).await?;
        Ok(log::open(&self.docker, &container::name(id), query))
    }

    /// The engine's containers go on.
    async fn shutdown(&self, _: Duration) {}
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        error => error.to_string(),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature that `map_err` takes")]
fn unavailable(error: Error) -> PlatformError {
    PlatformError::Unavailable(format!("the Docker engine: {}", message(&error)))
}

#[cfg(test)]
mod tests;
