//! What all parts of one schedule share: its dice, its clock, what may go wrong, and the record of what was done.
//!
//! One task is polled at a time. It gives way where [`World::pause`] says so and nowhere else, at places where it holds
//! no transaction; waiting for a database gives way to nobody. So the dice are asked in the same order whenever a seed
//! is run, however fast the machine is.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::plan::{Fault, Rates};
use crate::clock::ManualClock;

/// A morning in 2024, so that no jump leaves the years that ids can tell.
const START: i64 = 1_705_920_000_000_000;

/// A job of a process, begun and not ended; what it says when it ends.
pub(super) type Job = Pin<Box<dyn Future<Output = String> + Send>>;

/// How far a job came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Ended(String),
    /// It gives way.
    Paused,
    /// Its process dies here, whatever it holds.
    Died,
}

#[derive(Debug)]
pub(super) struct World {
    pub clock: ManualClock,
    dice: Mutex<StdRng>,
    rates: Mutex<Rates>,
    trace: Mutex<Vec<String>>,
    violation: Mutex<Option<String>>,
    paused: AtomicBool,
    died: AtomicBool,
    is_stormy: AtomicBool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            clock: ManualClock::at(START),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            rates: Mutex::default(),
            trace: Mutex::default(),
            violation: Mutex::default(),
            paused: AtomicBool::new(false),
            died: AtomicBool::new(false),
            is_stormy: AtomicBool::new(false),
        }
    }

    /// A number below `end`, which is not 0.
    pub fn below(&self, end: usize) -> usize {
        lock(&self.dice).random_range(0..end)
    }

    /// True in `percent` of all cases.
    pub fn chance(&self, percent: u8) -> bool {
        percent > 0 && lock(&self.dice).random_range(0..100) < percent
    }

    pub fn seed(&self) -> u64 {
        lock(&self.dice).random()
    }

    /// From here on things go wrong, this often.
    pub fn begin_storm(&self, rates: Rates) {
        *lock(&self.rates) = rates;
        self.is_stormy.store(true, Ordering::Relaxed);
    }

    /// From here on nothing does.
    pub fn end_storm(&self) {
        *lock(&self.rates) = Rates::default();
        self.is_stormy.store(false, Ordering::Relaxed);
    }

    pub fn is_stormy(&self) -> bool {
        self.is_stormy.load(Ordering::Relaxed)
    }

    /// Whether `fault` happens here and now.
    pub fn strikes(&self, fault: Fault) -> bool {
        let rate = lock(&self.rates).of(fault);
        self.chance(rate)
    }

    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Notes what happens.
    pub fn tell(&self, what: impl Into<String>) {
        lock(&self.trace).push(what.into());
    }

    pub fn trace(&self) -> Vec<String> {
        lock(&self.trace).clone()
    }

    /// Notes that something happened that must not; the first is kept.
    pub fn violate(&self, what: String) {
        lock(&self.violation).get_or_insert(what);
    }

    pub fn check(&self) -> Result<(), String> {
        lock(&self.violation).clone().map_or(Ok(()), Err)
    }

    /// A place where others may go first.
    pub async fn pause(&self) {
        if self.strikes(Fault::Pause) {
            self.give_way().await;
        }
    }

    /// A place where others go first.
    pub async fn give_way(&self) {
        let mut is_back = false;
        poll_fn(|_| match std::mem::replace(&mut is_back, true) {
            true => Poll::Ready(()),
            false => {
                self.paused.store(true, Ordering::Relaxed);
                Poll::Pending
            }
        })
        .await;
    }

    /// The process dies here.
    pub async fn die(&self) {
        self.died.store(true, Ordering::Relaxed);
        self.give_way().await;
    }

    /// Runs `job` until it gives way, dies or ends.
    pub async fn advance(&self, job: &mut Job) -> Progress {
        poll_fn(|context| match job.as_mut().poll(context) {
            Poll::Ready(said) => Poll::Ready(Progress::Ended(said)),
            Poll::Pending if self.paused.swap(false, Ordering::Relaxed) => {
                let died = self.died.swap(false, Ordering::Relaxed);
                Poll::Ready(if died { Progress::Died } else { Progress::Paused })
            }
            // It waits for its database.
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}
