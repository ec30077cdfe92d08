//! The containers' part of what is published. It changes container by container.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edd_events::clock::Clock;
use edd_proto::{ContainerId, UserId};
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::containers::freshness::Freshness;
use crate::containers::keeper::Keeper;
use crate::containers::metrics::Metrics;
use crate::containers::presence::Presence;
use crate::containers::ssh_keys::{KeyChange, SshKeys};
use crate::containers::templates::Templates;
use crate::containers::wake::{Timing, Wakes};
use crate::containers::watches::Watches;
use crate::containers::{Change, Record};
use crate::ingress::Rules;
use crate::live::{Backend, Ledger, LedgerReader, Life, LiveRoute, Status};
use crate::metrics::Metrics as GatewayMetrics;
use crate::router::{Router, Snapshot};
use crate::table::containers::{ContainerTable, Zone};
use crate::table::ports::PortRule;

/// What containers are served with.
#[derive(Debug)]
pub struct Config<'a> {
    /// Where they are published.
    pub router: Router,
    /// Where their hosts are.
    pub zone: Zone,
    pub keeper: Arc<dyn Keeper>,
    pub metrics: &'a GatewayMetrics,
    /// Where the containers' own metrics go.
    pub registry: &'a Registry,
    pub clock: Arc<dyn Clock>,
    /// What the streams of a container have to come to an end when it stops.
    pub drain: Duration,
    pub timing: Timing,
}

/// Cheap handle on the containers that are published.
#[derive(Clone, Debug)]
pub struct Containers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    router: Router,
    metrics: Arc<Metrics>,
    freshness: Freshness,
    wakes: Wakes,
    presence: Presence,
    watches: Watches,
    ssh_keys: SshKeys,
    templates: Templates,
    /// What the streams of a container have to come to an end when it stops.
    drain: Duration,
    state: Mutex<State>,
}

/// What is known besides what is published. Held while a change is published.
#[derive(Debug, Default)]
struct State {
    /// The versions at which containers were deleted: what is told late must not bring one back, whose address may be
    /// another's by now. As many as the database has.
    gone: HashMap<ContainerId, i64>,
    rules: HashMap<ContainerId, Vec<PortRule>>,
    /// Users who were deleted. Whatever compute still tells of their containers, they are served no longer.
    deleted_users: HashSet<UserId>,
    /// Containers that the stream told of, with the place in it, until the database is known to have them.
    heard: HashMap<ContainerId, u64>,
    counts: [usize; Status::ALL.len()],
}

/// Where a change comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The stream, at this place. Of a version that is known it tells nothing new.
    Event(u64),
    /// The projection, which its owner may have corrected without another version.
    Database,
}

/// Everything that is known at one time.
pub(super) struct Knowledge {
    pub containers: ContainerTable<LiveRoute>,
    pub gone: Vec<(ContainerId, i64)>,
    pub rules: Vec<PortRule>,
    pub deleted_users: Vec<UserId>,
    pub keys: Vec<KeyChange>,
    /// There are no other keys.
    pub is_all_keys: bool,
}

/// What a change means for what goes on with a container.
pub(super) enum Ending {
    AtOnce(Arc<Life>),
    AfterDrain(Arc<Life>),
    /// It was put to sleep. Whoever is still at it came just before, waits for an answer, and wakes it.
    InSleep(Arc<Life>),
}

/// How long a request may take from its look at the routes until its container is known to be in use.
const VISIT_GRACE: Duration = Duration::from_millis(50);

impl Containers {
    /// No containers yet. The reader is for [`activity::Reporter`](super::activity::Reporter).
    ///
    /// # Errors
    /// The registry has metrics of containers already.
    pub fn new(config: Config<'_>) -> Result<(Self, LedgerReader), prometheus::Error> {
        let Config { router, zone, keeper, metrics, registry, clock, drain, timing } = config;
        let (ledger, reader) = Ledger::new();
        let templates = Templates::new(&zone, metrics, ledger);
        let metrics = Arc::new(Metrics::on(registry)?);
        router.update(|snapshot| snapshot.containers.set_zone(zone));
        let presence = Presence::new(Arc::clone(&keeper));
        let wakes = Wakes::new(router.clone(), keeper, Arc::clone(&metrics), timing);
        let watches = Watches::new(router.clone());
        let ssh_keys = SshKeys::new(router.clone(), watches.clone());
        let (freshness, state) = (Freshness::new(Arc::clone(&metrics), clock), Mutex::default());
        let shared = Shared { router, metrics, freshness, wakes, presence, watches, ssh_keys, templates, drain, state };
        Ok((Self(Arc::new(shared)), reader))
    }

    /// How new what is published is.
    pub fn freshness(&self) -> &Freshness {
        &self.0.freshness
    }

    /// Who wakes containers that sleep.
    pub fn wakes(&self) -> &Wakes {
        &self.0.wakes
    }

