//! What is published: one writer at a time changes it, every request reads one snapshot.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::live::{Hop, LiveRoute};
use crate::table::containers::{ContainerMatch, ContainerTable};
use crate::table::ports::PortTable;
use crate::table::ssh_keys::SshKeyTable;
use crate::table::{Explanation, RouteTable, Winner};

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
    /// The SSH keys of all users.
    pub ssh_keys: SshKeyTable,
    /// Grows by one with each publication.
    pub revision: u64,
}

impl Snapshot {
    /// Says which route takes a request, and why others do not.
    ///
    /// `host` and `path` as [`match_http`](RouteTable::match_http) has them.
    pub fn explain(&self, host: &str, path: &str) -> Explanation {
        let is_theirs = self.containers.zone().is_some_and(|zone| {
            zone.label(host).is_some() && !self.table.has_wildcard_within(host, zone.name().as_str())
        });
        let live = match self.containers.match_host(host) {
            _ if self.table.has_host(host) => return self.table.explain(host, path),
            ContainerMatch::Container(live) => Some(live),
            _ if is_theirs => None,
            _ => return self.table.explain(host, path),
        };
        let winner = live.and_then(|live| live.backend().map(|backend| (live, backend)));
        let winner = winner.map(|(live, backend)| Winner {
            route: live.route.id.to_string(),
            host: host.to_owned(),
            path: live.route.path.to_string(),
            action: format!("container {}, {}{}", backend.container(), backend.status().as_str(), at(backend.hop())),
            upstream_path: path.to_owned(),
        });
        let (losers, other_hosts) = (Vec::new(), self.table.len());
        Explanation { host: host.to_owned(), path: path.to_owned(), winner, losers, other_hosts }
    }
}

fn at(hop: Option<Hop>) -> String {
    hop.map_or_else(String::new, |hop| format!(", at {hop}"))
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
