//! What all SSH connections share.

use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server;
use russh::{Limits, MethodKind, MethodSet, SshId};

use crate::containers::{Presence, Wakes};
use crate::ssh::admission::SharedAdmitter;
use crate::ssh::algorithms;
use crate::ssh::authority::Authority;
use crate::ssh::exec::Programs;
use crate::ssh::patience::Patience;
use crate::ssh::session_events::SessionEvents;
use crate::ssh::sessions::Sessions;
use crate::ssh::window::{FIRST_BYTES, Windows};

/// Keys that one connection may offer: an agent may have many.
const MAX_AUTH_ATTEMPTS: usize = 32;
/// Messages of all channels that wait for a connection to take them, each at most a packet.
const SEND_QUEUE: usize = 16;
/// Keys change after so many bytes in one direction (RFC 4253 §9), or after this time.
pub const REKEY_AFTER_BYTES: usize = 1024 * 1024 * 1024;
const REKEY_AFTER: Duration = Duration::from_secs(60 * 60);
/// What clients see first. Nothing in it tells a release.
const VERSION: &str = "SSH-2.0-edd";

/// What SSH needs of the rest of the gateway.
#[derive(Debug)]
pub struct Config {
    /// The gateway's own, the preferred first.
    pub host_keys: Vec<PrivateKey>,
    /// Those on NIST's curves are shown beside others, and not only where there are none.
    pub shows_nist_keys: bool,
    pub admitter: SharedAdmitter,
    pub authority: Authority,
    pub events: Arc<dyn SessionEvents>,
    /// For the admin listener, if there is a list of them.
    pub sessions: Option<Sessions>,
    pub programs: Arc<dyn Programs>,
    /// Wakes containers, if there is anybody who does.
    pub wakes: Option<Wakes>,
    /// Tells compute of who comes, if there is one to tell.
    pub presence: Option<Presence>,
    /// From the first byte to the login.
    pub login_grace: Duration,
    /// With ends that say nothing.
    pub patience: Patience,
    /// Keys change after so many bytes in one direction, and after an hour.
    pub rekey_after_bytes: usize,
}

/// Ready to serve connections.
#[derive(Debug)]
pub struct Service {
    pub admitter: SharedAdmitter,
    pub authority: Authority,
    pub events: Arc<dyn SessionEvents>,
    pub programs: Arc<dyn Programs>,
    pub wakes: Option<Wakes>,
    pub presence: Option<Presence>,
    pub login_grace: Duration,
    pub patience: Patience,
    /// Of the channels of all connections.
    pub(super) windows: Windows,
    pub(super) limits: Limits,
    pub(super) protocol: Arc<server::Config>,
}

impl Service {
    pub fn new(config: Config) -> Self {
        let limits = Limits::new(config.rekey_after_bytes, config.rekey_after_bytes, REKEY_AFTER);
        let protocol = server::Config {
            server_id: SshId::Standard(VERSION.into()),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            // Whoever guesses is seen to by address; waiting would punish agents with many keys.
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            max_auth_attempts: MAX_AUTH_ATTEMPTS,
            keys: algorithms::shown(config.host_keys, config.shows_nist_keys),
            limits: limits.clone(),
            window_size: FIRST_BYTES,
            consumer_adjusts_window: true,
            consumer_closes: true,
            event_buffer_size: SEND_QUEUE,
            preferred: algorithms::preferred(),
            // A session may stay open as long as its ends are there, which keepalives tell.
            inactivity_timeout: None,
            keepalive_interval: Some(config.patience.ask_every),
            keepalive_max: config.patience.questions(),
            ..server::Config::default()
        };
        Self {
            admitter: config.admitter,
            authority: config.authority,
            events: config.events,
            programs: config.programs,
            wakes: config.wakes,
            presence: config.presence,
            login_grace: config.login_grace,
            patience: config.patience,
            windows: Windows::default(),
            limits,
            protocol: Arc::new(protocol),
        }
    }
}
