//! A service with a clock that stands still, and who asks it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use edd_events::bus::local::LocalBus;
use edd_events::clock::ManualClock;
use edd_events::database::{Database, Kind};
use edd_events::message::Message;
use edd_events::outbox;
use edd_events::publisher::Publisher;
use edd_proto::{AnyEvent, ContainerId, Encoding};
use http::{HeaderMap, Method, Request, StatusCode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::scripted::Scripted;
use crate::access_token::{Claims, DEFAULT_ISSUER, KeySet, Signer, SigningKey};
use crate::caller::{KeySource, Keys, LoadError, Verifier};
use crate::compute::config::ComputeConfig;
use crate::compute::reconciler::Reconciler;
use crate::compute::service::{Foundation, Service};
use crate::compute::{Compute, SOURCE, STEPS};
use crate::request::{TrustedProxies, tracked};
use crate::revocation::Revocations;
use crate::scratch::Scratch;
use crate::service_key::ServiceKey;

pub const ANN: &str = "V1StGXR8_Z5jdHi6B-myT";
pub const BOB: &str = "W1StGXR8_Z5jdHi6B-myT";
pub const SERVICE_KEY: &str = "between services";
/// 2026-01-01T00:00:00Z
pub const NOW: i64 = 1_767_225_600_000_000;

fn signing_key() -> SigningKey {
    SigningKey::generate(&mut StdRng::seed_from_u64(1))
}

#[derive(Debug)]
struct OneKey;

#[async_trait::async_trait]
impl KeySource for OneKey {
    async fn load(&self) -> Result<KeySet, LoadError> {
        Ok(KeySet::new(DEFAULT_ISSUER, [&signing_key()]))
    }
}

pub struct Fixture {
    /// Goes with its folder.
    _scratch: Scratch,
    pub clock: ManualClock,
    pub database: Database,
    pub bus: Arc<LocalBus>,
    pub platform: Arc<Scripted>,
    pub verifier: Verifier,
    pub compute: Compute,
    router: Router,
}

/// Quotas that no test meets by accident.
pub fn config() -> ComputeConfig {
    let mut config = ComputeConfig { service_key: Some(ServiceKey::new(SERVICE_KEY)), ..ComputeConfig::default() };
    config.quotas.containers = 500;
    config
}

impl Fixture {
    pub async fn new(kind: Kind) -> Self {
        Self::with(kind, config()).await
    }

    pub async fn with(kind: Kind, config: ComputeConfig) -> Self {
        let scratch = Scratch::new(kind);
        let database = scratch.open(&STEPS).await;
        let clock = ManualClock::at(NOW);
        let bus = LocalBus::open(&scratch.folder.path().join("bus.db"), Arc::new(clock.clone())).await;
        let bus = Arc::new(bus.expect("a bus"));
        let keys = Keys::open(Arc::new(OneKey), DEFAULT_ISSUER, None).await;
        let verifier = Verifier::new(keys, Revocations::default(), bus.clone(), Arc::new(clock.clone()));
        let platform = Arc::new(Scripted::default());
        let foundation = Foundation {
            database: database.clone(),
            publisher: Publisher::new(SOURCE, Encoding::Protobuf, Arc::new(clock.clone())),
            clock: Arc::new(clock.clone()),
            platform: platform.clone(),
        };
        let compute = Compute::new(config, foundation, verifier.clone());
        let peer = MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1)));
        let router = tracked(compute.router(), TrustedProxies::loopback()).layer(peer);
        Self { _scratch: scratch, clock, database, bus, platform, verifier, compute, router }
    }

    pub fn service(&self) -> &Service {
        self.compute.service()
    }

    /// The routes, to be served over real connections.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// One as after a restart.
    pub fn reconciler(&self) -> Reconciler {
        Reconciler::new(self.service().clone())
    }

    /// Sees to everything that is due now.
    pub async fn round(&self) {
        self.reconciler().round().await.expect("a round");
    }

    /// Lets time go by, and sees to everything that is due after it.
    pub async fn later(&self, by: Duration) {
        self.clock.advance(by);
        self.round().await;
    }

    /// An access token of the user's.
    pub fn token(&self, user: &str, session: &str) -> String {
        let now = NOW / 1_000_000;
        let claims = Claims {
            user_id: user.parse().expect("an id"),
            user_number: if user == ANN { 42 } else { 43 },
            username: if user == ANN { "ann" } else { "bob" }.to_owned(),
            display_name: String::new(),
            is_admin: session == "admin",
            sid: session.to_owned(),
            iat: now,
            exp: now + 10_000_000,
            jti: "1".to_owned(),
        };
        Signer::new(DEFAULT_ISSUER, signing_key()).sign(&claims)
    }

    pub fn call(&self, user: &str, method: Method, path: &str) -> Call<'_> {
        let session = if user == ANN { "s1" } else { "s2" };
        self.anonymous(method, path).header("authorization", &format!("Bearer {}", self.token(user, session)))
    }

    pub fn anonymous(&self, method: Method, path: &str) -> Call<'_> {
        let request = Request::builder().method(method).uri(path).header("host", "compute.cloud.localhost:8080");
        Call { fixture: self, request, body: String::new() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(ANN, Method::GET, path).send().await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(ANN, Method::POST, path).json(&body).send().await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(ANN, Method::PUT, path).json(&body).send().await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(ANN, Method::DELETE, path).send().await
    }

    /// POSTs nothing, as old clients do.
    pub async fn act(&self, id: ContainerId, action: &str) -> Answer {
        self.call(ANN, Method::POST, &format!("/compute/containers/{id}/{action}")).send().await
    }

    /// Asks as another service.
    pub fn fleet(&self, method: Method, path: &str) -> Call<'_> {
        self.anonymous(method, path).header("x-service-key", SERVICE_KEY)
    }

    /// A container of Ann's that is wanted; its id.
    pub async fn create(&self, name: &str) -> ContainerId {
        self.create_as(ANN, json!({"name": name})).await
    }

    pub async fn create_as(&self, user: &str, body: Value) -> ContainerId {
        let answer = self.call(user, Method::POST, "/compute/containers").json(&body).send().await.ok();
        answer["id"].as_str().expect("an id").parse().expect("a container id")
    }

    /// One that runs.
    pub async fn run(&self, name: &str) -> ContainerId {
        let id = self.create(name).await;
        self.round().await;
        assert_eq!(self.status(id).await, "running");
        id
    }

    pub async fn show(&self, id: ContainerId) -> Value {
        self.get(&format!("/compute/containers/{id}")).await.ok()
    }

    pub async fn status(&self, id: ContainerId) -> String {
        self.show(id).await["status"].as_str().expect("a status").to_owned()
    }

    /// A key of the user's; its number.
    pub async fn add_key(&self, user: &str, seed: u8) -> i64 {
        let body = json!({"name": format!("key {seed}"), "public_key": public_key(seed)});
        let answer = self.call(user, Method::POST, "/compute/ssh-keys").json(&body).send().await.ok();
        answer["id"].as_i64().expect("a number")
    }

    /// Messages since the last time.
    pub async fn messages(&self) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let rows = outbox::pending(&self.database, 1000).await.expect("rows");
            if rows.is_empty() {
                return all;
            }
            let mut transaction = self.database.begin().await.expect("a transaction");
            outbox::mark_published(&mut transaction, &rows, 1).await.expect("marks");
            self.database.commit(transaction).await.expect("a commit");
            all.extend(rows.into_iter().map(|row| row.message));
        }
    }

    /// The same as events.
    pub async fn events(&self) -> Vec<AnyEvent> {
        let decode = |message: Message| {
            AnyEvent::decode(&message.subject, Encoding::Protobuf, &message.payload).expect("an event")
        };
        self.messages().await.into_iter().map(decode).collect()
    }

    /// What happened since the last time, without the ids: `created`, `started`.
    pub async fn happenings(&self) -> Vec<String> {
        let last = |message: Message| message.subject.rsplit('.').next().expect("a part").to_owned();
        self.messages().await.into_iter().map(last).collect()
    }
}