    /// Who tells compute of those who come to stay.
    pub fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// Who has to know at once when a container or a key changes.
    pub fn watches(&self) -> &Watches {
        &self.0.watches
    }

    /// The keys that open the containers.
    pub fn ssh_keys(&self) -> &SshKeys {
        &self.0.ssh_keys
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Where they are published.
    pub fn router(&self) -> &Router {
        &self.0.router
    }

    /// Looks names of containers up. Runs until dropped.
    pub async fn resolve(self) {
        self.0.templates.resolve().await;
    }

    /// Publishes those of `changes` that are news, all at once. How many that were.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>, origin: Origin) -> usize {
        let mut state = self.state();
        let now = self.0.router.snapshot();
        let news: Vec<Change> = changes.into_iter().filter(|change| state.is_news(&now, change, origin)).collect();
        drop(now);
        if news.is_empty() {
            return 0;
        }
        let told: Vec<ContainerId> = news.iter().map(Change::id).collect();
        if let Origin::Event(seq) = origin {
            state.heard.extend(told.iter().map(|id| (*id, seq)));
        }
        let mut ended = Vec::new();
        self.0.router.update(|snapshot| {
            for change in news {
                match change {
                    Change::Is(record) => state.set(snapshot, &self.0.templates, &record, &mut ended),
                    Change::Gone { id, version } => {
                        state.remove(snapshot, id, &mut ended);
                        state.gone.insert(id, version);
                    }
                }
            }
        });
        self.conclude(state, ended, &told);
        told.len()
    }

    /// Takes away what is not in `present`, which the database was found to have when all up to `covered` was in it.
    /// How many.
    pub fn retain(&self, present: &HashSet<ContainerId>, covered: u64) -> usize {
        let mut state = self.state();
        state.heard.retain(|_, seq| *seq > covered);
        let now = self.0.router.snapshot();
        let absent = now.containers.iter().map(|(id, _)| id);
        let absent: Vec<_> = absent.filter(|id| !present.contains(id) && !state.heard.contains_key(id)).collect();
        drop(now);
        self.remove_all(state, absent)
    }

    /// The database has all that the stream told up to here.
    pub fn settle(&self, covered: u64) {
        self.state().heard.retain(|_, seq| *seq > covered);
    }

    /// What the stream told by its old numbers is not to be waited for.
    pub fn forget_positions(&self) {
        self.state().heard.clear();
        self.0.ssh_keys.forget_positions();
    }

    /// All containers that there are have been told once.
    pub fn set_complete(&self) {
        if !self.0.router.snapshot().containers.is_complete() {
            self.0.router.update(|snapshot| snapshot.containers.set_complete());
        }
    }

    /// Serves nothing of these users any more and ends what goes on. How many containers that were.
    pub fn delete_users(&self, users: impl IntoIterator<Item = UserId>) -> usize {
        let mut state = self.state();
        let new: HashSet<UserId> = users.into_iter().filter(|user| state.deleted_users.insert(*user)).collect();
        if new.is_empty() {
            return 0;
        }
        let now = self.0.router.snapshot();
        let owned =
            now.containers.iter().filter(|(_, live)| live.backend().is_some_and(|it| new.contains(&it.owner())));
        let owned: Vec<ContainerId> = owned.map(|(id, _)| id).collect();
        drop(now);
        let removed = self.remove_all(state, owned);
        self.0.ssh_keys.delete_users(&new);
        removed
    }

    /// Sets what containers have on ports of the gateway, all at once; none takes it away. A rule of a container that is
    /// not known (yet) is kept and leads nowhere.
    pub fn set_ports(&self, changes: impl IntoIterator<Item = (u16, ContainerId, Option<PortRule>)>) {
        let mut state = self.state();
        self.0.router.update(|snapshot| {
            for (port, id, rule) in changes {
                state.set_rule(port, id, rule);
                let live = snapshot.containers.get(id).cloned();
                let live = live.zip(rule).and_then(|(live, rule)| self.0.templates.port(live.backend()?, &rule));
                snapshot.ports.set(port, id, rule.zip(live));
            }
        });
        self.conclude(state, Vec::new(), &[]);
    }

