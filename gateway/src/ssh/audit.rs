//! Who logged in with which key, what for, and who was turned away: one JSON line each in the access log, which is where
//! operators look for who used what. Like all lines there they are made in memory and written by a thread of its own, so
//! that a slow disk costs lines, which are counted, and holds up nobody.

use std::net::IpAddr;

use edd_proto::{ContainerId, UserId};
use serde::Serialize;

use crate::access_log::AccessLog;
use crate::clock;
use crate::ssh::admission::Way;
use crate::ssh::session_events::{Begun, ChannelKind, Forward, LoggedIn, TurnedAway};

/// Longest text of a client's choice in a line, in bytes: a command, a path, a name.
const MAX_TEXT_BYTES: usize = 1024;

/// Writes what is to be known later.
#[derive(Clone, Debug)]
pub struct Audit {
    log: AccessLog,
}

/// What was moved, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub channels: u64,
    /// From the client.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_ms: u64,
}

/// A line. What does not apply is left out.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    ts: String,
    event: &'static str,
    listener: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<ContainerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u32>,
    #[serde(flatten)]
    total: Option<Moved>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Moved {
    channels: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Audit {
    pub fn new(log: AccessLog) -> Self {
        Self { log }
    }

    pub fn refused(&self, refused: &TurnedAway<'_>) {
        self.write(Line {
            event: "ssh_refused",
            client_ip: Some(refused.peer),
            login: Some(short(refused.username)).filter(|name| !name.is_empty()),
            fingerprint: refused.fingerprint.as_deref(),
            reason: Some(refused.refusal.reason),
            ..Line::default()
        });
    }

    pub fn login(&self, login: &LoggedIn) {
        self.write(Line {
            client_ip: Some(login.peer),
            login: Some(short(&login.username)),
            key_id: Some(login.admission.key_id),
            fingerprint: Some(&login.admission.fingerprint.to_string()),
            client: Some(short(&login.client)),
            duration_ms: Some(millis(login.took.as_millis())),
            ..of(login, "ssh_login")
        });
    }

    /// A channel that is for something: `begun` says what a session channel runs.
    pub fn channel(&self, login: &LoggedIn, kind: &ChannelKind, begun: Option<&Begun>) {
        let (target, port) = match (kind, begun) {
            (ChannelKind::Session, Some(Begun::Command(text) | Begun::Subsystem(text))) => (Some(text.as_str()), None),
            (ChannelKind::Session, Some(Begun::Shell) | None) | (ChannelKind::X11 | ChannelKind::Agent, _) => {
                (None, None)
            }
            (ChannelKind::DirectTcpIp { host: target, port }, _)
            | (ChannelKind::ForwardedTcpIp { address: target, port }, _) => (Some(target.as_str()), Some(*port)),
            (ChannelKind::DirectStreamLocal { path }, _) | (ChannelKind::ForwardedStreamLocal { path }, _) => {
                (Some(path.as_str()), None)
            }
            (ChannelKind::Jump { container }, _) => (Some(container.as_str()), None),
        };
        let channel = match begun {
            Some(Begun::Shell) => "shell",
            Some(Begun::Command(_)) => "command",
            Some(Begun::Subsystem(_)) => "subsystem",
            None => kind.as_str(),
        };
        let target = target.map(short);
        self.write(Line { channel: Some(channel), target, port, ..of(login, "ssh_channel") });
    }

    pub fn forward(&self, login: &LoggedIn, forward: &Forward) {
        let (target, port) = match forward {
            Forward::Tcp { address, port } => (address, Some(*port)),
            Forward::StreamLocal { path } => (path, None),
        };
        self.write(Line { target: Some(short(target)), port, ..of(login, "ssh_forward") });
    }

    pub fn end(&self, login: &LoggedIn, total: Total, reason: &'static str) {
        let Total { channels, bytes_in, bytes_out, duration_ms } = total;
        self.write(Line {
            total: Some(Moved { channels, bytes_in, bytes_out }),
            duration_ms: Some(duration_ms),
            reason: Some(reason),
            ..of(login, "ssh_end")
        });
    }

    fn write(&self, line: Line<'_>) {
        self.log.write(&Line { ts: clock::rfc3339_now(), listener: "ssh", ..line });
    }
}

/// What every line of a session has.
fn of(login: &LoggedIn, event: &'static str) -> Line<'static> {
    let container = match &login.admission.way {
        Way::Container { id, .. } => Some(*id),
        Way::Jump => None,
    };
    Line {
        event,
        session: Some(login.session.to_string()),
        user: Some(login.admission.owner),
        container,
        ..Line::default()
    }
}

fn millis(millis: u128) -> u64 {
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// The beginning of a text that somebody else chose.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}
