//! The API with its users.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use edd_events::bus::local::LocalBus;
use edd_events::clock::ManualClock;
use edd_events::database::{Database, Kind};
use edd_events::publisher::Publisher;
use edd_events::user_cache;
use edd_proto::Encoding;
use http::{HeaderMap, HeaderName, Method, Request};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::access_token::{Claims, DEFAULT_ISSUER, KeySet, Signer, SigningKey};
use crate::caller::{KeySource, Keys, LoadError, Verifier};
use crate::password::PasswordConfig;
use crate::request::{TrustedProxies, tracked};
use crate::revocation::Revocations;
use crate::scratch::Scratch;
use crate::sfs::config::{Quotas, SfsConfig};
use crate::sfs::service::Foundation;
use crate::sfs::storage::BlobStore;
use crate::sfs::tests::fixture::{ANN, BOB, NOW, ROOT};
use crate::sfs::{SOURCE, STEPS, Sfs};

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

/// The share over HTTP. Ann has the private namespace `docs`.
pub struct Site {
    _scratch: Scratch,
    pub clock: ManualClock,
    pub database: Database,
    router: Router,
}

impl Site {
    pub async fn new() -> Self {
        Self::with(Quotas::default()).await
    }

    pub async fn with(quotas: Quotas) -> Self {
        let scratch = Scratch::new(Kind::Sqlite);
        let store = BlobStore::local(&scratch.folder.path().join("blobs")).expect("a store");
        Self::on(scratch, store, quotas).await
    }

    pub async fn on(scratch: Scratch, store: BlobStore, quotas: Quotas) -> Self {
        let steps = [&STEPS[..], &[user_cache::STEP]].concat();
        let database = scratch.open(&steps).await;
        let clock = ManualClock::at(NOW);
        let bus = LocalBus::open(&scratch.folder.path().join("bus.db"), Arc::new(clock.clone())).await;
        let keys = Keys::open(Arc::new(OneKey), DEFAULT_ISSUER, None).await;
        let bus = Arc::new(bus.expect("a bus"));
        let verifier = Verifier::new(keys, Revocations::default(), bus, Arc::new(clock.clone()));
        let foundation = Foundation {
            database: database.clone(),
            publisher: Publisher::new(SOURCE, Encoding::Protobuf, Arc::new(clock.clone())),
            clock: Arc::new(clock.clone()),
            store,
        };
        let passwords = PasswordConfig { memory_kib: 64, passes: 1, ..PasswordConfig::default() };
        let config = SfsConfig { quotas, passwords, ..SfsConfig::default() };
        let sfs = Sfs::new(config, foundation, verifier).expect("the share");
        let peer = MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1)));
        let router = tracked(sfs.router(), TrustedProxies::loopback()).layer(peer);
        let site = Self { _scratch: scratch, clock, database, router };
        site.post("/storage/namespaces", &json!({"name": "docs"})).await.ok();
        site
    }

    fn token(user: &str) -> String {
        let now = NOW / 1_000_000;
        let claims = Claims {
            user_id: user.parse().expect("an id"),
            user_number: i64::from(user.as_bytes()[0]),
            username: user.to_owned(),
            display_name: String::new(),
            is_admin: user == ROOT,
            sid: format!("session of {user}"),
            iat: now,
            exp: now + 10_000_000,
            jti: "1".to_owned(),
        };
        Signer::new(DEFAULT_ISSUER, signing_key()).sign(&claims)
    }

    /// A request of the user's, `GET /path`; of nobody's without one.
    pub fn call(&self, user: Option<&str>, request: &str) -> Call<'_> {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let method: Method = method.parse().expect("a method");
        let builder = Request::builder().method(method).uri(path).header("host", "storage.cloud.localhost:8080");
        let call = Call { site: self, request: builder, body: Body::empty() };
        match user {
            Some(user) => call.header("authorization", &format!("Bearer {}", Self::token(user))),
            None => call,
        }
    }

    pub fn ann(&self, request: &str) -> Call<'_> {
        self.call(Some(ANN), request)
    }

    pub fn bob(&self, request: &str) -> Call<'_> {
        self.call(Some(BOB), request)
    }

    pub fn admin(&self, request: &str) -> Call<'_> {
        self.call(Some(ROOT), request)
    }

    pub fn nobody(&self, request: &str) -> Call<'_> {
        self.call(None, request)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ann(&format!("POST {path}")).json(body).send().await
    }

    /// Ann writes a file.
    pub async fn file(&self, path: &str, bytes: &str) -> Value {
        self.ann(&format!("POST /storage/{path}?overwrite=true")).body(bytes.to_owned()).send().await.ok()
    }

    /// What Ann reads.
    pub async fn read(&self, path: &str) -> String {
        let answer = self.ann(&format!("GET /storage/{path}")).send().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }
}

/// A request to be.
pub struct Call<'a> {
    site: &'a Site,
    request: http::request::Builder,
    body: Body,
}

impl Call<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let headers = self.request.headers_mut().expect("a request");
        headers.append(HeaderName::try_from(name).expect("a name"), value.parse().expect("a value"));
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// The answer's head; its body is still to come.
    pub async fn begin(self) -> axum::response::Response {
        let request = self.request.body(self.body).expect("a request");
        self.site.router.clone().oneshot(request).await.expect("an answer")
    }

    pub async fn send(self) -> Answer {
        Answer::of(self.begin().await).await
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn of(response: axum::response::Response) -> Self {
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 8 << 20).await.expect("a body").to_vec();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    #[track_caller]
    pub fn done(self) {
        assert_eq!(self.ok(), json!({"status": "ok"}));
    }

    /// The message of a refusal with `status`.
    #[track_caller]
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let json = self.json();
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(1), "{json}");
        json["error"].as_str().expect("a message").to_owned()
    }
}
