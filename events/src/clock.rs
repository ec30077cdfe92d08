//! Time as the event core sees it: injected, so that a simulation decides when things happen.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, in microseconds since the Unix epoch. What databases store.
pub type Micros = i64;

/// Tells the time.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> Micros;
}

/// The machine's clock. It may jump; nothing in the event core counts on its being monotonic.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
    }
}

/// A clock that stands still until it is told to move. For tests and simulations.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub fn at(micros: Micros) -> Self {
        Self(Arc::new(AtomicI64::new(micros)))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(micros(by), Ordering::Relaxed);
    }

    /// Jumps, also backwards.
    pub fn set(&self, to: Micros) {
        self.0.store(to, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.0.load(Ordering::Relaxed)
    }
}

/// `duration` in microseconds; the longest that fits if it does not.
pub fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}
