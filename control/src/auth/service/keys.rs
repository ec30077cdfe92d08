//! The keys that access tokens are signed with, one after the other. All replicas read them from the database.

use std::sync::Arc;

use arc_swap::ArcSwap;
use edd_events::clock::{Micros, micros};

use super::Service;
use crate::access_token::{Claims, KeySet, LEEWAY_SECONDS, Signer, SigningKey, TokenError};
use crate::auth::config::{KeyTimes, Lifetimes};
use crate::auth::error::AuthError;
use crate::auth::store::keys::{self as store, StoredKey};

/// The keys as this process knows them.
#[derive(Debug)]
pub struct KeyRing {
    issuer: String,
    ring: ArcSwap<Ring>,
}

#[derive(Debug)]
struct Ring {
    /// The oldest first.
    signers: Vec<(Micros, Signer)>,
    public: KeySet,
}

impl KeyRing {
    /// One without keys.
    pub fn new(issuer: &str) -> Self {
        let ring = Ring { signers: Vec::new(), public: KeySet::new(issuer, []) };
        Self { issuer: issuer.to_owned(), ring: ArcSwap::from_pointee(ring) }
    }

    fn set(&self, keys: Vec<StoredKey>) {
        let public = KeySet::new(&self.issuer, keys.iter().map(|stored| &stored.key));
        let signer = |stored: StoredKey| (stored.active_from, Signer::new(&self.issuer, stored.key));
        self.ring.store(Arc::new(Ring { signers: keys.into_iter().map(signer).collect(), public }));
    }

    /// None: there is no key yet.
    pub(super) fn sign(&self, claims: &Claims, now: Micros) -> Option<String> {
        let ring = self.ring.load();
        let active = ring.signers.iter().rev().find(|(active_from, _)| *active_from <= now);
        // A clock that was set back to before the first key's time has that key.
        active.or(ring.signers.first()).map(|(_, signer)| signer.sign(claims))
    }

    pub(super) fn verify(&self, token: &str, now: Micros) -> Result<Claims, TokenError> {
        self.ring.load().public.verify(token, now)
    }

    pub(super) fn public(&self) -> KeySet {
        self.ring.load().public.clone()
    }
}

impl Service {
    /// Adds the next key when its time to be published has come, removes those whose tokens have all expired, and reads
    /// what other replicas did. Called at start and every minute.
    ///
    /// # Errors
    /// The database fails; the keys that are known stay in use.
    pub async fn maintain_keys(&self) -> Result<(), AuthError> {
        let (now, times) = (self.0.clock.now(), &self.0.config.keys);
        let mut stored = store::all(self.0.database.reader()).await?;
        if let Some((generation, active_from)) = due(&stored, times, now) {
            let key = self.0.entropy.with(SigningKey::generate);
            store::insert(self.0.database.writer(), &StoredKey { generation, key, active_from }).await?;
            stored = store::all(self.0.database.reader()).await?;
        }
        for generation in spent(&stored, times, &self.0.config.lifetimes, now) {
            store::remove(self.0.database.writer(), generation).await?;
            stored.retain(|key| key.generation != generation);
        }
        self.0.keys.set(stored);
        Ok(())
    }
}

/// The generation and the time of the key that has to be added, if one has to.
fn due(stored: &[StoredKey], times: &KeyTimes, now: Micros) -> Option<(i64, Micros)> {
    let Some(last) = stored.last() else { return Some((1, now)) };
    let (rotation, lead) = (micros(times.rotation), micros(times.lead));
    let turn = last.active_from + rotation;
    // After a long stop its turn may be past; it is published for as long as any other all the same.
    (now >= turn - lead).then_some((last.generation + 1, turn.max(now + lead)))
}

/// The generations that nobody needs: all tokens that they signed have expired, or their time is so far off that they
/// were added under a clock that was wrong.
fn spent(stored: &[StoredKey], times: &KeyTimes, lifetimes: &Lifetimes, now: Micros) -> Vec<i64> {
    let longest = micros(lifetimes.access_token.max(lifetimes.plain_session)) + 2 * LEEWAY_SECONDS * 1_000_000;
    let is_past = |key: &StoredKey, next: &StoredKey| next.active_from + longest < now && key.active_from < now;
    let past = stored.windows(2).filter(|pair| is_past(&pair[0], &pair[1])).map(|pair| pair[0].generation);
    let horizon = now + micros(times.rotation) + micros(times.lead);
    let far = stored.iter().skip(1).filter(|key| key.active_from > horizon).map(|key| key.generation);
    past.chain(far).collect()
}

#[cfg(test)]
mod tests {
    use edd_events::clock::Micros;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const DAY: Micros = 24 * 3600 * 1_000_000;

    fn key(generation: i64, active_from: Micros) -> StoredKey {
        let key = SigningKey::generate(&mut StdRng::seed_from_u64(generation as u64));
        StoredKey { generation, key, active_from }
    }

    #[test]
    fn the_next_key_is_published_a_day_before_its_turn() {
        let times = KeyTimes::default();
        assert_eq!(due(&[], &times, 5), Some((1, 5)));
        let first = [key(1, 0)];
        assert_eq!(due(&first, &times, 29 * DAY - 1), None);
        assert_eq!(due(&first, &times, 29 * DAY), Some((2, 30 * DAY)));
        assert_eq!(due(&first, &times, 90 * DAY), Some((2, 91 * DAY)), "after a long stop");
        let both = [key(1, 0), key(2, 30 * DAY)];
        assert_eq!(due(&both, &times, 30 * DAY), None);
        assert_eq!(due(&both, &times, -DAY), None, "a clock that is set back adds none");
    }

    #[test]
    fn a_key_stays_until_its_last_token_has_expired() {
        let spent = |stored: &[StoredKey], now| spent(stored, &KeyTimes::default(), &Lifetimes::default(), now);
        let both = [key(1, 0), key(2, 30 * DAY)];
        assert!(spent(&both, 31 * DAY).is_empty());
        assert_eq!(spent(&both, 31 * DAY + 60_000_001), [1]);
        assert_eq!(spent(&[key(1, 0), key(2, 1000 * DAY)], DAY), [2], "added by a clock that was wrong");
        assert!(spent(&[key(1, 1000 * DAY)], DAY).is_empty(), "there is always one");
    }

    #[test]
    fn the_key_whose_turn_it_is_signs_and_all_verify() {
        let ring = KeyRing::new("issuer");
        let claims = Claims {
            user_id: "V1StGXR8_Z5jdHi6B-myT".parse().expect("an id"),
            user_number: 1,
            username: "ann".to_owned(),
            display_name: "Ann".to_owned(),
            is_admin: false,
            sid: "s".to_owned(),
            iat: 0,
            exp: 100 * 24 * 3600,
            jti: "j".to_owned(),
        };
        assert_eq!(ring.sign(&claims, 0), None);
        let (first, second) = (key(1, 0), key(2, 30 * DAY));
        let signed_by = |token: &str, key: &StoredKey| KeySet::new("issuer", [&key.key]).verify(token, DAY).is_ok();
        ring.set(vec![first.clone(), second.clone()]);
        for (now, signer) in [(-1, &first), (0, &first), (30 * DAY - 1, &first), (30 * DAY, &second)] {
            let token = ring.sign(&claims, now).expect("a token");
            assert!(signed_by(&token, signer), "at {now}");
            assert_eq!(ring.verify(&token, DAY).as_ref(), Ok(&claims));
        }
        let published = ring.public().to_json();
        assert!(published.contains(first.key.kid()) && published.contains(second.key.kid()));
    }
}
