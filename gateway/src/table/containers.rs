//! The containers' hosts, `<id>.compute.<base domain>`: id → route. Immutable like the table of hosts, and changed like
//! it: one container's change copies a path of the map and shares the rest.

use std::sync::Arc;

use edd_proto::ContainerId;
use imbl::shared_ptr::DefaultSharedPtr;

use crate::route::{HostName, RouteError};

type IdMap<T> = imbl::GenericHashMap<ContainerId, Arc<T>, foldhash::fast::RandomState, DefaultSharedPtr>;

/// The label between a container's id and the base domain.
const LABEL: &str = "compute";

/// The hosts below which containers live: `compute.<base domain>`, compared as hosts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(HostName);

impl Zone {
    /// The zone of a base domain.
    ///
    /// # Errors
    /// The domain is too long.
    pub fn of(base: &HostName) -> Result<Self, RouteError> {
        HostName::parse(&format!("{LABEL}.{base}")).map(Self)
    }

    pub fn name(&self) -> &HostName {
        &self.0
    }

    /// What stands before the zone in `host`, normalized; none for a host that is not in it.
    pub fn label<'h>(&self, host: &'h str) -> Option<&'h str> {
        host.strip_suffix(self.0.as_str())?.strip_suffix('.').filter(|label| !label.is_empty())
    }

    /// The host name of a container.
    pub fn host(&self, id: ContainerId) -> String {
        format!("{id}.{}", self.0)
    }
}

/// An immutable set of containers by id.
#[derive(Debug)]
pub struct ContainerTable<T> {
    zone: Option<Zone>,
    by_id: IdMap<T>,
    is_complete: bool,
}

/// Who answers for a host, as far as containers are concerned.
#[derive(Debug, PartialEq, Eq)]
pub enum ContainerMatch<'a, T> {
    /// The host is none of theirs.
    Elsewhere,
    Container(&'a Arc<T>),
    /// The host is theirs, and there is no such container.
    Unknown,
    /// The host is theirs, and nobody has told yet which containers there are.
    NotYetKnown,
}

impl<T> Clone for ContainerTable<T> {
    /// Shares everything with the original.
    fn clone(&self) -> Self {
        Self { zone: self.zone.clone(), by_id: self.by_id.clone(), is_complete: self.is_complete }
    }
}

impl<T> Default for ContainerTable<T> {
    /// No containers, and no hosts for any.
    fn default() -> Self {
        Self { zone: None, by_id: IdMap::default(), is_complete: false }
    }
}

impl<T> ContainerTable<T> {
    /// Answers for the hosts of `zone`.
    pub fn set_zone(&mut self, zone: Zone) {
        self.zone = Some(zone);
    }

    pub fn zone(&self) -> Option<&Zone> {
        self.zone.as_ref()
    }

    /// All containers have been told once: from now on, what is not here does not exist.
    pub fn set_complete(&mut self) {
        self.is_complete = true;
    }

    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Sets the route of a container; none takes it away. Costs O(log n).
    pub fn set(&mut self, id: ContainerId, route: Option<Arc<T>>) {
        match route {
            Some(route) => drop(self.by_id.insert(id, route)),
            None => drop(self.by_id.remove(&id)),
        }
    }

    pub fn get(&self, id: ContainerId) -> Option<&Arc<T>> {
        self.by_id.get(&id)
    }

    /// Who takes a request for `host`, as [`normalize_host`](super::normalize_host) returns it.
    pub fn match_host(&self, host: &str) -> ContainerMatch<'_, T> {
        let Some(label) = self.zone.as_ref().and_then(|zone| zone.label(host)) else {
            return ContainerMatch::Elsewhere;
        };
        match label.parse().ok().and_then(|id| self.get(id)) {
            Some(route) => ContainerMatch::Container(route),
            None if self.is_complete => ContainerMatch::Unknown,
            None => ContainerMatch::NotYetKnown,
        }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Every container, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (ContainerId, &Arc<T>)> {
        self.by_id.iter().map(|(id, route)| (*id, route))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ids: &[&str]) -> ContainerTable<String> {
        let mut table = ContainerTable::default();
        table.set_zone(Zone::of(&HostName::parse("cloud.localhost").unwrap()).unwrap());
        for id in ids {
            table.set(id.parse().unwrap(), Some(Arc::new((*id).to_owned())));
        }
        table
    }

    #[test]
    fn a_container_answers_under_its_own_host_alone() {
        let mut table = table(&["abcdefghij"]);
        let found = ContainerMatch::Container(table.get("abcdefghij".parse().unwrap()).unwrap());
        assert_eq!(table.match_host("abcdefghij.compute.cloud.localhost"), found);
        for host in ["abcdefghij.compute.example.com", "abcdefghij.cloud.localhost", "compute.cloud.localhost", ""] {
            assert_eq!(table.match_host(host), ContainerMatch::Elsewhere, "{host}");
        }
        let no_container = ["bbcdefghij", "x", "abcdefghij0", "a.abcdefghij", "abcdefghi_"]
            .map(|id| format!("{id}.compute.cloud.localhost"));
        for host in &no_container {
            assert_eq!(table.match_host(host), ContainerMatch::NotYetKnown, "{host}");
        }
        table.set_complete();
        for host in &no_container {
            assert_eq!(table.match_host(host), ContainerMatch::Unknown, "{host}");
        }
        assert_eq!(table.match_host("evilcompute.cloud.localhost"), ContainerMatch::Elsewhere);
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let before = table(&["abcdefghij", "bbcdefghij"]);
        let mut after = before.clone();
        after.set("abcdefghij".parse().unwrap(), None);
        after.set("cbcdefghij".parse().unwrap(), Some(Arc::default()));
        assert_eq!((before.len(), after.len()), (2, 2));
        assert!(before.get("abcdefghij".parse().unwrap()).is_some());
        assert!(after.get("abcdefghij".parse().unwrap()).is_none());
    }
}
