//! Who has to know at once when one container, or one SSH key, is no longer what it was.
//!
//! A session that was let in yesterday lasts as long as what let it in. Looking at each again with every change would
//! cost the product of both; here a change meets those alone that it may concern.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edd_proto::ContainerId;

use crate::router::{Router, Snapshot};
use crate::table::fingerprint::Fingerprint;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// None: no container in particular.
    pub container: Option<ContainerId>,
    pub key: Fingerprint,
}

/// Looks at what is published; false: it has seen enough. Called under a lock that [`Watch`] takes too.
type Look = Box<dyn FnMut(&Snapshot) -> bool + Send>;

/// Cheap handle on all that is watched. Bounded by who watches: sessions are counted.
#[derive(Clone, Debug)]
pub struct Watches {
    router: Router,
    index: Arc<Mutex<Index>>,
}

#[derive(Default)]
struct Index {
    next: u64,
    watchers: HashMap<u64, Watcher>,
    by_container: HashMap<ContainerId, HashSet<u64>>,
    by_key: HashMap<Fingerprint, HashSet<u64>>,
}

struct Watcher {
    subject: Subject,
    look: Look,
}

/// Ends the watch when it is dropped.
#[derive(Debug)]
pub struct Watch {
    watches: Watches,
    number: u64,
}

impl Watches {
    pub(super) fn new(router: Router) -> Self {
        Self { router, index: Arc::default() }
    }

    /// Calls `look` now, and whenever the subject has changed, until it says that it has seen enough. It has to be
    /// quick, and must not drop a [`Watch`].
    #[must_use]
    pub fn watch(&self, subject: Subject, look: impl FnMut(&Snapshot) -> bool + Send + 'static) -> Watch {
        let mut index = self.index();
        let number = index.add(subject, Box::new(look));
        // What changed since it was decided to watch has told nobody.
        index.look(number, &self.router.snapshot());
        Watch { watches: self.clone(), number }
    }

    /// These were changed in what is published.
    pub(super) fn tell(&self, containers: &[ContainerId], keys: &[Fingerprint]) {
        let mut index = self.index();
        if index.watchers.is_empty() {
            return;
        }
        let mut told: HashSet<u64> = HashSet::new();
        told.extend(containers.iter().filter_map(|id| index.by_container.get(id)).flatten());
        told.extend(keys.iter().filter_map(|key| index.by_key.get(key)).flatten());
        let snapshot = self.router.snapshot();
        told.into_iter().for_each(|number| index.look(number, &snapshot));
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.index().remove(self.number);
    }
}

impl Index {
    fn add(&mut self, subject: Subject, look: Look) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(id) = subject.container {
            self.by_container.entry(id).or_default().insert(number);
        }
        self.by_key.entry(subject.key).or_default().insert(number);
        self.watchers.insert(number, Watcher { subject, look });
        number
    }

    fn look(&mut self, number: u64, snapshot: &Snapshot) {
        if self.watchers.get_mut(&number).is_some_and(|watcher| !(watcher.look)(snapshot)) {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(Watcher { subject, .. }) = self.watchers.remove(&number) else { return };
        if let Some(id) = subject.container {
            leave(&mut self.by_container, id, number);
        }
        leave(&mut self.by_key, subject.key, number);
    }
}

fn leave<K: Eq + Hash>(groups: &mut HashMap<K, HashSet<u64>>, key: K, number: u64) {
    if let Some(group) = groups.get_mut(&key) {
        group.remove(&number);
        if group.is_empty() {
            groups.remove(&key);
        }
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("watchers", &self.watchers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn subject(container: Option<&str>, key: u8) -> Subject {
        let hash = format!("SHA256:{}", "A".repeat(42) + if key == 1 { "A" } else { "E" });
        Subject { container: container.map(|id| id.parse().unwrap()), key: hash.parse().unwrap() }
    }

    #[test]
    fn who_watches_is_told_of_its_subject_alone_and_until_it_has_seen_enough() {
        let watches = Watches::new(Router::default());
        let looks = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let watch = |index: usize, subject, enough: usize| {
            let looks = Arc::clone(&looks);
            watches.watch(subject, move |_| looks[index].fetch_add(1, Ordering::Relaxed) + 1 < enough)
        };
        let seen = || [0, 1, 2].map(|index| looks[index].load(Ordering::Relaxed));
        let both = watch(0, subject(Some("abcdefghij"), 1), 9);
        let _other = watch(1, subject(Some("bbcdefghij"), 2), 9);
        let _key = watch(2, subject(None, 1), 2);
        assert_eq!(seen(), [1, 1, 1], "each looks at once");
        let (container, key) = ("abcdefghij".parse().unwrap(), subject(None, 1).key);
        watches.tell(&[container], &[]);
        assert_eq!(seen(), [2, 1, 1]);
        watches.tell(&[container], &[key]);
        assert_eq!(seen(), [3, 1, 2], "once, whatever of it changed");
        watches.tell(&[], &[key]);
        assert_eq!(seen(), [4, 1, 2], "the third has seen enough");
        drop(both);
        watches.tell(&[container], &[key]);
        assert_eq!(seen(), [4, 1, 2]);
        let index = watches.index();
        assert_eq!((index.watchers.len(), index.by_container.len(), index.by_key.len()), (1, 1, 1));
    }
}
