//! A login: the client on one side, and on the other what it was let in to.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use russh::server::{self, Handle};
use russh::{Channel, ChannelId, ChannelOpenFailure};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::live::{Usage, Visit};
use crate::ssh::admission::{Admission, Refusal};
use crate::ssh::channel::{ClientEnd, ContainerEnd, Meter};
use crate::ssh::inbox::Inboxes;
use crate::ssh::kill_switch::KillSwitch;
use crate::ssh::leg::Leg;
use crate::ssh::program::Stage;
use crate::ssh::requests::Desk;
use crate::ssh::service::Service;
use crate::ssh::session_events::{ChannelKind, SessionLog};

/// Channels of one login at a time.
pub const MAX_CHANNELS: usize = 256;
/// For what a container sent before its connection ended, if the client is slow to take it.
const LAST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel that a client opened, as requests in it see it.
#[derive(Clone, Debug)]
pub struct Line {
    pub desk: Desk,
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
    pub(super) leg: watch::Sender<Option<Result<Leg, Refusal>>>,
    lines: Mutex<HashMap<ChannelId, Line>>,
    open_channels: AtomicUsize,
    channel_left: Notify,
    has_hung_up: AtomicBool,
    asked_for: Asked,
    /// Keeps the container in use.
    pub(super) visit: OnceLock<Option<Visit>>,
}

/// Why a session ended whose container closed the connection.
pub const CONTAINER_CLOSED: &str = "container_closed";

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
            has_hung_up: AtomicBool::new(false),
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
    pub fn hung_up(self: Arc<Self>, reason: String) {
        self.has_hung_up.store(true, Ordering::Release);
        tokio::spawn(async move {
            // Then they are cut off where they are.
            let _ = tokio::time::timeout(LAST_BYTES_TIMEOUT, self.kill.token().run_until_cancelled(self.idle())).await;
            self.kill.kill(CONTAINER_CLOSED, format!("the container closed the connection: {reason}"));
        });
    }

    /// Whether the container's connection is over. A client whose channels are closed for that leaves by itself.
    pub fn has_hung_up(&self) -> bool {
        self.has_hung_up.load(Ordering::Acquire)
    }

    /// Accounts for a channel to the container that was logged in to.
    pub fn count(&self, usage: Usage) {
        if let Some(visit) = self.visit.get().and_then(Option::as_ref) {
            visit.count(usage);
        }
    }
}
