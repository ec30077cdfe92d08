//! The sessions that go on: who is in, with which key, and what each has moved. They end when what let them in is gone.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edd_events::clock::{Clock, Micros};
use edd_proto::{ContainerId, UserId};
use serde::Serialize;
use uuid::Uuid;

use crate::clock::rfc3339;
use crate::containers::{Subject, Watch, Watches};
use crate::ssh::admission::{Refusal, Way};
use crate::ssh::audit::{Audit, Total};
use crate::ssh::directory::Standing;
use crate::ssh::metrics::Metrics;
use crate::ssh::recording::Recorder;
use crate::ssh::session_events::{LoggedIn, SessionEvents, SessionLog, TurnedAway};
use crate::ssh::session_log::Log;

/// Sessions of one user, unless told otherwise.
pub const MAX_PER_USER: usize = 50;
/// Sessions told of in one go.
pub const MAX_LISTED: usize = 1000;

/// What sessions are kept with.
#[derive(Clone, Debug)]
pub struct Config {
    pub watches: Watches,
    pub audit: Audit,
    /// None: nothing is recorded.
    pub recorder: Option<Recorder>,
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock>,
    pub max_per_user: usize,
}

/// Cheap handle on the sessions of this process.
#[derive(Clone, Debug)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// By id, and so by age.
    sessions: BTreeMap<Uuid, Arc<Session>>,
    per_user: HashMap<UserId, usize>,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub login: LoggedIn,
    since: Micros,
    /// Containers that a jump leads to, each as often as it does.
    jumps: Mutex<Vec<ContainerId>>,
    pub channels_open: AtomicU64,
    pub channels: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

/// Which sessions are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    Session(Uuid),
    Container(ContainerId),
    User(UserId),
}

