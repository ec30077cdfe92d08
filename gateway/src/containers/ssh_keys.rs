//! The SSH keys of all users, as far as logins need them: whose a key is. It changes key by key.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edd_events::compute_cache::ssh_keys;
use edd_events::projection::Entry;
use edd_proto::UserId;
use serde::{Deserialize, Serialize};

use crate::containers::Origin;
use crate::containers::watches::Watches;
use crate::router::{Router, Snapshot};
use crate::table::fingerprint::Fingerprint;
use crate::table::ssh_keys::Holder;

/// A key, as far as logins are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// compute's number.
    pub id: i64,
    pub owner: UserId,
    /// That of its last event.
    pub version: i64,
    pub fingerprint: Fingerprint,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    Is(KeyRecord),
    /// It was deleted. Nothing of a lower version brings it back.
    Gone {
        id: i64,
        version: i64,
    },
}

impl KeyChange {
    /// What a row of the projection says. None: the row is of no key, which nobody writes.
    pub fn of(entry: &Entry) -> Option<Self> {
        let Some(key) = ssh_keys::key(entry) else {
            return entry.key.parse().ok().map(|id| Self::Gone { id, version: entry.version });
        };
        let fingerprint = key.fingerprint.parse().ok()?;
        Some(Self::Is(KeyRecord { id: key.id, owner: key.owner, version: entry.version, fingerprint }))
    }

    pub fn id(&self) -> i64 {
        match self {
            Self::Is(record) => record.id,
            Self::Gone { id, .. } => *id,
        }
    }

    fn version(&self) -> i64 {
        match self {
            Self::Is(record) => record.version,
            Self::Gone { version, .. } => *version,
        }
    }
}

/// Cheap handle on the keys that are published.
#[derive(Clone, Debug)]
pub struct SshKeys {
    router: Router,
    watches: Watches,
    state: Arc<Mutex<State>>,
}

/// What is known besides what is published. Held while a change is published.
#[derive(Debug, Default)]
struct State {
    known: HashMap<i64, KeyRecord>,
    /// The versions at which keys were deleted, as many as the database has: what is told late brings none back.
    gone: HashMap<i64, i64>,
    /// Users who were deleted. Whatever compute still tells of their keys, they open nothing any more.
    deleted_users: HashSet<UserId>,
    /// Keys that the stream told of, with the place in it, until the database is known to have them.
    heard: HashMap<i64, u64>,
}

impl SshKeys {
    pub(super) fn new(router: Router, watches: Watches) -> Self {
        Self { router, watches, state: Arc::default() }
    }

    /// Publishes those of `changes` that are news, all at once. How many that were.
    pub fn apply(&self, changes: impl IntoIterator<Item = KeyChange>, origin: Origin) -> usize {
        let mut state = self.state();
        let news: Vec<KeyChange> = changes.into_iter().filter(|change| state.is_news(change, origin)).collect();
        if let Origin::Event(seq) = origin {
            state.heard.extend(news.iter().map(|change| (change.id(), seq)));
        }
        self.publish(state, &news)
    }

    /// Takes away what is not in `present`, which the database was found to have when all up to `covered` was in it.
    /// How many.
    pub fn retain(&self, present: &HashSet<i64>, covered: u64) -> usize {
        let mut state = self.state();
        state.heard.retain(|_, seq| *seq > covered);
        let absent = |record: &&KeyRecord| !present.contains(&record.id) && !state.heard.contains_key(&record.id);
        let absent: Vec<KeyRecord> = state.known.values().filter(absent).copied().collect();
        self.withdraw(state, &absent)
    }

    /// Nothing is opened by the keys of these users any more. How many keys that were.
    pub(super) fn delete_users(&self, users: &HashSet<UserId>) -> usize {
        let mut state = self.state();
        state.deleted_users.extend(users);
        let owned: Vec<KeyRecord> = state.known.values().filter(|it| users.contains(&it.owner)).copied().collect();
        self.withdraw(state, &owned)
    }

    /// The database has all that the stream told up to here.
    pub fn settle(&self, covered: u64) {
        self.state().heard.retain(|_, seq| *seq > covered);
    }

    /// What the stream told by its old numbers is not to be waited for.
    pub(super) fn forget_positions(&self) {
        self.state().heard.clear();
    }

    /// All keys that there are have been told once.
    pub fn set_complete(&self) {
        if !self.router.snapshot().ssh_keys.is_complete() {
            self.router.update(|snapshot| snapshot.ssh_keys.set_complete());
        }
    }

    /// Everything that is known, as it would have to be told to come to the same.
    pub(super) fn knowledge(&self) -> Vec<KeyChange> {
        let state = self.state();
        let gone = state.gone.iter().map(|(id, version)| KeyChange::Gone { id: *id, version: *version });
        gone.chain(state.known.values().copied().map(KeyChange::Is)).collect()
    }

    /// Takes keys away that nobody said were deleted.
    fn withdraw(&self, mut state: MutexGuard<'_, State>, keys: &[KeyRecord]) -> usize {
        if keys.is_empty() {
            return 0;
        }
        self.router.update(|snapshot| keys.iter().for_each(|key| state.withdraw(snapshot, key.id, &mut Vec::new())));
        drop(state);
        let told: Vec<Fingerprint> = keys.iter().map(|key| key.fingerprint).collect();
        self.watches.tell(&[], &told);
        keys.len()
    }

    fn publish(&self, mut state: MutexGuard<'_, State>, news: &[KeyChange]) -> usize {
        if news.is_empty() {
            return 0;
        }
        let mut told = Vec::with_capacity(news.len());
        self.router.update(|snapshot| news.iter().for_each(|change| state.set(snapshot, change, &mut told)));
        drop(state);
        self.watches.tell(&[], &told);
        news.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_news(&self, change: &KeyChange, origin: Origin) -> bool {
        if matches!(change, KeyChange::Is(record) if self.deleted_users.contains(&record.owner)) {
            return false;
        }
        if let Some(gone) = self.gone.get(&change.id()) {
            return change.version() > *gone;
        }
        let Some(known) = self.known.get(&change.id()) else { return true };
        let corrects = origin == Origin::Database && *change != KeyChange::Is(*known);
        change.version() > known.version || change.version() == known.version && corrects
    }

    /// Puts the key where it belongs, and the fingerprints that this concerns into `told`.
    fn set(&mut self, snapshot: &mut Snapshot, change: &KeyChange, told: &mut Vec<Fingerprint>) {
        self.withdraw(snapshot, change.id(), told);
        match change {
            KeyChange::Is(record) => {
                let holder = Holder { key_id: record.id, owner: record.owner };
                snapshot.ssh_keys.set(record.fingerprint, holder);
                self.known.insert(record.id, *record);
                self.gone.remove(&record.id);
                told.push(record.fingerprint);
            }
            KeyChange::Gone { id, version } => drop(self.gone.insert(*id, *version)),
        }
    }

    fn withdraw(&mut self, snapshot: &mut Snapshot, id: i64, told: &mut Vec<Fingerprint>) {
        if let Some(known) = self.known.remove(&id) {
            snapshot.ssh_keys.remove(&known.fingerprint, id);
            told.push(known.fingerprint);
        }
    }
}
