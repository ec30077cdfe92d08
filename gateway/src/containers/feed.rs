//! Keeps the containers, and the SSH keys that open them, in memory as compute tells of them.
//!
//! Why none is missed: the database has all up to the position that its projections note, which is read before the
//! rows. The tail begins after it. Whenever events may have been lost on either way, or the projection was filled from
//! its owner, all rows are read again. Versions decide whose word counts, so the order of all this does not matter.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use edd_events::bus::Bus;
use edd_events::clock::Micros;
use edd_events::compute_cache::containers::{self, Containers as ProjectedContainers};
use edd_events::compute_cache::ssh_keys::{self, SshKeys as ProjectedKeys};
use edd_events::consumer::Failure;
use edd_events::database::Database;
use edd_events::message::Message;
use edd_events::projection::{self, Entry, Key, Projection, Status, Table};
use edd_events::tail::{Follower, Mark, Tail};
use edd_events::user_cache;
use edd_proto::{ContainerId, EventKind, Stream, UserId};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::containers::store::{self, StoreError};
use crate::containers::{Change, Containers, KeyChange, LastKnown, Origin};

/// Rows read in one go.
const PAGE_ROWS: u32 = 5000;
/// Between two looks whether the projection was filled anew.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pause after a failure, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The events of containers and keys.
const COMPUTE: &[&str] = &["compute.container.>", "compute.sshkey.>"];
/// The events by which users go.
const USERS: &[&str] = &["auth.user.*.deleted"];

/// Why what is known may not be all.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("the database is away")]
    NoDatabase,
    #[error("the database cannot be read: {0}")]
    Database(#[from] StoreError),
}

/// One process's.
#[derive(Debug)]
pub struct Feed {
    containers: Containers,
    bus: Arc<dyn Bus>,
    /// None as long as it is not there.
    database: watch::Receiver<Option<Database>>,
    /// There is an owner who fills the projection; otherwise events are all there is.
    has_owner: bool,
    loaded: Option<Loaded>,
}

/// What of the database is in memory.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    /// Of the projection that lags behind.
    compute: Mark,
    users: Mark,
    containers: Filled,
    ssh_keys: Filled,
}

/// When a projection was last filled, and whether it is complete.
type Filled = (Option<Micros>, bool);

/// What the database says of its projections.
#[derive(Debug)]
struct Projections {
    containers: Option<Status>,
    ssh_keys: Option<Status>,
    users: Option<Status>,
}

impl Projections {
    async fn of(database: &Database) -> Result<Self, StoreError> {
        let all = projection::list(database).await?;
        let of = |name: &str| all.iter().find(|status| status.name == name).cloned();
        let (containers, ssh_keys) = (of(containers::SHAPE.name), of(ssh_keys::SHAPE.name));
        Ok(Self { containers, ssh_keys, users: of(user_cache::SHAPE.name) })
    }

    fn loaded(&self) -> Loaded {
        let (containers, ssh_keys) = (self.containers.as_ref(), self.ssh_keys.as_ref());
        Loaded {
            compute: earlier(mark(containers), mark(ssh_keys)),
            users: mark(self.users.as_ref()),
            containers: filled(containers),
            ssh_keys: filled(ssh_keys),
        }
    }
}

impl Feed {
    /// One that knows nothing yet. `has_owner` says whether somebody fills the projection from compute.
    pub fn new(
        containers: Containers,
        bus: Arc<dyn Bus>,
        database: watch::Receiver<Option<Database>>,
        has_owner: bool,
    ) -> Self {
        Self { containers, bus, database, has_owner, loaded: None }
    }

