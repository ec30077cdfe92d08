//! A service with a clock that stands still, and who asks it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use edd_events::bus::local::LocalBus;
use edd_events::clock::ManualClock;
use edd_events::database::{Database, Kind};
use edd_events::outbox;
use edd_events::publisher::Publisher;
use edd_proto::{AnyEvent, Encoding};
use edd_servers::postgres::Postgres;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::auth::config::{AuthConfig, FirstAdmin};
use crate::auth::service::{FirstPassword, Service};
use crate::auth::{Auth, SOURCE, store};
use crate::password::PasswordConfig;
use crate::request::{TrustedProxies, tracked};
use crate::service_key::ServiceKey;

/// Makes two tests of each function that is named: `name::sqlite` and `name::postgres`.
macro_rules! on_each_database {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use edd_events::database::Kind;

            #[tokio::test]
            async fn sqlite() {
                super::$name(Kind::Sqlite).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$name(Kind::Postgres).await;
            }
        }
    )+};
}
pub(super) use on_each_database;

pub(super) const ADMIN_PASSWORD: &str = "correct horse battery";
pub(super) const PASSWORD: &str = "hunter2hunter2";
pub(super) const SERVICE_KEY: &str = "between services";
pub(super) const DASHBOARD: &str = "cloud.localhost:8080";
/// 2026-01-01T00:00:00Z
pub(super) const NOW: i64 = 1_767_225_600_000_000;

pub(super) struct Fixture {
    _folder: tempfile::TempDir,
    url: String,
    config: AuthConfig,
    pub clock: ManualClock,
    pub database: Database,
    pub bus: Arc<LocalBus>,
    pub auth: Auth,
    pub first_password: Option<FirstPassword>,
    router: Router,
}

/// Cheap hashes, and an administrator whose password is known.
pub(super) fn config() -> AuthConfig {
    let passwords = PasswordConfig { memory_kib: 64, passes: 1, lanes: 1, concurrent_hashes: 2, waiting_hashes: 64 };
    let first_admin = FirstAdmin {
        username: "admin".parse().expect("a name"),
        password: Some(ADMIN_PASSWORD.parse().expect("a password")),
    };
    AuthConfig { passwords, first_admin, service_key: Some(ServiceKey::new(SERVICE_KEY)), ..AuthConfig::default() }
}

impl Fixture {
    pub async fn new(kind: Kind) -> Self {
        Self::with(kind, config()).await
    }

