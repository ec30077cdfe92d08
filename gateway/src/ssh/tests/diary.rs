//! What is told of sessions.

use std::sync::{Arc, Mutex};

use crate::ssh::admission::Refusal;
use crate::ssh::session_events::{
    Begun, ChannelKind, ChannelLog, Direction, Forward, LoggedIn, SessionEvents, SessionLog, TerminalSize, TurnedAway,
};

/// Remembers what it is told, a line each.
#[derive(Clone, Debug, Default)]
pub struct Diary(pub Arc<Mutex<Vec<String>>>);

impl Diary {
    fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn has(&self, part: &str) -> bool {
        self.lines().iter().any(|line| line.contains(part))
    }
}

impl SessionEvents for Diary {
    fn turned_away(&self, refused: &TurnedAway<'_>) {
        self.write(format!("turned away {} {}", refused.username, refused.refusal.reason));
    }

    fn began(&self, login: LoggedIn) -> Result<Arc<dyn SessionLog>, Refusal> {
        self.write(format!("began {}", login.username));
        Ok(Arc::new(self.clone()))
    }
}

impl SessionLog for Diary {
    fn opened(&self, kind: ChannelKind) -> Box<dyn ChannelLog> {
        self.write(format!("opened {}", kind.as_str()));
        Box::new(self.clone())
    }

    fn forwarded(&self, forward: &Forward) {
        self.write(format!("forwarded {forward:?}"));
    }

    fn ended(&self, reason: &'static str) {
        self.write(format!("ended {reason}"));
    }
}

impl ChannelLog for Diary {
    fn terminal(&self, size: TerminalSize) {
        self.write(format!("terminal {}x{}", size.columns, size.rows));
    }

    fn began(&self, what: Begun) {
        self.write(format!("began {what:?}"));
    }

    fn passed(&self, _direction: Direction, _bytes: &[u8]) {}
}