    /// Publishes what was last known, so that the first request finds it: from the database if it is there, and
    /// otherwise from `file`, if there is one.
    pub async fn prepare(&mut self, file: Option<&LastKnown>) {
        let database = self.database.borrow().clone();
        if let Some(database) = database {
            match self.load(&database).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "the containers cannot be read from the database yet"),
            }
        }
        let Some(file) = file else { return };
        match file.restore(&self.containers).await {
            Ok(true) => tracing::warn!("serving the containers that were last known, from a file"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the containers that were last known cannot be read"),
        }
    }

    /// Keeps up until told to stop. Who is away is waited for.
    pub async fn run(self, stop: CancellationToken) {
        let nowhere = Mark { epoch: None, seq: 0 };
        // Without a position all of the stream is told, which harms nobody.
        let marks = self.loaded.map_or((nowhere, nowhere), |loaded| (loaded.compute, loaded.users));
        let gap = Arc::new(Gap::default());
        let (containers, bus) = (self.containers.clone(), self.bus.clone());
        let listener = Listener { containers: containers.clone(), gap: Arc::clone(&gap) };
        let of_compute = Tail::new(bus.clone(), &Stream::COMPUTE, COMPUTE, marks.0, listener);
        let of_users =
            Tail::new(bus, &Stream::AUTH, USERS, marks.1, UserListener { containers, gap: Arc::clone(&gap) });
        tokio::join!(of_compute.run(stop.clone()), of_users.run(stop.clone()), self.keep(gap, stop));
    }

    async fn keep(mut self, gap: Arc<Gap>, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            if gap.is_open.swap(false, Ordering::AcqRel) {
                self.loaded = None;
            }
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.look() => outcome,
            };
            let wait = if outcome.is_ok() { LOOK_EVERY } else { pause };
            pause = if outcome.is_ok() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            match outcome {
                Ok(()) => self.containers.freshness().recovered(),
                Err(error) => {
                    tracing::warn!(%error, "containers may be out of date; looking again");
                    self.containers.freshness().failed(error.to_string());
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = gap.opened.notified() => {}
                // Nobody may be left who would put another one there.
                Ok(()) = self.database.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads all again if the database has more than events tell.
    async fn look(&mut self) -> Result<(), FeedError> {
        let database = self.database.borrow().clone().ok_or(FeedError::NoDatabase)?;
        let now = Projections::of(&database).await?;
        let filled = |loaded: Loaded| (loaded.containers, loaded.ssh_keys);
        if self.loaded.map(filled) != Some(filled(now.loaded())) {
            return Ok(self.load(&database).await?);
        }
        if let Some(covered) = self.covered(now.containers.as_ref()).await {
            self.containers.settle(covered);
        }
        if let Some(covered) = self.covered(now.ssh_keys.as_ref()).await {
            self.containers.ssh_keys().settle(covered);
        }
        Ok(())
    }

    /// Reads everything that the database has.
    async fn load(&mut self, database: &Database) -> Result<(), StoreError> {
        // Before the rows, of which there may be more by then.
        let then = Projections::of(database).await?;
        let covered = (self.covered(then.containers.as_ref()).await, self.covered(then.ssh_keys.as_ref()).await);
        self.load_deleted_users(database).await?;
        // Keys first: a login by a key that is gone must not find a container.
        let keys = self.load_keys(database).await?;
        if self.is_all(then.ssh_keys.as_ref()) {
            self.containers.ssh_keys().retain(&keys, covered.1.unwrap_or_default());
            self.containers.ssh_keys().set_complete();
        }
        let present = self.load_containers(database).await?;
        let is_ready = self.is_all(then.containers.as_ref());
        if is_ready {
            self.containers.retain(&present, covered.0.unwrap_or_default());
            self.containers.set_complete();
            if let Some(at) = then.containers.as_ref().and_then(|status| status.finished_at) {
                self.containers.freshness().known_as_of(at);
            }
        }
        self.containers.freshness().reloaded();
        self.containers.metrics().reloads.with_label_values(&["database"]).inc();
        let (containers, ssh_keys) = (present.len(), keys.len());
        tracing::info!(containers, ssh_keys, is_ready, "read the containers from the database");
        self.loaded = Some(then.loaded());
        Ok(())
    }

    /// Whether a projection has all that there is.
    fn is_all(&self, status: Option<&Status>) -> bool {
        !self.has_owner || status.is_some_and(Status::is_ready)
    }

    /// The ids of all rows that are no tombstones.
    async fn load_containers(&self, database: &Database) -> Result<HashSet<ContainerId>, StoreError> {
        let table = Table::live(&containers::SHAPE);
        let (mut after, mut present): (Option<String>, _) = (None, HashSet::new());
        loop {
            let entries = table.page(database, after.as_deref(), PAGE_ROWS).await?;
            let changes: Vec<Change> = entries.iter().filter_map(Change::of).collect();
            let alive = changes.iter().filter(|change| matches!(change, Change::Is(_)));
            present.extend(alive.map(Change::id));
            self.containers.apply(changes, Origin::Database);
            match entries.into_iter().next_back() {
                Some(last) => after = Some(last.key),
                None => return Ok(present),
            }
        }
    }

    /// The same of keys.
    async fn load_keys(&self, database: &Database) -> Result<HashSet<i64>, StoreError> {
        let table = Table::live(&ssh_keys::SHAPE);
        let (mut after, mut present): (Option<String>, _) = (None, HashSet::new());
        loop {
            let entries = table.page(database, after.as_deref(), PAGE_ROWS).await?;
            let changes: Vec<KeyChange> = entries.iter().filter_map(KeyChange::of).collect();
            let alive = changes.iter().filter(|change| matches!(change, KeyChange::Is(_)));
            present.extend(alive.map(KeyChange::id));
            self.containers.ssh_keys().apply(changes, Origin::Database);
            match entries.into_iter().next_back() {
                Some(last) => after = Some(last.key),
                None => return Ok(present),
            }
        }
    }

    async fn load_deleted_users(&self, database: &Database) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let users = store::deleted_users(database, after).await?;
            let Some(last) = users.last() else { return Ok(()) };
            after = Some(*last);
            self.containers.delete_users(users);
        }
    }

    /// Up to where the database has all of the stream that there is now; none if nobody can tell.
    async fn covered(&self, status: Option<&Status>) -> Option<u64> {
        let status = status.filter(|status| status.needed.is_none())?;
        let stream = self.bus.stream(Stream::COMPUTE.name).await.ok()?;
        (status.epoch == Some(stream.epoch)).then_some(status.covered_seq)
    }
}

