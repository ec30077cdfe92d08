//! What was verified lately: a table of fixed size, read without a lock.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use edd_events::clock::Micros;
use sha2::{Digest, Sha256};

/// Places that a key may be in.
const WAYS: usize = 4;

/// A token's SHA-256, of what it was read with: the token itself is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// The key of what was found out about `token` with the keys of `generation`.
    pub(super) fn of(token: &str, generation: u64) -> Self {
        Self(Sha256::new().chain_update(generation.to_le_bytes()).chain_update(token).finalize().into())
    }
}

#[derive(Debug)]
struct Entry<T> {
    key: Key,
    /// The first moment at which it does not count any more.
    until: Micros,
    value: T,
}

/// At most as many values as it has places, each for a time. A new one takes the place of the one that ends first.
///
/// Two writers of one place may undo each other: the value is then found out again.
#[derive(Debug)]
pub(super) struct Cache<T> {
    places: Box<[ArcSwapOption<Entry<T>>]>,
}

impl<T: Clone> Cache<T> {
    /// `sets` is a power of two; there are [`WAYS`] places in each.
    pub(super) fn new(sets: usize) -> Self {
        assert!(sets.is_power_of_two(), "a mask picks the set");
        Self { places: (0..sets * WAYS).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// The places that `key` may be in. Who sends tokens cannot choose them, but by trying hashes.
    fn set(&self, key: Key) -> &[ArcSwapOption<Entry<T>>] {
        let [a, b, c, d, ..] = key.0;
        let hash = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or_default();
        let first = (hash & (self.places.len() / WAYS - 1)) * WAYS;
        &self.places[first..first + WAYS]
    }

    pub(super) fn get(&self, key: Key, now: Micros) -> Option<T> {
        self.set(key).iter().find_map(|place| {
            let entry = place.load();
            let entry = entry.as_ref().filter(|entry| entry.key == key && now < entry.until)?;
            Some(entry.value.clone())
        })
    }

    pub(super) fn put(&self, key: Key, value: T, until: Micros) {
        let ends = |place: &ArcSwapOption<Entry<T>>| match place.load().as_ref() {
            Some(entry) if entry.key == key => None,
            Some(entry) => Some(entry.until),
            None => Some(Micros::MIN),
        };
        // Its own place first: nothing is less than `None`.
        let place = self.set(key).iter().min_by_key(|place| ends(place)).expect("a set has places");
        place.store(Some(Arc::new(Entry { key, until, value })));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.iter().filter(|place| place.load().is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: impl ToString) -> Key {
        Key::of(&text.to_string(), 0)
    }

    #[test]
    fn values_are_found_for_their_time() {
        let cache = Cache::new(8);
        let (a, b) = (key("a"), key("b"));
        cache.put(a, 1, 100);
        cache.put(b, 2, 200);
        assert_eq!((cache.get(a, 99), cache.get(b, 99), cache.get(key("c"), 99)), (Some(1), Some(2), None));
        assert_eq!((cache.get(a, 100), cache.get(b, 100)), (None, Some(2)));
        cache.put(a, 3, 300);
        assert_eq!((cache.get(a, 250), cache.len()), (Some(3), 2), "in its own place");
    }

    #[test]
    fn the_table_never_grows_and_the_first_to_end_goes_first() {
        let cache = Cache::new(2);
        for n in 0..1000 {
            cache.put(key(n), n, n);
        }
        assert_eq!(cache.len(), 2 * WAYS);
        let kept: Vec<i64> = (0..1000).filter(|n| cache.get(key(n), 0).is_some()).collect();
        assert!(kept.len() == 2 * WAYS && kept.iter().all(|n| *n > 950), "{kept:?}");
    }

    #[test]
    fn readers_and_writers_do_not_wait_for_each_other() {
        let cache = Cache::new(2);
        std::thread::scope(|scope| {
            for thread in 0..4_i64 {
                let cache = &cache;
                scope.spawn(move || {
                    for n in 0..2000 {
                        let key = key(n % 16);
                        cache.put(key, n % 16, n + thread + 1);
                        assert!(cache.get(key, 0).is_none_or(|found| found == n % 16), "another key's value");
                    }
                });
            }
        });
        assert!(cache.len() <= 2 * WAYS);
    }
}
