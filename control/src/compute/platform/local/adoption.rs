//! The beginning and the end of an edd: what an earlier one left runs on or is cleared away, and nothing stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use edd_proto::ContainerId;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cgroup::Cgroups;
use super::config::Config;
use super::home::{self, Ended, Home, Record, Run};
use super::image::Images;
use super::installation::Installation;
use super::network::{Bridge, Pool};
use super::process::{self, ProcessId};
use super::tier::Tier;
use super::{Local, WATCHED, blocking, broken, launch, locked};
use crate::compute::platform::PlatformError;

/// How long an edd that is about to end may keep its containers.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// Containers that are stopped at once when edd ends.
const STOPPED_AT_ONCE: usize = 64;

impl Local {
    /// Chooses the best tier that works here, and takes over what an earlier edd with the same directory left.
    pub async fn start(config: Config) -> Result<Self, PlatformError> {
        let failed = |error: io::Error| broken(format!("cannot use {}: {error}", config.data_dir.display()));
        home::private_dir(&config.data_dir).map_err(failed)?;
        let data_dir = config.data_dir.canonicalize().map_err(failed)?;
        let containers = data_dir.join("containers");
        home::private_dir(&containers).map_err(failed)?;
        let lock = home::lock(&containers.join("lock"), LOCK_TIMEOUT).await.map_err(failed)?;
        let lock =
            lock.ok_or_else(|| broken(format!("another edd runs the containers in {}", containers.display())))?;
        let inner = blocking(move || Installation::open(Config { data_dir, ..config }, lock)).await?;
        let inner = Arc::new(inner);
        inner.adopt().await?;
        Ok(Self(inner))
    }
}

impl Installation {
    fn open(config: Config, lock: File) -> Result<Self, PlatformError> {
        let digest = Sha256::digest(config.data_dir.as_os_str().as_encoded_bytes());
        let installation: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let (tier, bridge) = choose(&config, &installation, digest[4])?;
        let pool = bridge.as_ref().map_or_else(|| Pool::of_loopback(digest[4]), Pool::of_bridge);
        Ok(Self {
            tier,
            containers: config.data_dir.join("containers"),
            trash: config.data_dir.join("containers/trash"),
            images: Images::new(config.data_dir.join("images"), tier, &config),
            cgroups: (tier == Tier::Root).then(|| Cgroups::make(&installation)),
            bridge,
            pool,
            addresses: Mutex::new(BTreeMap::new()),
            locks: Mutex::new(HashMap::new()),
            changed: broadcast::channel(WATCHED).0,
            is_closing: AtomicBool::new(false),
            closed: CancellationToken::new(),
            config,
            _lock: lock,
        })
    }

    /// Looks through what is there: what runs is watched, what ended is cleared away.
    async fn adopt(self: &Arc<Self>) -> Result<(), PlatformError> {
        let mut used = BTreeSet::new();
        for (id, mut record) in self.records().map_err(broken)? {
            let home = self.home(id);
            match home.run().map_err(broken)?.filter(Run::is_alive) {
                Some(run) => {
                    self.watch(id, &run);
                    used.extend(home.plan().map_err(broken)?.and_then(|plan| plan.rootfs));
                    tracing::info!(container = %id, "runs on");
                }
                None => {
                    tidy(&home).await.map_err(broken)?;
                    // Another tier, or another network.
                    if !self.pool.contains(record.address) {
                        record.address = self.take_address(id)?;
                        home.save_record(&record).map_err(broken)?;
                    }
                }
            }
            locked(&self.addresses).insert(id, record.address);
        }
        let known: BTreeSet<ContainerId> = locked(&self.addresses).keys().copied().collect();
        if let Some(cgroups) = &self.cgroups {
            for id in cgroups.containers().difference(&known) {
                cgroups.of(id).remove().await.map_err(broken)?;
            }
        }
        let inner = self.clone();
        blocking(move || {
            home::remove_tree(&inner.trash).map_err(broken)?;
            inner.images.prune(&used).map_err(broken)
        })
        .await
    }

