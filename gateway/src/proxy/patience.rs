//! How long an upstream is waited for while a body goes to it, and after.
//!
//! The engine's own timer would also run while the client pauses, when the upstream owes nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::proxy::scope::ConnInfo;

/// A request's body on its way upstream.
#[derive(Debug)]
pub struct Upload {
    /// From the body's end to the answer's head, and without progress before.
    timeout: Duration,
    complete: OnceLock<Instant>,
}

impl Upload {
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, complete: OnceLock::new() }
    }

    /// The body is complete.
    pub fn complete(&self) {
        let _ = self.complete.set(Instant::now());
    }
}

/// The timer of one upload.
#[derive(Debug)]
pub struct Patience {
    timer: Pin<Box<Sleep>>,
    moved: u64,
}

impl Patience {
    /// What the engine has to come to an end in, once it is told to give up.
    const LAST_GRACE: Duration = Duration::from_secs(1);

    pub fn new(upload: &Upload) -> Self {
        Self { timer: Box::pin(tokio::time::sleep(upload.timeout)), moved: 0 }
    }

    /// Tells the engine to give up when the upstream is late; true if that did not help in time.
    /// `moved` counts what has passed so far.
    pub fn poll_exhausted(&mut self, upload: &Upload, conn: &ConnInfo, moved: u64, context: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(context).is_ready() {
            if conn.give_up.load(Ordering::Acquire) {
                return true;
            }
            let now = Instant::now();
            let due = match upload.complete.get() {
                Some(complete) => *complete + upload.timeout,
                // Whose turn is it? A pause of the client's has a limit of its own.
                None if moved != self.moved || conn.awaits_client.load(Ordering::Acquire) => now + upload.timeout,
                None => now,
            };
            self.moved = moved;
            if due <= now {
                conn.give_up.store(true, Ordering::Release);
                // The engine reads from the client in the same task, and sees it there.
                context.waker().wake_by_ref();
                self.timer.as_mut().reset(now + Self::LAST_GRACE);
            } else {
                self.timer.as_mut().reset(due);
            }
        }
        false
    }
}
