//! The keys that access tokens are read with: where they come from, and when they are asked for again.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use async_trait::async_trait;
use edd_events::clock::{Micros, micros};
use tokio::sync::Mutex;

use crate::access_token::KeySet;

/// A token with an unknown key makes the keys be loaded again, but not sooner than this after the last time.
pub const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// How long that may take.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(3);

/// Why keys could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys of access tokens cannot be loaded: {0}")]
pub struct LoadError(pub String);

/// Where the keys are: the auth service, in this process or over HTTP.
#[async_trait]
pub trait KeySource: Debug + Send + Sync {
    /// The keys as they are now. May be dropped after [`LOAD_TIMEOUT`].
    async fn load(&self) -> Result<KeySet, LoadError>;
}

/// The keys as they were loaded last.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) set: KeySet,
    /// Grows when the keys change, so that nothing is believed that was verified with a key which is gone.
    pub(super) generation: u64,
}

/// The keys, held for reading without a lock.
#[derive(Debug)]
pub struct Keys {
    source: Arc<dyn KeySource>,
    /// Keeps the keys over a restart during which the auth service is away.
    file: Option<PathBuf>,
    current: ArcSwap<Current>,
    last: Mutex<Option<Attempt>>,
}

#[derive(Debug)]
struct Attempt {
    at: Micros,
    outcome: Result<(), LoadError>,
}

impl Keys {
    /// The keys of `issuer` that `file` has, if there is one, until `source` is first asked: by the first token with
    /// another key, or by [`Keys::refresh`].
    pub async fn open(source: Arc<dyn KeySource>, issuer: &str, file: Option<PathBuf>) -> Self {
        let mut set = KeySet::new(issuer, []);
        if let Some(path) = &file {
            match tokio::fs::read(path).await.map(|json| KeySet::from_json(issuer, &json)) {
                Ok(Ok(kept)) => set = kept,
                Ok(Err(error)) => tracing::warn!(path = %path.display(), %error, "the kept keys are not used"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "the kept keys cannot be read"),
            }
        }
        let current = ArcSwap::from_pointee(Current { set, generation: 0 });
        Self { source, file, current, last: Mutex::new(None) }
    }

    pub(super) fn current(&self) -> Guard<Arc<Current>> {
        self.current.load()
    }

    /// Loads the keys again, unless that was done, or tried, within [`RELOAD_EVERY`] of `now`: the outcome of then.
    pub(super) async fn reload(&self, now: Micros) -> Result<(), LoadError> {
        let mut last = self.last.lock().await;
        match &*last {
            // A clock that was set back is no reason to wait.
            Some(attempt) if (0..micros(RELOAD_EVERY)).contains(&(now - attempt.at)) => attempt.outcome.clone(),
            _ => {
                let outcome = self.load().await;
                *last = Some(Attempt { at: now, outcome: outcome.clone() });
                outcome
            }
        }
    }

    /// Loads the keys: so that one which was withdrawn is not trusted for long. Those that are held stay if it fails.
    ///
    /// # Errors
    /// The source fails, or takes longer than [`LOAD_TIMEOUT`].
    pub async fn refresh(&self, now: Micros) -> Result<(), LoadError> {
        let mut last = self.last.lock().await;
        let outcome = self.load().await;
        *last = Some(Attempt { at: now, outcome: outcome.clone() });
        outcome
    }

    /// Only who holds `last` may call it.
    async fn load(&self) -> Result<(), LoadError> {
        let late = |_| LoadError(format!("no answer within {} s", LOAD_TIMEOUT.as_secs()));
        let set = tokio::time::timeout(LOAD_TIMEOUT, self.source.load()).await.map_err(late)??;
        let (json, current) = (set.to_json(), self.current.load_full());
        if json == current.set.to_json() && set.issuer() == current.set.issuer() {
            return Ok(());
        }
        self.current.store(Arc::new(Current { set, generation: current.generation + 1 }));
        if let Some(path) = &self.file
            && let Err(error) = write(path, &json).await
        {
            tracing::warn!(path = %path.display(), %error, "the keys are not kept for a restart");
        }
        Ok(())
    }
}

/// All of it or nothing, also when the process ends in between.
async fn write(path: &std::path::Path, json: &str) -> std::io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    tokio::fs::write(&unfinished, json).await?;
    tokio::fs::rename(&unfinished, path).await
}
