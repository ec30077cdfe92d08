//! What the data plane tells of sessions, for whoever lists, audits, records and counts them. Nothing here may wait.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::ssh::admission::{Admission, Refusal};
use crate::ssh::kill_switch::KillSwitch;

/// Who came in.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    pub session: Uuid,
    pub admission: Admission,
    /// As the client sent it.
    pub username: String,
    pub peer: IpAddr,
    /// What the client calls itself, from its version line.
    pub client: String,
    /// From the first byte to the login.
    pub took: Duration,
    /// Ends the session.
    pub kill: KillSwitch,
}

/// Somebody who did not.
#[derive(Clone, Debug)]
pub struct TurnedAway<'a> {
    pub peer: IpAddr,
    pub username: &'a str,
    /// Of the key that was tried, if one was.
    pub fingerprint: Option<String>,
    pub refusal: &'a Refusal,
}

/// What a channel is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Shell, command or subsystem: [`ChannelLog::began`] says which.
    Session,
    /// `-L`, `-D`, `-W`: to an address as seen from the container.
    DirectTcpIp {
        host: String,
        port: u32,
    },
    DirectStreamLocal {
        path: String,
    },
    /// `-R`: from a connection to a port in the container.
    ForwardedTcpIp {
        address: String,
        port: u32,
    },
    ForwardedStreamLocal {
        path: String,
    },
    X11,
    Agent,
    /// `-J`: to the SSH port of a container; nothing of it can be read here.
    Jump {
        container: String,
    },
}

impl ChannelKind {
    /// The label in metrics and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::DirectTcpIp { .. } => "direct_tcpip",
            Self::DirectStreamLocal { .. } => "direct_streamlocal",
            Self::ForwardedTcpIp { .. } => "forwarded_tcpip",
            Self::ForwardedStreamLocal { .. } => "forwarded_streamlocal",
            Self::X11 => "x11",
            Self::Agent => "agent",
            Self::Jump { .. } => "jump",
        }
    }
}

/// What runs in a session channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    Shell,
    /// A command, with what is no UTF-8 replaced.
    Command(String),
    Subsystem(String),
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub columns: u32,
    pub rows: u32,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToContainer,
    /// To the client; its standard error apart.
    ToClient {
        is_stderr: bool,
    },
}

/// A listening address that a client asked for with `-R`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// With the port that was really taken.
    Tcp {
        address: String,
        port: u32,
    },
    StreamLocal {
        path: String,
    },
}

/// Where sessions begin to be known.
pub trait SessionEvents: Debug + Send + Sync {
    fn turned_away(&self, refused: &TurnedAway<'_>);

    /// A session begins.
    ///
    /// # Errors
    /// Its user has too many already: it ends, and the client is told the message.
    fn began(&self, login: LoggedIn) -> Result<Arc<dyn SessionLog>, Refusal>;
}

/// One session.
pub trait SessionLog: Debug + Send + Sync {
    /// A channel that both sides have agreed on. Dropping the log is its end.
    fn opened(&self, kind: ChannelKind) -> Box<dyn ChannelLog>;

    fn forwarded(&self, forward: &Forward);

    /// The session is over, `reason` being one of a bounded set of words.
    fn ended(&self, reason: &'static str);
}

/// One channel.
pub trait ChannelLog: Debug + Send + Sync {
    /// A terminal was asked for, or has another size.
    fn terminal(&self, size: TerminalSize);

    fn began(&self, what: Begun);

    /// Bytes are on their way.
    fn passed(&self, direction: Direction, bytes: &[u8]);
}
