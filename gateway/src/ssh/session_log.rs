//! What the connection of a session tells, passed on to the registry, the audit, the metrics and the recording.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edd_proto::ContainerId;

use crate::containers::Watch;
use crate::ssh::directory::Standing;
use crate::ssh::recording::Recording;
use crate::ssh::session_events::{Begun, ChannelKind, ChannelLog, Direction, Forward, SessionLog, TerminalSize};
use crate::ssh::sessions::{Config, Session, Sessions};

/// What a session's connection tells.
#[derive(Debug)]
pub(super) struct Log {
    sessions: Sessions,
    session: Arc<Session>,
    has_ended: AtomicBool,
    _watch: Watch,
}

impl Log {
    pub fn new(sessions: Sessions, session: Arc<Session>, watch: Watch) -> Self {
        Self { sessions, session, has_ended: AtomicBool::new(false), _watch: watch }
    }

    fn config(&self) -> &Config {
        self.sessions.config()
    }

    fn end(&self, reason: &'static str) {
        if self.has_ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let Config { audit, clock, .. } = self.config();
        self.sessions.remove(&self.session.login);
        audit.end(&self.session.login, self.session.total(clock.now()), reason);
    }
}

impl SessionLog for Log {
    fn opened(&self, kind: ChannelKind) -> Box<dyn ChannelLog> {
        let Config { metrics, audit, .. } = self.config();
        metrics.channel(&kind);
        self.session.channels.fetch_add(1, Ordering::Relaxed);
        self.session.channels_open.fetch_add(1, Ordering::Relaxed);
        let is_session = kind == ChannelKind::Session;
        if !is_session {
            audit.channel(&self.session.login, &kind, None);
        }
        let jump = match &kind {
            ChannelKind::Jump { container } => container.parse().ok(),
            _ => None,
        };
        let watch = jump.map(|container| {
            self.session.jumps().push(container);
            self.sessions.watch(&self.session.login, Standing::at(&self.session.login.admission, container))
        });
        let (sessions, session) = (self.sessions.clone(), Arc::clone(&self.session));
        Box::new(Channel { sessions, session, kind, jump, _watch: watch, terminal: Mutex::default() })
    }

    fn forwarded(&self, forward: &Forward) {
        self.config().audit.forward(&self.session.login, forward);
    }

    fn ended(&self, reason: &'static str) {
        self.end(reason);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Its connection's task is gone without a word.
        self.end("lost");
    }
}

/// What a channel tells.
#[derive(Debug)]
struct Channel {
    sessions: Sessions,
    session: Arc<Session>,
    kind: ChannelKind,
    jump: Option<ContainerId>,
    _watch: Option<Watch>,
    terminal: Mutex<Terminal>,
}

#[derive(Debug, Default)]
struct Terminal {
    size: Option<TerminalSize>,
    recording: Option<Recording>,
}

impl Channel {
    fn terminal(&self) -> MutexGuard<'_, Terminal> {
        self.terminal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChannelLog for Channel {
    fn terminal(&self, size: TerminalSize) {
        let mut terminal = self.terminal();
        terminal.size = Some(size);
        if let Some(recording) = &terminal.recording {
            recording.resized(size);
        }
    }

    fn began(&self, what: Begun) {
        let Config { audit, recorder, .. } = self.sessions.config();
        audit.channel(&self.session.login, &self.kind, Some(&what));
        let mut terminal = self.terminal();
        // Without a terminal there is nothing to look at: files, mostly.
        if let (Some(recorder), Some(size), Some(container)) = (recorder, terminal.size, self.session.container()) {
            terminal.recording = recorder.begin(container, self.session.login.session, size, &what);
        }
    }

    fn passed(&self, direction: Direction, bytes: &[u8]) {
        let count = bytes.len() as u64;
        self.sessions.config().metrics.passed(direction, count);
        match direction {
            Direction::ToContainer => &self.session.bytes_in,
            Direction::ToClient { .. } => &self.session.bytes_out,
        }
        .fetch_add(count, Ordering::Relaxed);
        if self.sessions.config().recorder.is_some()
            && matches!(direction, Direction::ToClient { .. })
            && let Some(recording) = &self.terminal().recording
        {
            recording.output(bytes);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.session.channels_open.fetch_sub(1, Ordering::Relaxed);
        if let Some(container) = self.jump {
            let mut jumps = self.session.jumps();
            if let Some(index) = jumps.iter().position(|jump| *jump == container) {
                jumps.swap_remove(index);
            }
        }
    }
}
