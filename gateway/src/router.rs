//! What is published: one writer at a time changes it, every request reads one snapshot.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::live::LiveRoute;
use crate::table::RouteTable;
use crate::table::containers::ContainerTable;
use crate::table::ports::PortTable;

/// The table of static routes that the data plane matches against.
pub type Table = RouteTable<LiveRoute>;

/// What is published at one time. A copy shares all that it does not change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Routes by host and path: the file's, those by API, those that are built in.
    pub table: Table,
    /// The containers' hosts.
    pub containers: ContainerTable<LiveRoute>,
    /// The containers' ports.
    pub ports: PortTable<LiveRoute>,
    /// Grows by one with each publication.
    pub revision: u64,
}

/// Cheap handle on the current [`Snapshot`].
#[derive(Clone, Debug)]
pub struct Router {
    current: Arc<ArcSwap<Snapshot>>,
    writing: Arc<Mutex<()>>,
    revisions: watch::Sender<u64>,
}

impl Default for Router {
    fn default() -> Self {
        Self { current: Arc::default(), writing: Arc::default(), revisions: watch::channel(0).0 }
    }
}

impl Router {
    /// The current snapshot. Take one per request and keep to it.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Publishes what `change` makes of the current snapshot, and returns its revision. Others who want to change it
    /// wait meanwhile, and readers do not: `change` may take its time but must not call this.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) -> u64 {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.current.load());
        change(&mut next);
        next.revision += 1;
        let revision = next.revision;
        self.current.store(Arc::new(next));
        self.revisions.send_replace(revision);
        drop(writing);
        revision
    }

    /// Follows the revision number.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }
}