    pub async fn with(kind: Kind, config: AuthConfig) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = match kind {
            Kind::Sqlite => format!("sqlite://{}?mode=rwc", folder.path().join("auth.db").display()),
            Kind::Postgres => Postgres::shared().database(),
        };
        let clock = ManualClock::at(NOW);
        let bus = LocalBus::open(&folder.path().join("bus.db"), Arc::new(clock.clone())).await.expect("a bus");
        let bus = Arc::new(bus);
        let (database, auth, first_password) = start(&url, config.clone(), &bus, &clock).await;
        let router = served(&auth);
        Self { _folder: folder, url, config, clock, database, bus, auth, first_password, router }
    }

    /// Another process on the same database.
    pub async fn replica(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (url, config, bus, clock) = (self.url.clone(), self.config.clone(), self.bus.clone(), self.clock.clone());
        let (database, auth, first_password) = start(&url, config.clone(), &bus, &clock).await;
        let router = served(&auth);
        Self { _folder: folder, url, config, clock, database, bus, auth, first_password, router }
    }

    /// The same, after its configuration changed.
    pub async fn restarted(self, config: AuthConfig) -> Self {
        let (database, auth, _) = start(&self.url, config.clone(), &self.bus, &self.clock).await;
        let router = served(&auth);
        Self { database, auth, router, config, ..self }
    }

    pub fn service(&self) -> &Service {
        self.auth.service()
    }

    pub fn call(&self, method: Method, path: &str) -> Call<'_> {
        let request = Request::builder().method(method).uri(path).header("host", "auth.cloud.localhost:8080");
        Call { fixture: self, request, body: String::new() }
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub fn put(&self, path: &str) -> Call<'_> {
        self.call(Method::PUT, path)
    }

    pub fn delete(&self, path: &str) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    /// An account that its owner registered; their id.
    pub async fn register(&self, username: &str) -> String {
        let account = json!({"username": username, "password": PASSWORD});
        let answer = self.post("/api/register").json(&account).send().await.ok();
        answer["user_id"].as_str().expect("an id").to_owned()
    }

    /// An access token.
    pub async fn login(&self, username: &str, password: &str) -> String {
        let answer = self.try_login(username, password).await.ok();
        answer["token"].as_str().expect("a token").to_owned()
    }

    pub async fn try_login(&self, username: &str, password: &str) -> Answer {
        self.post("/api/login").json(&json!({"username": username, "password": password})).send().await
    }

    pub async fn admin(&self) -> String {
        self.login("admin", ADMIN_PASSWORD).await
    }

    /// The status of a token's own session.
    pub async fn session_status(&self, token: &str) -> u16 {
        self.get("/api/session").token(token).send().await.status
    }

    /// What was told since the last time, with subjects.
    pub async fn events(&self) -> Vec<(String, AnyEvent)> {
        let rows = outbox::pending(&self.database, 1000).await.expect("rows");
        let mut transaction = self.database.begin().await.expect("a transaction");
        outbox::mark_published(&mut transaction, &rows, 1).await.expect("marks");
        self.database.commit(transaction).await.expect("a commit");
        let decode = |message: &edd_events::message::Message| {
            AnyEvent::decode(&message.subject, Encoding::Protobuf, &message.payload).expect("an event")
        };
        rows.iter().map(|row| (row.message.subject.clone(), decode(&row.message))).collect()
    }

    pub async fn count(&self, table: &'static str) -> i64 {
        let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(statement).fetch_one(self.database.reader()).await.expect("a count")
    }
}

async fn start(
    url: &str,
    config: AuthConfig,
    bus: &Arc<LocalBus>,
    clock: &ManualClock,
) -> (Database, Auth, Option<FirstPassword>) {
    let clock = Arc::new(clock.clone());
    let database = Database::open(url, &store::STEPS).await.expect("a database");
    let publisher = Publisher::new(SOURCE, Encoding::Protobuf, clock.clone());
    let started = Auth::start(config, database.clone(), bus.clone(), clock, publisher).await;
    let (auth, first_password) = started.expect("a service");
    (database, auth, first_password)
}

fn served(auth: &Auth) -> Router {
    let peer = MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1)));
    tracked(auth.router(), TrustedProxies::loopback()).layer(peer)
}

/// A request to be.
pub(super) struct Call<'a> {
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

    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn from(self, ip: &str) -> Self {
        self.header("x-forwarded-for", ip)
    }

    /// Sent by the dashboard's own page.
    pub fn on_dashboard(self) -> Self {
        self.header("host", DASHBOARD).header("origin", &format!("http://{DASHBOARD}"))
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", &body.to_string())
    }

    pub fn body(mut self, content_type: &str, body: &str) -> Self {
        self.body = body.to_owned();
        self.header("content-type", content_type)
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
pub(super) struct Answer {
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

    /// The message of a refusal with `status`, in the one shape that refusals have.
    #[track_caller]
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let fields = self.json.as_object().expect("an object");
        assert_eq!(fields.len(), 1, "{}", self.text);
        fields["error"].as_str().expect("a message").to_owned()
    }

    /// The value and attributes of a cookie that is set.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let lines = self.headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("text"));
        lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned).next()
    }

    /// What a browser sends back.
    pub fn cookies(&self) -> String {
        let lines = self.headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("text"));
        let pairs: Vec<_> = lines.filter_map(|line| line.split(';').next()).collect();
        pairs.join("; ")
    }
}
