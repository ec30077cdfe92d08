//! A connection before anybody has logged in on it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::ssh::admission::{Outcome, Refusal, SharedAdmitter};
use crate::ssh::session_events::{SessionEvents, TurnedAway};

/// What was tried so far. Settled with the admitter once, when it is dropped at the latest.
#[derive(Debug)]
pub struct Knock {
    admitter: SharedAdmitter,
    peer: IpAddr,
    keys: AtomicU32,
    passwords: AtomicU32,
    is_admitted: AtomicBool,
    is_timed_out: AtomicBool,
    is_garbage: AtomicBool,
    is_settled: AtomicBool,
    last: Mutex<Option<Tried>>,
}

/// What was refused last.
#[derive(Debug)]
struct Tried {
    username: String,
    fingerprint: Option<String>,
    refusal: Refusal,
}

impl Knock {
    /// A connection that [`crate::ssh::admission::Admitter::arrived`] has let in.
    pub fn new(admitter: SharedAdmitter, peer: IpAddr) -> Self {
        Self {
            admitter,
            peer,
            keys: AtomicU32::new(0),
            passwords: AtomicU32::new(0),
            is_admitted: AtomicBool::new(false),
            is_timed_out: AtomicBool::new(false),
            is_garbage: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            last: Mutex::default(),
        }
    }

    /// A key that is only asked about is no attempt: agents ask about all that they have.
    pub fn key_refused(&self, username: &str, fingerprint: String, refusal: Refusal, is_signed: bool) {
        self.keys.fetch_add(is_signed.into(), Ordering::Relaxed);
        self.tried(username, Some(fingerprint), refusal);
    }

    pub fn password_refused(&self, username: &str) {
        self.passwords.fetch_add(1, Ordering::Relaxed);
        self.tried(username, None, Refusal::new("password", "nobody logs in with a password"));
    }

    fn tried(&self, username: &str, fingerprint: Option<String>, refusal: Refusal) {
        let username = username.chars().take(MAX_USERNAME_CHARS).collect();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Tried { username, fingerprint, refusal });
    }

    pub fn admitted(&self) {
        self.is_admitted.store(true, Ordering::Relaxed);
    }

    pub fn timed_out(&self) {
        self.is_timed_out.store(true, Ordering::Relaxed);
    }

    /// The connection ended by this. Somebody who leaves sends no garbage.
    pub fn broke(&self, error: &russh::Error) {
        let left = matches!(
            error,
            russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP | russh::Error::KeepaliveTimeout
        );
        self.is_garbage.store(!left, Ordering::Relaxed);
    }

    /// Tells of somebody who tried and was not let in.
    pub fn tell(&self, events: &dyn SessionEvents) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let (false, Some(tried)) = (self.is_admitted.load(Ordering::Relaxed), last.as_ref()) {
            let Tried { username, fingerprint, refusal } = tried;
            events.turned_away(&TurnedAway { peer: self.peer, username, fingerprint: fingerprint.clone(), refusal });
        }
    }

    /// Nobody waits to log in on this connection any more.
    pub fn settle(&self) {
        if !self.is_settled.swap(true, Ordering::Relaxed) {
            self.admitter.settled(self.peer, self.outcome());
        }
    }

    fn outcome(&self) -> Outcome {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        match (flag(&self.is_admitted), flag(&self.is_garbage)) {
            (true, _) => Outcome::Admitted,
            (false, true) => Outcome::Garbage,
            (false, false) => Outcome::Unauthenticated {
                keys: count(&self.keys),
                passwords: count(&self.passwords),
                timed_out: flag(&self.is_timed_out),
            },
        }
    }
}

/// Of a username that is told; nobody's is longer.
const MAX_USERNAME_CHARS: usize = 64;

impl Drop for Knock {
    fn drop(&mut self) {
        self.settle();
    }
}