    /// Follows the rules until told to stop, or until nobody gives any more.
    pub async fn follow_ports(self, mut rules: watch::Receiver<Rules>, stop: CancellationToken) {
        // What was last known serves until somebody knows better.
        let mut known: Rules =
            self.state().rules().into_iter().map(|rule| ((rule.container, rule.port), rule)).collect();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = rules.changed() => if changed.is_err() { return },
            }
            let next = rules.borrow_and_update().clone();
            let changes: Vec<_> = known.diff(&next).map(changed_rule).collect();
            if !changes.is_empty() {
                self.set_ports(changes);
            }
            known = next;
        }
    }

    /// Everything that is known, as it would have to be told to come to the same.
    pub(super) fn knowledge(&self) -> Knowledge {
        // Before it is looked at which keys there are: there may be more of them then, and not fewer.
        let is_all_keys = self.0.router.snapshot().ssh_keys.is_complete();
        let (keys, state) = (self.0.ssh_keys.knowledge(), self.state());
        Knowledge {
            keys,
            is_all_keys,
            containers: self.0.router.snapshot().containers.clone(),
            gone: state.gone.iter().map(|(id, version)| (*id, *version)).collect(),
            rules: state.rules(),
            deleted_users: state.deleted_users.iter().copied().collect(),
        }
    }

    fn remove_all(&self, mut state: MutexGuard<'_, State>, ids: Vec<ContainerId>) -> usize {
        if ids.is_empty() {
            return 0;
        }
        let mut ended = Vec::new();
        self.0.router.update(|snapshot| ids.iter().for_each(|id| state.remove(snapshot, *id, &mut ended)));
        self.conclude(state, ended, &ids);
        ids.len()
    }

    /// What follows from a change once it is published.
    fn conclude(&self, state: MutexGuard<'_, State>, ended: Vec<Ending>, told: &[ContainerId]) {
        let snapshot = self.0.router.snapshot();
        self.0.metrics.set_containers(|status| state.counts[status as usize]);
        self.0.metrics.ports.set(i64::try_from(snapshot.ports.len()).unwrap_or(i64::MAX));
        drop(state);
        for ending in ended {
            match ending {
                Ending::AtOnce(life) => life.retired().cancel(),
                Ending::AfterDrain(life) => {
                    let drain = self.0.drain;
                    tokio::spawn(async move {
                        tokio::time::sleep(drain).await;
                        life.retired().cancel();
                    });
                }
                Ending::InSleep(life) => {
                    let wakes = self.0.wakes.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(VISIT_GRACE).await;
                        if life.is_in_use() {
                            wakes.wake(life.container(), Duration::ZERO).await;
                        }
                    });
                }
            }
        }
        self.0.wakes.tell(told);
        self.0.watches.tell(told, &[]);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to do about a difference between the rules that were and those that are.
fn changed_rule(
    difference: imbl::ordmap::DiffItem<'_, '_, (ContainerId, u16), PortRule>,
) -> (u16, ContainerId, Option<PortRule>) {
    use imbl::ordmap::DiffItem;
    match difference {
        DiffItem::Add((id, port), rule) | DiffItem::Update { new: ((id, port), rule), .. } => (*port, *id, Some(*rule)),
        DiffItem::Remove((id, port), _) => (*port, *id, None),
    }
}

impl State {
    fn rules(&self) -> Vec<PortRule> {
        self.rules.values().flatten().copied().collect()
    }

    fn set_rule(&mut self, port: u16, id: ContainerId, rule: Option<PortRule>) {
        let rules = self.rules.entry(id).or_default();
        rules.retain(|known| known.port != port);
        rules.extend(rule);
        if rules.is_empty() {
            self.rules.remove(&id);
        }
    }

    fn is_news(&self, now: &Snapshot, change: &Change, origin: Origin) -> bool {
        if matches!(change, Change::Is(record) if self.deleted_users.contains(&record.owner)) {
            return false;
        }
        let id = change.id();
        if let Some(gone) = self.gone.get(&id) {
            return change.version() > *gone;
        }
        let Some(live) = now.containers.get(id) else { return true };
        let known = live.backend().map_or(i64::MIN, Backend::version);
        let corrects = || match change {
            Change::Is(record) => Record::of(live).as_ref() != Some(record),
            Change::Gone { .. } => true,
        };
        change.version() > known || change.version() == known && origin == Origin::Database && corrects()
    }

    fn set(&mut self, snapshot: &mut Snapshot, templates: &Templates, record: &Record, ended: &mut Vec<Ending>) {
        let id = record.id;
        let old = snapshot.containers.get(id).cloned();
        let live = Arc::new(templates.host(record, old.as_ref().and_then(|live| live.backend()), ended));
        if let Some(old) = old.as_ref().and_then(|live| live.backend()) {
            self.counts[old.status() as usize] -= 1;
        }
        self.counts[record.status as usize] += 1;
        self.gone.remove(&id);
        for rule in self.rules.get(&id).into_iter().flatten() {
            let port = live.backend().and_then(|backend| templates.port(backend, rule));
            snapshot.ports.set(rule.port, id, port.map(|port| (*rule, port)));
        }
        snapshot.containers.set(id, Some(live));
    }

    fn remove(&mut self, snapshot: &mut Snapshot, id: ContainerId, ended: &mut Vec<Ending>) {
        let Some(backend) = snapshot.containers.get(id).and_then(|live| live.backend()) else { return };
        self.counts[backend.status() as usize] -= 1;
        ended.push(Ending::AtOnce(Arc::clone(backend.life())));
        snapshot.containers.set(id, None);
        for rule in self.rules.get(&id).into_iter().flatten() {
            snapshot.ports.set(rule.port, id, None);
        }
    }
}
