//! Containers on this very machine, without a runtime.
//!
//! ```text
//! edd ─▶ supervisor ─▶ first process ─▶ what the image starts, and sessions
//!        outside        within
//! ```
//!
//! edd starts a supervisor for each container, which outlives it ([`supervisor`]): it makes the control group and the
//! network link, starts the container's first process ([`init`]) in namespaces of its own, keeps the log and writes
//! down how it all ended. The first process makes the file tree ([`rootfs`]), gives up what root may do there
//! ([`privileges`]), starts the image's entry and runs sessions. All three are edd's own program ([`role`]). What is
//! known of a container is in its directory ([`home`]); what it has of the machine is either bound to its processes,
//! so that it goes with them, or carries the installation's name, so that it is found again.
//!
//! A container has no way out to other networks unless the machine's administrator makes one.

mod account;
mod adoption;
mod cgroup;
mod children;
mod config;
mod home;
mod image;
mod init;
mod installation;
mod launch;
mod log;
mod network;
mod page;
mod privileges;
mod process;
pub mod role;
mod rootfs;
mod session;
mod sessions;
mod signal;
mod supervisor;
mod tier;
mod wire;

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::ContainerId;
use tokio::sync::{broadcast, mpsc};

pub use self::config::{Config, Program};
pub use self::tier::Tier;

use self::cgroup::Cgroups;
use self::home::{Ended, Record};
use self::installation::Installation;
use super::{Capabilities, Exec, Image, LogQuery, Observed, Phase, Platform, PlatformError, Session, Spec};

/// Ends that a slow watcher may lag behind.
const WATCHED: usize = 256;
/// Log lines that wait for their reader.
const LOG_LINES: usize = 64;

/// The local platform.
#[derive(Clone, Debug)]
pub struct Local(Arc<Installation>);

impl Local {
    /// Runs `action` for one container, after what is already under way with it, and to its end even when the caller
    /// goes away: half a start is worse than one that nobody wanted any more.
    async fn alone<T, F>(
        &self,
        id: ContainerId,
        action: impl FnOnce(Arc<Installation>) -> F + Send,
    ) -> Result<T, PlatformError>
    where
        F: Future<Output = Result<T, PlatformError>> + Send + 'static,
        T: Send + 'static,
    {
        if self.0.is_closing.load(Ordering::Acquire) {
            return Err(PlatformError::Unavailable("edd is being stopped".to_owned()));
        }
        let lock = locked(&self.0.locks).entry(id).or_default().clone();
        let action = action(self.0.clone());
        let done = tokio::spawn(async move {
            let _alone = lock.lock_owned().await;
            action.await
        });
        done.await.map_err(|error| PlatformError::Unavailable(format!("a task of the platform failed: {error}")))?
    }

    /// Removes locks that nobody holds of containers that are gone.
    fn forget(inner: &Installation, id: ContainerId) {
        locked(&inner.addresses).remove(&id);
        locked(&inner.locks).retain(|known, lock| *known != id || Arc::strong_count(lock) > 2);
    }
}

#[async_trait]
impl Platform for Local {
    fn capabilities(&self) -> Capabilities {
        let cgroups = self.0.cgroups.as_ref();
        let limits_memory = cgroups.is_some_and(Cgroups::can_limit_memory);
        let limits_cpu = cgroups.is_some_and(Cgroups::can_limit_cpu);
        let isolation = match self.0.tier {
            Tier::Root if limits_memory && limits_cpu => "root namespaces with control groups",
            Tier::Root => "root namespaces, without all limits",
            Tier::User => "user namespaces on this machine's network, without limits",
            Tier::Plain => "none, plain child processes without limits",
        };
        Capabilities {
            platform: "local",
            isolation: isolation.to_owned(),
            can_pause: cgroups.is_some_and(Cgroups::can_freeze),
            limits_memory,
            limits_cpu,
        }
    }

    async fn images(&self) -> Result<Vec<Image>, PlatformError> {
        let inner = self.0.clone();
        blocking(move || inner.images.list().map_err(broken)).await
    }

    async fn ensure(&self, spec: &Spec) -> Result<(), PlatformError> {
        super::spec::check(spec)?;
        self.0.images.check(&spec.image)?;
        let (id, spec) = (spec.id, spec.clone());
        self.alone(id, move |inner| async move {
            let home = inner.home(id);
            match home.record().map_err(broken)? {
                Some(record) if record.spec == spec => Ok(()),
                Some(record) => home.save_record(&Record { spec, ..record }).map_err(broken),
                None => {
                    let address = inner.take_address(id)?;
                    home.make(&Record { spec, address }).map_err(broken)
                }
            }
        })
        .await
    }