    fn records(&self) -> io::Result<BTreeMap<ContainerId, Record>> {
        let mut records = BTreeMap::new();
        for entry in std::fs::read_dir(&self.containers)? {
            let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match self.home(id).record() {
                Ok(record) => records.extend(record.map(|record| (id, record))),
                // It is no reason to leave all others alone.
                Err(error) => tracing::error!(container = %id, %error, "it is not looked after"),
            }
        }
        Ok(records)
    }
}

/// The best tier that works, or the one that is asked for.
fn choose(config: &Config, installation: &str, seed: u8) -> Result<(Tier, Option<Bridge>), PlatformError> {
    let candidates = config.tier.map_or(Tier::ALL.to_vec(), |tier| vec![tier]);
    let mut reasons = Vec::new();
    let dir = config.data_dir.join("containers/trial");
    for tier in candidates {
        let tried = tier
            .try_out(&dir)
            .and_then(|()| tier.has_network().then(|| Bridge::make(installation, config.network, seed)).transpose());
        home::remove_tree(&dir).map_err(broken)?;
        match tried {
            Ok(bridge) => {
                for reason in reasons {
                    tracing::info!("containers cannot have {reason}");
                }
                return Ok((tier, bridge));
            }
            Err(error) => reasons.push(format!("{}: {error}", tier.name())),
        }
    }
    Err(broken(format!("containers cannot have {}", reasons.join("; "))))
}

/// Clears away what is left of a container that nobody looks after any more.
pub(super) async fn tidy(home: &Home) -> io::Result<()> {
    let Some(run) = home.run()? else { return Ok(()) };
    if run.is_of_this_boot() {
        run.init.kill();
        if let Some(init) = run.init.open() {
            init.ended().await?;
        }
    }
    if let Some(plan) = home.plan()? {
        if plan.tier == Tier::Plain && run.is_of_this_boot() {
            kill_labelled(&plan.record.spec.id);
        }
        if let Some(cgroup) = &plan.cgroup {
            cgroup.remove().await?;
        }
        if let Some(bridge) = &plan.bridge {
            bridge.unlink(&plan.record.spec.id)?;
        }
    }
    home.save_ended(&Ended { failure: Some("it was killed from outside".to_owned()) })
}

/// Kills what a container without namespaces has left: it is known by its environment alone.
fn kill_labelled(id: &ContainerId) {
    let label = format!("{}={id}", launch::ID_VARIABLE);
    loop {
        let left = process::with_variable(&label);
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(ProcessId::kill);
    }
}

/// Stops every container, and takes back what the installation has of the machine.
pub(super) async fn end_all(inner: &Arc<Installation>, grace: Duration) {
    let ids: Vec<ContainerId> = locked(&inner.addresses).keys().copied().collect();
    let mut stopping = JoinSet::new();
    for id in ids {
        if stopping.len() == STOPPED_AT_ONCE {
            stopping.join_next().await;
        }
        let (inner, lock) = (inner.clone(), locked(&inner.locks).entry(id).or_default().clone());
        stopping.spawn(async move {
            let _alone = lock.lock().await;
            let runs = matches!(inner.home(id).run(), Ok(Some(_)));
            let ended = inner.end(id, grace).await;
            let written = ended.and_then(|()| match runs {
                true => inner.home(id).save_ended(&Ended { failure: None }).map_err(broken),
                false => Ok(()),
            });
            if let Err(error) = written {
                tracing::error!(container = %id, %error, "it is not stopped");
            }
        });
    }
    while stopping.join_next().await.is_some() {}
    if let Some(bridge) = &inner.bridge
        && let Err(error) = bridge.remove()
    {
        tracing::warn!(%error, "the containers' bridge stays");
    }
    if let Some(cgroups) = &inner.cgroups {
        cgroups.remove();
    }
}
