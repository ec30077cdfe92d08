//! The published table: one writer swaps it, every request reads one snapshot.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::live::LiveRoute;
use crate::table::RouteTable;

/// The table that the data plane matches against.
pub type Table = RouteTable<LiveRoute>;

/// One published table.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub table: Table,
    /// Grows by one with each publication.
    pub revision: u64,
}

/// Cheap handle on the current [`Snapshot`].
#[derive(Clone, Debug)]
pub struct Router {
    current: Arc<ArcSwap<Snapshot>>,
    revisions: watch::Sender<u64>,
}

impl Default for Router {
    fn default() -> Self {
        Self { current: Arc::default(), revisions: watch::channel(0).0 }
    }
}

impl Router {
    /// The current snapshot. Take one per request and keep to it.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Makes `table` current and returns its revision.
    pub fn publish(&self, table: Table) -> u64 {
        let mut revision = 0;
        // Serialised by the watch channel's lock; readers never see it.
        self.revisions.send_modify(|current| {
            *current += 1;
            revision = *current;
            self.current.store(Arc::new(Snapshot { table, revision }));
        });
        revision
    }

    /// Follows the revision number.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }
}