    async fn start(&self, id: ContainerId) -> Result<Observed, PlatformError> {
        self.alone(id, move |inner| async move {
            inner.start(id).await?;
            inner.observed(id).map_err(broken)?.ok_or(PlatformError::NotFound(id))
        })
        .await
    }

    async fn stop(&self, id: ContainerId, grace: Duration) -> Result<(), PlatformError> {
        self.alone(id, move |inner| async move {
            inner.known(id)?;
            inner.end(id, grace).await?;
            inner.home(id).save_ended(&Ended { failure: None }).map_err(broken)
        })
        .await
    }

    async fn pause(&self, id: ContainerId) -> Result<(), PlatformError> {
        self.alone(id, move |inner| async move {
            inner.known(id)?;
            let home = inner.home(id);
            match inner.phase(&home).map_err(broken)?.0 {
                Phase::Paused => return Ok(()),
                Phase::Running => {}
                phase => return Err(PlatformError::WrongPhase(format!("{id} does not run: {}", words(&phase)))),
            }
            match home.plan().map_err(broken)?.and_then(|plan| plan.cgroup) {
                Some(cgroup) => cgroup.freeze(true).await.map_err(broken),
                None => Err(PlatformError::Impossible("this machine cannot pause containers".to_owned())),
            }
        })
        .await
    }

    async fn delete(&self, id: ContainerId) -> Result<(), PlatformError> {
        self.alone(id, move |inner| async move {
            let home = inner.home(id);
            if home.record().map_err(broken)?.is_none() {
                return Ok(());
            }
            inner.end(id, Duration::ZERO).await?;
            let trash = inner.trash.clone();
            blocking(move || home.remove(&trash).map_err(broken)).await?;
            Self::forget(&inner, id);
            Ok(())
        })
        .await
    }

    async fn observe(&self, id: ContainerId) -> Result<Option<Observed>, PlatformError> {
        self.0.observed(id).map_err(broken)
    }

    async fn list(&self) -> Result<Vec<Observed>, PlatformError> {
        let inner = self.0.clone();
        blocking(move || {
            let ids: Vec<ContainerId> = locked(&inner.addresses).keys().copied().collect();
            ids.into_iter().filter_map(|id| inner.observed(id).map_err(broken).transpose()).collect()
        })
        .await
    }

    fn watch(&self) -> broadcast::Receiver<ContainerId> {
        self.0.changed.subscribe()
    }

    async fn exec(&self, id: ContainerId, exec: Exec) -> Result<Session, PlatformError> {
        self.0.known(id)?;
        let home = self.0.home(id);
        match self.0.phase(&home).map_err(broken)? {
            (Phase::Running, _) => session::open(home.dir(), &exec).await,
            (phase, _) => Err(PlatformError::WrongPhase(format!("{id} does not run: {}", words(&phase)))),
        }
    }

    async fn logs(&self, id: ContainerId, query: LogQuery) -> Result<mpsc::Receiver<Bytes>, PlatformError> {
        self.0.known(id)?;
        let (home, (to, lines)) = (self.0.home(id), mpsc::channel(LOG_LINES));
        tokio::spawn(async move {
            let runs = || matches!(home.run(), Ok(Some(run)) if run.is_alive());
            if let Err(error) = log::send(home.dir(), query.tail, query.follow, runs, &to).await {
                tracing::warn!(container = %id, %error, "its log cannot be read");
            }
        });
        Ok(lines)
    }

    async fn shutdown(&self, grace: Duration) {
        self.0.is_closing.store(true, Ordering::Release);
        adoption::end_all(&self.0, grace).await;
    }
}

/// A phase that is not `Running`, in words.
fn words(phase: &Phase) -> String {
    match phase {
        Phase::Running => "it runs".to_owned(),
        Phase::Stopped => "it is stopped".to_owned(),
        Phase::Paused => "it is paused".to_owned(),
        Phase::Failed(reason) => reason.clone(),
    }
}

/// The machine did not do as it was told. It may the next time.
fn broken(error: impl std::fmt::Display) -> PlatformError {
    PlatformError::Unavailable(error.to_string())
}

/// A lock that is held for some lines without a panic in them.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what waits for the disk where that holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PlatformError> + Send + 'static,
) -> Result<T, PlatformError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| PlatformError::Unavailable(format!("a task of the platform failed: {error}")))?
}

#[cfg(test)]
mod tests;
