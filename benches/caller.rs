//! What it costs to know who calls: a token that was seen before, one that was not, and a look at what is revoked.
//! `cargo bench --bench caller`

use std::sync::Arc;

use async_trait::async_trait;
use divan::{Bencher, black_box};
use edd_control::access_token::{Claims, DEFAULT_ISSUER, KeySet, Signer, SigningKey};
use edd_control::caller::{KeySource, Keys, LoadError, Verifier};
use edd_control::revocation::{Revocation, Revocations};
use edd_events::bus::local::LocalBus;
use edd_events::clock::{Clock, SystemClock};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REVOKED: [usize; 2] = [10, 1_000_000];

fn main() {
    divan::main();
}

fn signer() -> Signer {
    Signer::new(DEFAULT_ISSUER, SigningKey::generate(&mut StdRng::seed_from_u64(1)))
}

fn claims() -> Claims {
    let now = SystemClock.now() / 1_000_000;
    Claims {
        user_id: "V1StGXR8_Z5jdHi6B-myT".parse().expect("a user id"),
        user_number: 42,
        username: "ann".to_owned(),
        display_name: "Ann".to_owned(),
        is_admin: false,
        sid: "Uakgb_J5m9g-0JDMbcJqL".to_owned(),
        iat: now,
        exp: now + 900,
        jti: "sYl2-0dQFmdV5xHtB3u9z".to_owned(),
    }
}

fn revoked(count: usize) -> Revocations {
    let set = Revocations::default();
    for index in 0..count {
        let session_id = format!("session-{index:014}");
        set.insert(&Revocation::Session { session_id, user: None, expires_at: None, version: 2 });
    }
    set
}

#[divan::bench]
fn sign(bencher: Bencher) {
    let (signer, claims) = (signer(), claims());
    bencher.bench(|| signer.sign(black_box(&claims)));
}

/// Keys that never change.
#[derive(Debug)]
struct Fixed(KeySet);

#[async_trait]
impl KeySource for Fixed {
    async fn load(&self) -> Result<KeySet, LoadError> {
        Ok(self.0.clone())
    }
}

#[divan::bench]
fn read_a_new_token(bencher: Bencher) {
    let signer = signer();
    let (keys, token, now) = (KeySet::new(DEFAULT_ISSUER, [signer.key()]), signer.sign(&claims()), SystemClock.now());
    bencher.bench(|| keys.verify(black_box(&token), now).expect("a good token"));
}

/// The hot path of every request: the whole of `Verifier::verify`.
#[divan::bench(args = REVOKED)]
fn verify_a_known_token(bencher: Bencher, count: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (signer, clock) = (signer(), Arc::new(SystemClock));
    let token = signer.sign(&claims());
    let verifier = runtime.block_on(async {
        let bus = LocalBus::open(&dir.path().join("bus.db"), clock.clone()).await.expect("a bus");
        let source = Arc::new(Fixed(KeySet::new(DEFAULT_ISSUER, [signer.key()])));
        let keys = Keys::open(source, DEFAULT_ISSUER, None).await;
        let verifier = Verifier::new(keys, revoked(count), Arc::new(bus), clock);
        verifier.verify(&token).await.expect("a good token");
        verifier
    });
    bencher.bench_local(|| runtime.block_on(verifier.verify(black_box(&token))).expect("a good token"));
}

/// A session that was good until now.
#[divan::bench(args = REVOKED)]
fn revoke(bencher: Bencher, count: usize) {
    let set = revoked(count);
    let mut next = 0;
    let another = || {
        next += 1;
        Revocation::Session { session_id: format!("another-{next}"), user: None, expires_at: None, version: 2 }
    };
    bencher.with_inputs(another).bench_local_refs(|revocation| set.insert(black_box(revocation)));
}
