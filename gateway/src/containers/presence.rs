//! Who comes to stay in a container has compute know it at once: what is used is reported every few seconds otherwise,
//! and an idle container may fall asleep before that.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::containers::activity::{REPORT_EVERY, REPORT_TIMEOUT};
use crate::containers::keeper::Keeper;
use crate::live::Life;

/// Tells compute of who comes; clones share it.
#[derive(Clone, Debug)]
pub struct Presence {
    keeper: Arc<dyn Keeper>,
    /// What the times in lives are counted from.
    since: Instant,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The container stays awake as long as it is in use.
    Taken,
    /// It was being put to sleep, and is woken: it may be seen to sleep for a moment yet.
    Woken,
    /// Compute does not answer, and so puts nobody to sleep either; the next report tells again.
    Unheard,
}

impl Presence {
    pub(crate) fn new(keeper: Arc<dyn Keeper>) -> Self {
        Self { keeper, since: Instant::now() }
    }

    /// Tells that a container is in use, unless that was told a moment ago. Waits for compute to take it, for
    /// [`REPORT_TIMEOUT`] at most.
    pub async fn announce(&self, life: &Life) -> Announced {
        let now = self.since.elapsed();
        // The next report comes before this one is too old.
        if life.told().is_some_and(|told| now.saturating_sub(told) < REPORT_EVERY) {
            return Announced::Taken;
        }
        let id = life.container();
        match tokio::time::timeout(REPORT_TIMEOUT, self.keeper.active(&[id])).await {
            Ok(Ok(woken)) => {
                life.set_told(now);
                if woken.contains(&id) { Announced::Woken } else { Announced::Taken }
            }
            Ok(Err(error)) => {
                tracing::warn!(container = %id, %error, "compute was not told that somebody comes to a container");
                Announced::Unheard
            }
            Err(_) => {
                let timeout_s = REPORT_TIMEOUT.as_secs();
                tracing::warn!(container = %id, timeout_s, "compute did not take it that somebody comes to a container");
                Announced::Unheard
            }
        }
    }
}

/// How long after [`Announced::Woken`] a container may be seen to sleep.
pub const WAKES_WITHIN: Duration = Duration::from_secs(10);
