//! How often something may be tried: a number of times in any stretch of a given length, per key.
//!
//! Each process counts for itself. Memory is bounded: when too many keys are watched, the one tried longest ago is
//! forgotten, which an attacker reaches only with tens of thousands of addresses.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edd_events::clock::{Clock, Micros, micros};

/// Keys that are watched at once.
const MAX_KEYS: usize = 65_536;

/// A number of tries in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub tries: usize,
    pub window: Duration,
}

/// Too often. Says when the next try is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts: try again in {} s", .retry_after.as_secs().max(1))]
pub struct TooOften {
    pub retry_after: Duration,
}

/// Counts the tries of each key.
#[derive(Debug)]
pub struct Limiter<Key> {
    limit: Limit,
    max_keys: usize,
    clock: Arc<dyn Clock>,
    tries: Mutex<HashMap<Key, VecDeque<Micros>>>,
}

impl<Key: Hash + Eq + Clone> Limiter<Key> {
    pub fn new(limit: Limit, clock: Arc<dyn Clock>) -> Self {
        Self { limit, max_keys: MAX_KEYS, clock, tries: Mutex::default() }
    }

    /// Counts a try. One that is refused does not count, so waiting always helps.
    ///
    /// # Errors
    /// [`TooOften`]
    pub fn admit(&self, key: &Key) -> Result<(), TooOften> {
        let (now, window) = (self.clock.now(), micros(self.limit.window));
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if !tries.contains_key(key) && tries.len() >= self.max_keys {
            // For more than one, so that a flood of new keys does not look through all of them each time.
            make_room(&mut tries, self.max_keys - self.max_keys.div_ceil(16), now, window);
        }
        let times = tries.entry(key.clone()).or_default();
        times.retain(|at| is_recent(*at, now, window));
        if times.len() < self.limit.tries {
            times.push_back(now);
            return Ok(());
        }
        let left = times.front().map_or(window, |oldest| oldest + window - now);
        Err(TooOften { retry_after: Duration::from_micros(left.max(0).unsigned_abs()) })
    }

    /// Forgets keys that were not tried of late.
    pub fn prune(&self) {
        let (now, window) = (self.clock.now(), micros(self.limit.window));
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.retain(|_, times| times.back().is_some_and(|last| is_recent(*last, now, window)));
    }
}

/// A try in the future is one from before the clock was set back: it would block for as long as that jump.
fn is_recent(at: Micros, now: Micros, window: Micros) -> bool {
    (0..window).contains(&(now - at))
}

/// Forgets what is too old, and of the rest those tried longest ago until `keep` are left.
fn make_room<Key: Hash + Eq>(tries: &mut HashMap<Key, VecDeque<Micros>>, keep: usize, now: Micros, window: Micros) {
    tries.retain(|_, times| times.back().is_some_and(|last| is_recent(*last, now, window)));
    let mut spare = tries.len().saturating_sub(keep);
    if spare == 0 {
        return;
    }
    let mut last_tries: Vec<Micros> = tries.values().filter_map(|times| times.back().copied()).collect();
    let (_, &mut newest_forgotten, _) = last_tries.select_nth_unstable(spare - 1);
    tries.retain(|_, times| {
        let is_forgotten = spare > 0 && times.back().is_none_or(|last| *last <= newest_forgotten);
        spare -= usize::from(is_forgotten);
        !is_forgotten
    });
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 one, of which a single customer has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use edd_events::clock::ManualClock;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limiter(tries: usize, max_keys: usize) -> (Limiter<u32>, ManualClock) {
        let clock = ManualClock::at(1_000_000_000_000);
        let limiter = Limiter::new(Limit { tries, window: 15 * MINUTE }, Arc::new(clock.clone()));
        (Limiter { max_keys, ..limiter }, clock)
    }

    #[test]
    fn tries_are_counted_in_every_stretch_of_the_window() {
        let (limiter, clock) = limiter(2, 10);
        assert_eq!(limiter.admit(&1), Ok(()));
        clock.advance(10 * MINUTE);
        assert_eq!(limiter.admit(&1), Ok(()));
        assert_eq!(limiter.admit(&1), Err(TooOften { retry_after: 5 * MINUTE }));
        assert_eq!(limiter.admit(&2), Ok(()), "each key for itself");
        clock.advance(5 * MINUTE);
        assert_eq!(limiter.admit(&1), Ok(()), "the first is 15 minutes old, and refused ones do not count");
        assert_eq!(limiter.admit(&1), Err(TooOften { retry_after: 10 * MINUTE }));
    }

    #[test]
    fn a_clock_that_is_set_back_blocks_nobody() {
        let (limiter, clock) = limiter(1, 10);
        clock.advance(1000 * MINUTE);
        assert_eq!(limiter.admit(&1), Ok(()));
        clock.set(1_000_000_000_000);
        assert_eq!(limiter.admit(&1), Ok(()));
        assert_eq!(limiter.admit(&1), Err(TooOften { retry_after: 15 * MINUTE }));
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_the_latest_stay() {
        let (limiter, clock) = limiter(1, 100);
        for key in 0..1000 {
            clock.advance(Duration::from_millis(1));
            assert_eq!(limiter.admit(&key), Ok(()));
            assert!(limiter.tries.lock().expect("a lock").len() <= 100);
        }
        assert!(limiter.admit(&999).is_err());
        assert!(limiter.admit(&910).is_err());
        clock.advance(15 * MINUTE);
        limiter.prune();
        assert!(limiter.tries.lock().expect("a lock").is_empty());
    }

    #[test]
    fn all_addresses_of_a_customer_are_one() {
        let network = |text: &str| Network::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::"), network("2001:db8:1:3::"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.2"), network("192.0.2.1"));
    }
}