/// An Ed25519 key as its owner pastes it: the bytes are no point of the curve, which nobody checks before a login.
pub fn public_key(seed: u8) -> String {
    use base64::Engine;
    let mut blob = Vec::new();
    for part in [&b"ssh-ed25519"[..], &[seed; 32]] {
        blob.extend(u32::try_from(part.len()).expect("a short part").to_be_bytes());
        blob.extend(part);
    }
    format!("ssh-ed25519 {} ann@laptop", base64::engine::general_purpose::STANDARD.encode(blob))
}

/// A request to be.
pub struct Call<'a> {
    fixture: &'a Fixture,
    request: http::request::Builder,
    body: String,
}

impl Call<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let headers = self.request.headers_mut().expect("a request");
        headers.insert(http::HeaderName::try_from(name).expect("a name"), value.parse().expect("a value"));
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string();
        self.header("content-type", "application/json")
    }

    pub async fn send(self) -> Answer {
        let request = self.request.body(Body::from(self.body)).expect("a request");
        let (head, body) = self.fixture.router.clone().oneshot(request).await.expect("an answer").into_parts();
        let body = axum::body::to_bytes(body, 8 << 20).await.expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: head.status.as_u16(), headers: head.headers, text, json }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK.as_u16(), "{}", self.text);
        self.json
    }

    #[track_caller]
    pub fn done(self) {
        assert_eq!(self.ok(), json!({"status": "ok"}));
    }

    /// The message of a refusal with `status`.
    #[track_caller]
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let fields = self.json.as_object().expect("an object");
        assert_eq!(fields.len(), 1, "{}", self.text);
        fields["error"].as_str().expect("a message").to_owned()
    }
}