/// A session, for a list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    pub id: String,
    pub user: UserId,
    /// None: a jump.
    pub container: Option<ContainerId>,
    /// Where a jump leads to now.
    pub jumps: Vec<ContainerId>,
    /// As the client sent it.
    pub login: String,
    pub key_id: i64,
    pub fingerprint: String,
    pub peer: IpAddr,
    /// What the client calls itself.
    pub client: String,
    pub since: String,
    pub duration_ms: u64,
    /// Open ones.
    pub channels: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Sessions {
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Shared { config, open: Mutex::default() }))
    }

    /// At most `most` of the sessions that are meant and came after `after`, and whether there are more.
    pub fn list(&self, which: Which, after: Option<Uuid>, most: usize) -> (Vec<Listed>, bool) {
        let now = self.0.config.clock.now();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let open = self.open();
        let mut meant = open.sessions.range((from, Bound::Unbounded)).filter(|(_, session)| session.is(which));
        let listed = meant.by_ref().take(most.min(MAX_LISTED)).map(|(_, session)| session.listed(now)).collect();
        (listed, meant.next().is_some())
    }

    /// Ends the sessions that are meant. How many that were.
    pub fn kill(&self, which: Which) -> usize {
        let meant: Vec<Arc<Session>> = {
            let open = self.open();
            open.sessions.values().filter(|session| session.is(which)).cloned().collect()
        };
        meant.iter().for_each(|session| session.login.kill.kill("killed", "an operator ended the session"));
        meant.len()
    }

    /// How many go on.
    pub fn len(&self) -> usize {
        self.open().sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps looking whether the login, or a jump's channel to a container, would still be let in.
    pub(super) fn watch(&self, login: &LoggedIn, standing: Standing) -> Watch {
        let (kill, revoked) = (login.kill.clone(), login.admission.revoked.clone());
        let subject = Subject { container: standing.container(), key: standing.key() };
        self.0.config.watches.watch(subject, move |snapshot| match standing.check(snapshot) {
            Ok(()) => true,
            Err(refusal) => {
                // The reason first: whoever waits for the other gives a poorer one.
                kill.kill(refusal.reason, refusal.message);
                revoked.cancel();
                false
            }
        })
    }

    fn admit(&self, session: &Arc<Session>) -> Result<(), Refusal> {
        let most = self.0.config.max_per_user;
        let mut open = self.open();
        let count = open.per_user.entry(session.login.admission.owner).or_default();
        if *count >= most {
            let message = format!("you have {count} sessions open already, and may have {most}; end one first");
            return Err(Refusal::new("too_many_sessions", message));
        }
        *count += 1;
        open.sessions.insert(session.login.session, Arc::clone(session));
        self.0.config.metrics.open.inc();
        Ok(())
    }

    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    /// The session is over.
    pub(super) fn remove(&self, login: &LoggedIn) {
        let (mut open, owner) = (self.open(), login.admission.owner);
        if open.sessions.remove(&login.session).is_none() {
            return;
        }
        self.0.config.metrics.open.dec();
        if let Some(count) = open.per_user.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                open.per_user.remove(&owner);
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub fn container(&self) -> Option<ContainerId> {
        match &self.login.admission.way {
            Way::Container { id, .. } => Some(*id),
            Way::Jump => None,
        }
    }

    fn is(&self, which: Which) -> bool {
        match which {
            Which::All => true,
            Which::Session(id) => self.login.session == id,
            Which::Container(id) => self.container() == Some(id) || self.jumps().contains(&id),
            Which::User(user) => self.login.admission.owner == user,
        }
    }

    pub fn jumps(&self) -> MutexGuard<'_, Vec<ContainerId>> {
        self.jumps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn duration_ms(&self, now: Micros) -> u64 {
        (now - self.since).max(0).unsigned_abs() / 1000
    }

    pub fn total(&self, now: Micros) -> Total {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (bytes_in, bytes_out) = (count(&self.bytes_in), count(&self.bytes_out));
        Total { channels: count(&self.channels), bytes_in, bytes_out, duration_ms: self.duration_ms(now) }
    }

    fn listed(&self, now: Micros) -> Listed {
        let (login, total) = (&self.login, self.total(now));
        Listed {
            id: login.session.to_string(),
            user: login.admission.owner,
            container: self.container(),
            jumps: self.jumps().clone(),
            login: login.username.clone(),
            key_id: login.admission.key_id,
            fingerprint: login.admission.fingerprint.to_string(),
            peer: login.peer,
            client: login.client.clone(),
            since: rfc3339(self.since),
            duration_ms: total.duration_ms,
            channels: self.channels_open.load(Ordering::Relaxed),
            bytes_in: total.bytes_in,
            bytes_out: total.bytes_out,
        }
    }
}

impl SessionEvents for Sessions {
    fn turned_away(&self, refused: &TurnedAway<'_>) {
        let Config { metrics, audit, .. } = &self.0.config;
        metrics.refused.inc();
        metrics.failure(refused.refusal.reason);
        audit.refused(refused);
    }

    fn began(&self, login: LoggedIn) -> Result<Arc<dyn SessionLog>, Refusal> {
        let Config { metrics, audit, clock, .. } = &self.0.config;
        let session = Arc::new(Session {
            login,
            since: clock.now(),
            jumps: Mutex::default(),
            channels_open: AtomicU64::new(0),
            channels: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        });
        let login = &session.login;
        if let Err(refusal) = self.admit(&session) {
            let fingerprint = Some(login.admission.fingerprint.to_string());
            let refused = TurnedAway { peer: login.peer, username: &login.username, fingerprint, refusal: &refusal };
            self.turned_away(&refused);
            return Err(refusal);
        }
        metrics.admitted.inc();
        metrics.login_duration.observe(login.took.as_secs_f64());
        audit.login(login);
        let watch = self.watch(login, Standing::of(&login.admission));
        Ok(Arc::new(Log::new(self.clone(), session, watch)))
    }
}

#[cfg(test)]
mod tests;