fn mark(status: Option<&Status>) -> Mark {
    status.map_or(Mark { epoch: None, seq: 0 }, |status| Mark { epoch: status.epoch, seq: status.covered_seq })
}

/// Of two places in a stream. Where they are not comparable, because only one was noted or the stream was made anew in
/// between, all of it is told, and whether it is still the same is asked.
fn earlier(one: Mark, other: Mark) -> Mark {
    match one.epoch == other.epoch {
        true if one.seq <= other.seq => one,
        true => other,
        false => Mark { epoch: one.epoch.or(other.epoch), seq: 0 },
    }
}

fn filled(status: Option<&Status>) -> Filled {
    (status.and_then(|status| status.finished_at), status.is_some_and(Status::is_ready))
}

/// That this process may have missed events.
#[derive(Debug, Default)]
struct Gap {
    is_open: AtomicBool,
    opened: Notify,
}

impl Gap {
    fn open(&self, containers: &Containers) {
        containers.freshness().lost_events();
        self.is_open.store(true, Ordering::Release);
        self.opened.notify_one();
    }
}

/// Hears of containers and keys.
#[derive(Debug)]
struct Listener {
    containers: Containers,
    gap: Arc<Gap>,
}

#[async_trait]
impl Follower for Listener {
    async fn message(&mut self, seq: u64, message: &Message) {
        let told = row(ProjectedContainers.read(message)).and_then(|container| match container {
            Some(container) => Ok(self.containers.apply(Change::of(&container), Origin::Event(seq))),
            None => Ok(row(ProjectedKeys.read(message))?
                .map_or(0, |key| self.containers.ssh_keys().apply(KeyChange::of(&key), Origin::Event(seq)))),
        });
        if let Err(error) = told {
            // The durable consumer makes it a dead letter.
            tracing::error!(
                seq,
                subject = message.subject,
                ?error,
                "nobody can tell what became of a container or key"
            );
        }
    }

    async fn reset(&mut self) {
        self.containers.forget_positions();
        self.gap.open(&self.containers);
    }

    async fn caught_up(&mut self) {
        // Without what was there before, the stream is not all.
        if self.containers.router().snapshot().containers.is_complete() {
            self.containers.freshness().caught_up();
        }
    }
}

/// The row of an event; none if the event is another's.
fn row(read: Result<Option<Entry<Key>>, Failure>) -> Result<Option<Entry>, Failure> {
    Ok(match read? {
        Some(Entry { key: Key::Is(key), version, deleted, fields }) => Some(Entry { key, version, deleted, fields }),
        _ => None,
    })
}

/// Hears of users who are gone.
#[derive(Debug)]
struct UserListener {
    containers: Containers,
    gap: Arc<Gap>,
}

#[async_trait]
impl Follower for UserListener {
    async fn message(&mut self, _seq: u64, message: &Message) {
        let Ok((_, Some(id))) = EventKind::of(&message.subject) else { return };
        let Ok(user) = id.parse::<UserId>() else { return };
        let ended = self.containers.delete_users([user]);
        tracing::info!(%user, containers = ended, "a user is gone, and so are their containers");
    }

    async fn reset(&mut self) {
        self.gap.open(&self.containers);
    }
}
