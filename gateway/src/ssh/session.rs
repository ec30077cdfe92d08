//! A login: the client on one side, and on the other what it was let in to.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use russh::server::{self, Handle};
use russh::{Channel, ChannelId, ChannelOpenFailure};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::containers::Woken;
use crate::live::{Usage, Visit};
use crate::ssh::admission::{self, Admission, Entrance, Refusal, Target};
use crate::ssh::authority::Holder;
use crate::ssh::calls::Calls;
use crate::ssh::channel::{ClientEnd, ContainerEnd, Meter};
use crate::ssh::inbox::Inboxes;
use crate::ssh::kill_switch::KillSwitch;
use crate::ssh::program::Stage;
use crate::ssh::service::Service;
use crate::ssh::session_events::{ChannelKind, SessionLog};
use crate::ssh::upstream::{Destination, Upstream};

/// Channels of one login at a time.
pub const MAX_CHANNELS: usize = 256;
/// Longest wait for a container that sleeps.
const WAKE_TIMEOUT: Duration = Duration::from_secs(120);
/// A container that has just become ready may tell so a moment before its sshd listens.
const DIAL_TRIES: u32 = 5;
const DIAL_PAUSE: Duration = Duration::from_millis(200);
/// For what a container sent before its connection ended, if the client is slow to take it.
const LAST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session's channels lead to.
#[derive(Clone, Debug)]
pub enum Leg {
    Sshd(Upstream),
    /// Programs of the platform's.
    Programs,
    /// Whatever container each channel names.
    Jump,
}

/// A channel that a client opened, as requests in it see it.
#[derive(Clone, Debug)]
pub struct Line {
    pub way: Way,
    pub meter: Arc<Meter>,
}

/// The container's side of a channel.
#[derive(Clone, Debug)]
pub enum Way {
    Sshd(ContainerEnd),
    Program(Arc<Stage>),
}

/// A session. Its channels hold it; its connection ends it.
pub struct Session {
    pub service: Arc<Service>,
    pub admission: Admission,
    pub id: Uuid,
    pub kill: KillSwitch,
    pub to_client: Handle,
    pub log: Arc<dyn SessionLog>,
    /// Of the client's connection.
    pub inboxes: Inboxes,
    leg: watch::Sender<Option<Result<Leg, Refusal>>>,
    lines: Mutex<HashMap<ChannelId, Line>>,
    open_channels: AtomicUsize,
    channel_left: Notify,
    asked_for: Asked,
    /// Keeps the container in use.
    visit: OnceLock<Option<Visit>>,
}

/// What the client asked for, and the container may therefore open.
#[derive(Debug, Default)]
pub struct Asked {
    agent: AtomicBool,
    x11: AtomicBool,
    /// Any `-R`.
    forward: AtomicBool,
}

impl Asked {
    pub fn set_agent(&self) {
        self.agent.store(true, Ordering::Release);
    }

    pub fn set_x11(&self) {
        self.x11.store(true, Ordering::Release);
    }

    pub fn set_forward(&self) {
        self.forward.store(true, Ordering::Release);
    }

    pub fn allows(&self, kind: &ChannelKind) -> bool {
        match kind {
            ChannelKind::Agent => self.agent.load(Ordering::Acquire),
            ChannelKind::X11 => self.x11.load(Ordering::Acquire),
            ChannelKind::ForwardedTcpIp { .. } | ChannelKind::ForwardedStreamLocal { .. } => {
                self.forward.load(Ordering::Acquire)
            }
            ChannelKind::Session
            | ChannelKind::DirectTcpIp { .. }
            | ChannelKind::DirectStreamLocal { .. }
            | ChannelKind::Jump { .. } => false,
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("admission", &self.admission).finish_non_exhaustive()
    }
}

/// A channel's place among those of its session.
#[derive(Debug)]
pub struct Place {
    session: Arc<Session>,
    id: Option<ChannelId>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.session.inboxes.remove(id);
            self.session.lines().remove(&id);
        }
        self.session.open_channels.fetch_sub(1, Ordering::AcqRel);
        self.session.channel_left.notify_waiters();
    }
}

impl Place {
    /// The same place, now that the channel's number at the client's side is known.
    #[must_use]
    pub fn numbered(mut self, id: ChannelId) -> Self {
        self.id = Some(id);
        self
    }
}

impl Session {
    pub fn new(
        service: Arc<Service>,
        admission: Admission,
        id: Uuid,
        kill: KillSwitch,
        to_client: Handle,
        inboxes: Inboxes,
        log: Arc<dyn SessionLog>,
    ) -> Self {
        Self {
            service,
            admission,
            id,
            kill,
            to_client,
            log,
            inboxes,
            leg: watch::channel(None).0,
            lines: Mutex::default(),
            open_channels: AtomicUsize::new(0),
            channel_left: Notify::new(),
            asked_for: Asked::default(),
            visit: OnceLock::new(),
        }
    }

    pub fn asked_for(&self) -> &Asked {
        &self.asked_for
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<ChannelId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn line(&self, id: ChannelId) -> Option<Line> {
        self.lines().get(&id).cloned()
    }

    pub fn set_line(&self, id: ChannelId, line: Line) {
        self.lines().insert(id, line);
    }

    /// Room for one more channel, which has this number at the client's side if it is known already.
    ///
    /// # Errors
    /// There are too many.
    pub fn enter(self: &Arc<Self>, id: Option<ChannelId>) -> Result<Place, ChannelOpenFailure> {
        let room = |open: usize| (open < MAX_CHANNELS).then_some(open + 1);
        match self.open_channels.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) {
            Ok(_) => Ok(Place { session: Arc::clone(self), id }),
            Err(_) => Err(ChannelOpenFailure::Other {
                code: ChannelOpenFailure::ResourceShortage.code(),
                reason: format!("a connection may have {MAX_CHANNELS} channels open at once"),
            }),
        }
    }

