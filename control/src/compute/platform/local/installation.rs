//! What one edd has on this machine, and what each of its containers does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edd_proto::ContainerId;
use rustix::process::Signal;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::cgroup::Cgroups;
use super::config::Config;
use super::home::{Home, Record, Run};
use super::image::Images;
use super::network::{Bridge, Pool};
use super::tier::Tier;
use super::{adoption, broken, locked};
use crate::compute::platform::{Observed, Phase, PlatformError};

/// How long a supervisor may take once its container is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The containers of one data directory, and what they have of this machine.
#[derive(Debug)]
pub(super) struct Installation {
    pub(super) config: Config,
    pub(super) tier: Tier,
    /// One directory each.
    pub(super) containers: PathBuf,
    /// Containers that are being removed.
    pub(super) trash: PathBuf,
    pub(super) images: Images,
    pub(super) cgroups: Option<Cgroups>,
    pub(super) bridge: Option<Bridge>,
    pub(super) pool: Pool,
    /// All containers that there are.
    pub(super) addresses: Mutex<BTreeMap<ContainerId, Ipv4Addr>>,
    /// What changes a container holds its lock.
    pub(super) locks: Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>,
    pub(super) changed: broadcast::Sender<ContainerId>,
    pub(super) is_closing: AtomicBool,
    /// Ends whatever watches for us.
    pub(super) closed: CancellationToken,
    /// One edd at a time.
    pub(super) _lock: File,
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Installation {
    pub(super) fn home(&self, id: ContainerId) -> Home {
        Home::of(&self.containers, id)
    }

    pub(super) fn known(&self, id: ContainerId) -> Result<Record, PlatformError> {
        self.home(id).record().map_err(broken)?.ok_or(PlatformError::NotFound(id))
    }

    /// What a container does, by what is on disk and what runs.
    pub(super) fn phase(&self, home: &Home) -> io::Result<(Phase, Option<Run>)> {
        let Some(run) = home.run()? else {
            let ended = home.ended()?.and_then(|ended| ended.failure);
            return Ok((ended.map_or(Phase::Stopped, Phase::Failed), None));
        };
        if !run.is_alive() {
            // It writes down how it ended before it ends itself.
            let failure = match home.ended()? {
                Some(ended) => ended.failure,
                None => Some("it was killed from outside".to_owned()),
            };
            return Ok((failure.map_or(Phase::Stopped, Phase::Failed), None));
        }
        let cgroup = home.plan()?.and_then(|plan| plan.cgroup);
        if cgroup.is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false)) {
            return Ok((Phase::Paused, Some(run)));
        }
        Ok((if home.is_ready() { Phase::Running } else { Phase::Stopped }, Some(run)))
    }

    pub(super) fn observed(&self, id: ContainerId) -> io::Result<Option<Observed>> {
        let home = self.home(id);
        if home.record()?.is_none() {
            return Ok(None);
        }
        let (phase, run) = self.phase(&home)?;
        let run = run.filter(|_| matches!(phase, Phase::Running | Phase::Paused));
        Ok(Some(Observed {
            id,
            phase,
            address: run.as_ref().map(|run| run.address.into()),
            http_port: run.as_ref().map_or(80, |run| run.ports.http),
            ssh: run.and_then(|run| run.ports.sshd),
        }))
    }

    /// Tells watchers when a container ends.
    pub(super) fn watch(&self, id: ContainerId, run: &Run) {
        let (handle, changed, closed) = (run.supervisor.open(), self.changed.clone(), self.closed.clone());
        tokio::spawn(async move {
            if let Some(handle) = handle {
                tokio::select! {
                    ended = handle.ended() => if let Err(error) = ended {
                        tracing::error!(container = %id, %error, "its end cannot be waited for");
                    },
                    () = closed.cancelled() => return,
                }
            }
            // Without a watcher there is nobody to tell.
            let _ = changed.send(id);
        });
    }

    /// Ends a container's processes, and waits until nothing of it is left but its directory.
    pub(super) async fn end(&self, id: ContainerId, grace: Duration) -> Result<(), PlatformError> {
        let home = self.home(id);
        if let Some(run) = home.run().map_err(broken)?.filter(Run::is_alive) {
            if let Some(cgroup) = home.plan().map_err(broken)?.and_then(|plan| plan.cgroup)
                && cgroup.is_frozen().map_err(broken)?
            {
                cgroup.freeze(false).await.map_err(broken)?;
            }
            if let Some(supervisor) = run.supervisor.open() {
                supervisor.signal(Signal::TERM);
                if tokio::time::timeout(grace, supervisor.ended()).await.is_err() {
                    run.init.kill();
                }
                if tokio::time::timeout(END_TIMEOUT, supervisor.ended()).await.is_err() {
                    tracing::error!(container = %id, "its supervisor does not end, and is killed");
                    supervisor.signal(Signal::KILL);
                }
            }
        }
        adoption::tidy(&home).await.map_err(broken)
    }
    /// An address that no container has.
    pub(super) fn take_address(&self, id: ContainerId) -> Result<Ipv4Addr, PlatformError> {
        let mut addresses = locked(&self.addresses);
        if let Some(address) = addresses.get(&id) {
            return Ok(*address);
        }
        let taken: BTreeSet<Ipv4Addr> = addresses.values().copied().collect();
        let free = self.pool.free(&taken);
        let address = free.ok_or_else(|| PlatformError::Unavailable("all addresses are taken".to_owned()))?;
        addresses.insert(id, address);
        Ok(address)
    }
}
