//! A verifier with an auth service that is played by the test.

mod extract;
mod verify;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use edd_events::bus::Bus;
use edd_events::bus::local::LocalBus;
use edd_events::clock::ManualClock;
use edd_proto::auth::{ValidateTokenRequest, ValidateTokenResponse};
use edd_proto::{Encoding, Request};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::access_token::{DEFAULT_ISSUER, KeySet, Signer, SigningKey};
use crate::revocation::{Revocation, Revocations};

pub const ANN: &str = "V1StGXR8_Z5jdHi6B-myT";
/// Unix seconds.
pub const NOW: i64 = 1_800_000_000;

pub fn key(seed: u64) -> SigningKey {
    SigningKey::generate(&mut StdRng::seed_from_u64(seed))
}

pub fn claims(sid: &str) -> Claims {
    Claims {
        user_id: ANN.parse().unwrap(),
        user_number: 42,
        username: "ann".to_owned(),
        display_name: "Ann".to_owned(),
        is_admin: sid == "admin",
        sid: sid.to_owned(),
        iat: NOW,
        exp: NOW + 900,
        jti: "1".to_owned(),
    }
}

pub fn api_token(letter: char) -> String {
    format!("{API_TOKEN_PREFIX}{}", letter.to_string().repeat(43))
}

pub fn revoked(session_id: &str) -> Revocation {
    Revocation::Session { session_id: session_id.to_owned(), user: None, expires_at: None, version: 2 }
}

/// Keys that can be withheld.
#[derive(Debug)]
pub struct Source {
    pub keys: ArcSwap<KeySet>,
    pub error: Mutex<Option<String>>,
    pub loads: AtomicUsize,
}

#[async_trait]
impl KeySource for Source {
    async fn load(&self) -> Result<KeySet, LoadError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        error.map_or_else(|| Ok(KeySet::clone(&self.keys.load())), |error| Err(LoadError(error)))
    }
}

impl Source {
    pub fn fails(&self, error: Option<&str>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error.map(str::to_owned);
    }

    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }
}

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub clock: ManualClock,
    pub bus: Arc<LocalBus>,
    pub source: Arc<Source>,
    pub verifier: Verifier,
}

impl Fixture {
    /// Without an auth service on the bus; its keys can be had.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(NOW * 1_000_000);
        let bus = Arc::new(LocalBus::open(&dir.path().join("bus.db"), Arc::new(clock.clone())).await.unwrap());
        let keys = ArcSwap::from_pointee(KeySet::new(DEFAULT_ISSUER, [&key(1)]));
        let source = Arc::new(Source { keys, error: Mutex::default(), loads: AtomicUsize::new(0) });
        let verifier = Self::verifier(dir.path(), &clock, &bus, &source).await;
        Self { dir, clock, bus, source, verifier }
    }

    async fn verifier(
        dir: &std::path::Path,
        clock: &ManualClock,
        bus: &Arc<LocalBus>,
        source: &Arc<Source>,
    ) -> Verifier {
        let keys = Keys::open(source.clone(), DEFAULT_ISSUER, Some(dir.join("jwks.json"))).await;
        Verifier::new(keys, Revocations::default(), bus.clone(), Arc::new(clock.clone()))
    }

    /// One as after a restart.
    pub async fn restarted(&self) -> Verifier {
        Self::verifier(self.dir.path(), &self.clock, &self.bus, &self.source).await
    }

    pub fn token(&self, sid: &str) -> String {
        Signer::new(DEFAULT_ISSUER, key(1)).sign(&claims(sid))
    }

    /// Serves validation with `answers`; other tokens are not good. The number of questions so far.
    pub async fn serve(&self, answers: HashMap<String, ValidateTokenResponse>) -> Arc<AtomicUsize> {
        let mut questions = self.bus.serve(ValidateTokenRequest::SUBJECT).await.unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let request: ValidateTokenRequest = Encoding::Protobuf.decode(&question.payload).unwrap();
                let answer = answers.get(&request.token).cloned();
                let answer = answer
                    .unwrap_or_else(|| ValidateTokenResponse { error: "unknown".to_owned(), ..Default::default() });
                let answer = Encoding::Protobuf.encode(&answer).unwrap();
                let _ = question.reply.send(Bytes::from(answer));
            }
        });
        count
    }
}

/// A good token of Ann's.
pub fn good() -> ValidateTokenResponse {
    ValidateTokenResponse {
        valid: true,
        user_id: 42,
        username: "ann".to_owned(),
        user_uid: ANN.to_owned(),
        scopes: vec![edd_proto::auth::Scope {
            resource: format!("compute.{ANN}.containers"),
            actions: vec!["read".to_owned()],
        }],
        record_id: "r1".to_owned(),
        ..Default::default()
    }
}