    /// This side's end of a channel.
    pub fn end(&self, channel: Channel<server::Msg>) -> ClientEnd {
        // Everything arrives in the inbox; the half that is dropped gets copies, which go nowhere.
        let (_, half) = channel.split();
        ClientEnd::new(self.inboxes.open(half.id()), half)
    }

    /// What the channels lead to, once it is there.
    ///
    /// # Errors
    /// There is nothing, or the session ends.
    pub async fn leg(&self) -> Result<Leg, Refusal> {
        let mut leg = self.leg.subscribe();
        let ended = || Refusal::new("ended", "the session was ended");
        let waiting = self.kill.token().run_until_cancelled(leg.wait_for(Option::is_some)).await;
        match waiting {
            Some(Ok(leg)) => leg.clone().unwrap_or_else(|| Err(ended())),
            Some(Err(_)) | None => Err(ended()),
        }
    }

    /// Makes the way to the container, and ends the session when there is none.
    pub async fn connect(self: Arc<Self>) {
        let made = self.kill.token().run_until_cancelled(self.make_leg()).await;
        match made {
            Some(Ok(leg)) => drop(self.leg.send_replace(Some(Ok(leg)))),
            Some(Err(refusal)) => {
                self.leg.send_replace(Some(Err(refusal.clone())));
                self.kill.kill(refusal.reason, refusal.message);
            }
            None => {}
        }
    }

    async fn make_leg(self: &Arc<Self>) -> Result<Leg, Refusal> {
        let admission::Way::Container { id, user } = &self.admission.way else { return Ok(Leg::Jump) };
        let look = || self.service.admitter.entrance(&self.admission);
        let entrance = self.awake(look()?, look).await?;
        self.watch(&entrance.retired);
        let leg = match &entrance.target {
            Target::Exec => Leg::Programs,
            Target::Asleep => return Err(Refusal::new("wake_failed", "the container fell asleep again")),
            Target::Sshd { address, host_key_fingerprint } => {
                let holder = Holder {
                    container: *id,
                    owner: self.admission.owner,
                    key_id: self.admission.key_id,
                    session: self.id,
                };
                let limits = &self.service.limits;
                let to = Destination { limits, address, host_key_fingerprint, user };
                Leg::Sshd(self.log_in(&to, &holder).await?)
            }
        };
        // It is set once.
        let _ = self.visit.set(entrance.visit);
        Ok(leg)
    }

    async fn log_in(self: &Arc<Self>, to: &Destination<'_>, holder: &Holder) -> Result<Upstream, Refusal> {
        let mut tries = 0;
        loop {
            let signing =
                |error| Refusal::new("certificate", format!("the gateway cannot sign a certificate: {error}"));
            let pass = self.service.authority.certificate(holder).map_err(signing)?;
            let callee = Arc::new(Calls::of(self));
            match Upstream::log_in(to, pass, callee, &self.kill).await {
                Err(refusal) if refusal.reason == "unreachable" && tries + 1 < DIAL_TRIES => {
                    tries += 1;
                    tokio::time::sleep(DIAL_PAUSE).await;
                }
                made => return made,
            }
        }
    }

    /// The container once it runs, which one that sleeps is made to.
    ///
    /// # Errors
    /// It does not.
    pub async fn awake(
        &self,
        now: Entrance,
        look: impl Fn() -> Result<Entrance, Refusal>,
    ) -> Result<Entrance, Refusal> {
        if now.target != Target::Asleep {
            return Ok(now);
        }
        let asleep = |why: &str| Refusal::new("wake_failed", format!("the container sleeps, and {why}"));
        let wakes = self.service.wakes.as_ref().ok_or_else(|| asleep("nobody here can wake it"))?;
        let deadline = Instant::now() + WAKE_TIMEOUT;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match wakes.rouse(now.container, patience).await {
                // What was known before is of the past.
                Woken::Up | Woken::Otherwise => return look(),
                Woken::Full => return Err(asleep("too many wait for it already; try again in a moment")),
                Woken::Refused(why) => return Err(asleep(&why)),
                // Requests give up sooner than a person at a terminal.
                Woken::NotYet | Woken::TooLate if Instant::now() < deadline => {}
                Woken::NotYet | Woken::TooLate => {
                    return Err(asleep("it did not wake up in time; try again in a moment"));
                }
            }
        }
    }

    /// Ends the session with the container's run.
    fn watch(&self, retired: &CancellationToken) {
        let (retired, kill) = (retired.clone(), self.kill.clone());
        tokio::spawn(async move {
            let over = kill.token().run_until_cancelled(retired.cancelled()).await;
            if over.is_some() {
                kill.kill("container_stopped", "the container was stopped or deleted");
            }
        });
    }

    /// Resolves when no channel is open.
    pub async fn idle(&self) {
        loop {
            let left = self.channel_left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.open_channels.load(Ordering::Acquire) == 0 {
                return;
            }
            left.await;
        }
    }

    /// The container's connection is over. What it sent is given to the client, for as long as that takes it.
    pub async fn hung_up(self: Arc<Self>, reason: String) {
        // Then they are cut off where they are.
        let _ = tokio::time::timeout(LAST_BYTES_TIMEOUT, self.kill.token().run_until_cancelled(self.idle())).await;
        self.kill.kill("container_closed", format!("the container closed the connection: {reason}"));
    }

    /// Accounts for a channel to the container that was logged in to.
    pub fn count(&self, usage: Usage) {
        if let Some(visit) = self.visit.get().and_then(Option::as_ref) {
            visit.count(usage);
        }
    }
}
