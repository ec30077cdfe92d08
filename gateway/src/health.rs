//! Whether the gateway should get traffic, and what an operator should look at.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::clock;

/// Shared by whoever has something to report.
#[derive(Clone, Debug, Default)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    draining: AtomicBool,
    routes: ArcSwap<RoutesHealth>,
    reporters: Mutex<Vec<Arc<dyn Reporter>>>,
}

/// A part of the process that has something to say in `/readyz?verbose`.
pub trait Reporter: fmt::Debug + Send + Sync {
    /// Its checks as they are now. Nothing but `Ok` or `Degraded`: the gateway serves without it.
    fn checks(&self) -> Vec<Check>;
}

/// The state of the routes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RoutesHealth {
    /// Where they come from.
    pub origin: String,
    /// Revision of the table that serves.
    pub revision: u64,
    pub routes: usize,
    /// When that table was loaded, RFC 3339.
    pub loaded_at: String,
    /// Why the last attempt to load changed nothing.
    pub rejected: Option<Rejected>,
}

/// A set of routes that was not taken.
#[derive(Clone, Debug, Serialize)]
pub struct Rejected {
    pub at: String,
    pub error: String,
}

/// One line of `/readyz?verbose`.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: Cow<'static, str>,
    pub state: CheckState,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    Ok,
    /// Serving, but an operator should look.
    Degraded,
    /// Not ready.
    Failed,
}

impl CheckState {
    /// How it stands at the beginning of a line.
    pub const fn mark(self) -> char {
        match self {
            Self::Ok => '+',
            Self::Degraded => '!',
            Self::Failed => '-',
        }
    }
}

impl Health {
    /// From now on `reporter` is asked, too.
    pub fn add(&self, reporter: Arc<dyn Reporter>) {
        self.reporters().push(reporter);
    }

    fn reporters(&self) -> MutexGuard<'_, Vec<Arc<dyn Reporter>>> {
        self.shared.reporters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the gateway is not ready.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        !self.shared.draining.load(Ordering::Acquire) && self.shared.routes.load().revision > 0
    }

    pub fn routes(&self) -> Arc<RoutesHealth> {
        self.shared.routes.load_full()
    }

    /// A table of `routes` routes from `origin` serves.
    pub fn routes_loaded(&self, origin: &str, revision: u64, routes: usize) {
        self.shared.routes.store(Arc::new(RoutesHealth {
            origin: origin.to_owned(),
            revision,
            routes,
            loaded_at: clock::rfc3339_now(),
            rejected: None,
        }));
    }

    /// An attempt to load routes changed nothing.
    pub fn routes_rejected(&self, error: String) {
        let mut routes = RoutesHealth::clone(&self.shared.routes.load());
        routes.rejected = Some(Rejected { at: clock::rfc3339_now(), error });
        self.shared.routes.store(Arc::new(routes));
    }

    /// The gateway's own checks, and what others report.
    pub fn checks(&self) -> Vec<Check> {
        let routes = self.shared.routes.load();
        let serving = format!(
            "revision {}, {} routes from {}, loaded {}",
            routes.revision, routes.routes, routes.origin, routes.loaded_at
        );
        let routes = match &routes.rejected {
            None => Check { name: "routes".into(), state: CheckState::Ok, detail: serving },
            Some(rejected) => Check {
                name: "routes".into(),
                state: CheckState::Degraded,
                detail: format!(
                    "a change was rejected at {}; still serving {serving}\n{}",
                    rejected.at, rejected.error
                ),
            },
        };
        let draining = self.shared.draining.load(Ordering::Acquire);
        let listeners = match draining {
            false => Check { name: "listeners".into(), state: CheckState::Ok, detail: "accepting".to_owned() },
            true => Check { name: "listeners".into(), state: CheckState::Failed, detail: "draining".to_owned() },
        };
        // Asked without the lock: a reporter may be slow.
        let reporters = self.reporters().clone();
        let others = reporters.iter().flat_map(|reporter| reporter.checks()).collect();
        [vec![listeners, routes], others].concat()
    }
}
