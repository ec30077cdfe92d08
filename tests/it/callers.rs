//! Callers of the services beside auth: known by their tokens without asking, and refused everywhere as soon as their
//! session is over. `/storage/status` shows the whole chain.

use std::time::{Duration, Instant};

use edd_events::database::Database;
use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Edd, Response, within};

const ROUTES: &str = "routes: [{host: demo.test, redirect: {to: 'http://elsewhere.test'}}]";
const AUTH: &str = "auth.cloud.localhost";
const STORAGE: &str = "storage.cloud.localhost";
const DASHBOARD: &str = "cloud.localhost";
const ADMIN_PASSWORD: &str = "correct horse battery";
const PASSWORD: &str = "tr0ub4dor&3";
const SERVICE_KEY: &str = "a key that services share";

/// Asks as whom `token` stands for; nobody if it is empty.
async fn ask(edd: &Edd, request: &str, host: &str, token: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    edd.ask(request, host, &headers[..usize::from(!token.is_empty())], body).await
}

/// What auth answers to a request that it must grant.
async fn auth(edd: &Edd, request: &str, token: &str, body: &Value) -> Value {
    let answer = ask(edd, request, AUTH, token, body).await;
    assert_eq!(answer.status, 200, "{request}: {}", answer.text());
    answer.json()
}

async fn storage(edd: &Edd, token: &str) -> Response {
    ask(edd, "GET /storage/status", STORAGE, token, &Value::Null).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text and not {value}")).to_owned()
}

/// A user with two sessions.
struct User {
    id: String,
    name: String,
    one: String,
    other: String,
}

async fn user(edd: &Edd, name: &str) -> User {
    let account = json!({"username": name, "password": PASSWORD});
    let made = auth(edd, "POST /api/register", "", &account).await;
    let other = auth(edd, "POST /api/login", "", &account).await;
    let [id, one, other] = [&made["user_id"], &made["token"], &other["token"]].map(text);
    User { id, name: name.to_owned(), one, other }
}

/// An API token of the user's: its id, and what it is shown as.
async fn api_token(edd: &Edd, user: &User) -> (String, String) {
    let wanted = json!({"name": "ci", "scopes": {format!("storage.{}", user.id): ["read"]}, "expires_in": "30d"});
    let made = auth(edd, "POST /api/tokens", &user.one, &wanted).await;
    (text(&made["id"]), text(&made["token"]))
}

/// An administrator deletes a user.
async fn delete(edd: &Edd, user: &User) {
    let admin = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let admin = text(&auth(edd, "POST /api/login", "", &admin).await["token"]);
    auth(edd, &format!("DELETE /admin/users?id={}", user.id), &admin, &Value::Null).await;
}

/// Who is known at storage by `token`.
async fn known(sfs: &[&Edd], user: &User, token: &str) {
    for edd in sfs {
        let answer = storage(edd, token).await;
        assert_eq!(answer.status, 200, "{}: {}", user.name, answer.text());
        assert_eq!(answer.json(), json!({"status": "ok", "user_id": user.id, "username": user.name}));
    }
}

/// Waits until `token`, which was good until then, is refused everywhere, and sees that it stays so.
async fn refused(sfs: &[&Edd], why: &str, token: &str) {
    let begun = Instant::now();
    for edd in sfs {
        within(&format!("a refusal ({why})"), async {
            loop {
                let answer = storage(edd, token).await;
                match answer.status {
                    200 => tokio::task::yield_now().await,
                    _ => return assert_eq!(answer.status, 401, "{why}: {}", answer.text()),
                }
            }
        })
        .await;
    }
    eprintln!("{why}: refused {:?} after the answer", begun.elapsed());
    for edd in sfs {
        let answer = storage(edd, token).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer error=\"invalid_token\""));
        assert_eq!(answer.json(), json!({"error": "the session has ended: sign in again"}), "{why}");
    }
}

/// All ways in which a token's life ends early; those that are good still, and those that are not.
async fn end_in_every_way(at: &Edd, sfs: &[&Edd]) -> (Vec<(User, String)>, Vec<String>) {
    let (mut good, mut ended) = (Vec::new(), Vec::new());
    for why in ["logged-out", "password", "others", "api-token", "deleted"] {
        let user = user(at, why).await;
        let (api_id, api) = api_token(at, &user).await;
        let all = [user.one.clone(), user.other.clone(), api];
        for token in &all {
            known(sfs, &user, token).await;
        }
        let (own, nothing) = (&user.one, &Value::Null);
        let change = json!({"current": PASSWORD, "new": "another one, longer"});
        match why {
            "logged-out" => drop(auth(at, "POST /api/logout", &user.other, nothing).await),
            "password" => drop(auth(at, "PUT /api/settings/password", own, &change).await),
            "others" => drop(auth(at, "DELETE /api/settings/sessions", own, nothing).await),
            "api-token" => drop(auth(at, &format!("DELETE /api/tokens/{api_id}"), own, nothing).await),
            _ => delete(at, &user).await,
        }
        let over = match why {
            "api-token" => 2..3,
            "deleted" => 0..3,
            _ => 1..2,
        };
        for token in &all[over.clone()] {
            refused(sfs, why, token).await;
            ended.push(token.clone());
        }
        let left: Vec<_> = all.iter().enumerate().filter(|(index, _)| !over.contains(index)).collect();
        for (_, token) in &left {
            known(sfs, &user, token).await;
        }
        if let Some((_, token)) = left.first() {
            let token = (*token).clone();
            good.push((user, token));
        }
    }
    (good, ended)
}

async fn killed(edd: &mut Edd) {
    edd.signal(Signal::KILL);
    edd.wait_exit().await;
}

#[tokio::test]
async fn what_ends_at_auth_ends_at_storage_in_one_process() {
    let mut edd = Edd::up(ROUTES).env("EDD_ADMIN_PASSWORD", ADMIN_PASSWORD).start().await;
    for (token, challenge) in [("", "Bearer"), ("nonsense", "Bearer error=\"invalid_token\"")] {
        let answer = storage(&edd, token).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, challenge), "{}", answer.text());
    }
    let (good, ended) = end_in_every_way(&edd, &[&edd]).await;
    // Nothing of it is in memory alone, nor told too late to the first who asks.
    killed(&mut edd).await;
    let edd = edd.again().start().await;
    for token in &ended {
        assert_eq!(storage(&edd, token).await.status, 401);
    }
    for (user, token) in &good {
        known(&[&edd], user, token).await;
    }
    // The same under the dashboard's own origin.
    let (user, token) = &good[0];
    let answer = ask(&edd, "GET /storage/status", DASHBOARD, token, &Value::Null).await;
    assert_eq!((answer.status, &answer.json()["user_id"]), (200, &json!(user.id)));
    // compute keeps the same, although nobody can ask it yet.
    reports(&edd, "[+] compute revocations: complete").await;
}

/// Tenants' pages live below the dashboard's host, and on other ports of it.
#[tokio::test]
async fn a_browser_may_call_storage_from_the_dashboard_alone() {
    let edd = Edd::up(ROUTES).env("EDD_ADMIN_PASSWORD", ADMIN_PASSWORD).start().await;
    let port = edd.http.port();
    let host = format!("{STORAGE}:{port}");
    let own = format!("http://{DASHBOARD}:{port}");
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "authorization"),
        ];
        edd.ask("OPTIONS /storage/status", &host, &headers, &Value::Null).await
    };
    let let_in = preflight(&own).await;
    assert_eq!((let_in.status, let_in.header("access-control-allow-origin")), (204, own.as_str()));
    assert_eq!(let_in.header("access-control-allow-headers"), "authorization");
    for origin in [
        format!("http://{DASHBOARD}"),
        format!("http://{DASHBOARD}:{}", edd.https.port()),
        format!("https://{DASHBOARD}:{port}"),
        format!("http://evil.compute.{DASHBOARD}:{port}"),
        format!("http://{STORAGE}:{port}"),
        "null".to_owned(),
    ] {
        let kept_out = preflight(&origin).await;
        let allowed = kept_out.headers.get("access-control-allow-origin");
        assert_eq!((kept_out.status, allowed), (403, None), "{origin}");
    }
    let user = user(&edd, "ann").await;
    let bearer = format!("Bearer {}", user.one);
    let headers = [("origin", own.as_str()), ("authorization", bearer.as_str())];
    let answer = edd.ask("GET /storage/status", &host, &headers, &Value::Null).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, own.as_str()));
}

/// auth and sfs as processes of their own, on NATS and PostgreSQL.
struct Apart {
    nats: Nats,
    auth: Edd,
    auth_url: String,
    sfs_url: String,
}

impl Apart {
    async fn start() -> Self {
        let nats = Nats::start();
        let (auth_url, sfs_url) = (Postgres::shared().database(), Postgres::shared().database());
        let auth = Edd::control("auth").env("EDD_ADMIN_PASSWORD", ADMIN_PASSWORD).env("DATABASE_URL", &auth_url);
        let auth = auth.env("SERVICE_API_KEY", SERVICE_KEY).env("NATS_URL", &nats.url()).start().await;
        Self { nats, auth, auth_url, sfs_url }
    }

    /// A process of sfs with the database that they all share.
    async fn sfs(&self) -> Edd {
        let sfs = Edd::control("sfs").env("DATABASE_URL", &self.sfs_url).env("NATS_URL", &self.nats.url());
        let auth = format!("http://{}", self.auth.http);
        sfs.env("AUTH_SERVICE_URL", &auth).env("SERVICE_API_KEY", SERVICE_KEY).start().await
    }

    async fn end_auth(&mut self) {
        self.auth.signal(Signal::TERM);
        self.auth.wait_exit().await;
    }

    /// At the same address.
    async fn restart_auth(&mut self) {
        self.auth = self.auth.again().env("EDD_API_LISTEN", &self.auth.http.to_string()).start().await;
    }

    /// Lets hours pass for auth's signing keys.
    async fn age_keys(&self, hours: i64) {
        let database = Database::attach(&self.auth_url).await.expect("auth's database");
        let older = "UPDATE signing_keys SET active_from = active_from - $1";
        let micros = hours * 3600 * 1_000_000;
        sqlx::query(older).bind(micros).execute(database.writer()).await.expect("older keys");
        database.close().await;
    }
}

/// Waits until storage answers `token` with `status`.
async fn answers(sfs: &Edd, token: &str, status: u16) {
    within(&format!("an answer with {status}"), async {
        while storage(sfs, token).await.status != status {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until a process says of itself what is wanted.
async fn reports(edd: &Edd, wanted: &str) {
    within(wanted, async { while !edd.admin("/readyz?verbose").await.text().contains(wanted) {} }).await;
}

/// A durable consumer reaches one of two replicas; both must know.
#[tokio::test]
async fn what_ends_at_auth_ends_in_every_process() {
    let apart = Apart::start().await;
    let (one, mut other) = (apart.sfs().await, apart.sfs().await);
    let (good, ended) = end_in_every_way(&apart.auth, &[&one, &other]).await;
    // Who comes later knows as well, and so does the gateway in front.
    killed(&mut other).await;
    let later = apart.sfs().await;
    let url = |edd: &Edd| format!("http://{}", edd.http);
    let gateway = Edd::gateway(ROUTES).env("SFS_SERVICE_URL", &url(&later));
    let gateway = gateway.env("AUTH_SERVICE_URL", &url(&apart.auth)).start().await;
    for token in &ended {
        for edd in [&later, &gateway] {
            assert_eq!(storage(edd, token).await.status, 401);
        }
    }
    for (user, token) in &good {
        known(&[&one, &later, &gateway], user, token).await;
    }
    let by_path = ask(&gateway, "GET /storage/status", DASHBOARD, &good[0].1, &Value::Null).await;
    assert_eq!(by_path.status, 200, "{}", by_path.text());
}

#[tokio::test]
async fn sfs_alone_in_the_dark_knows_what_it_knew() {
    let mut apart = Apart::start().await;
    let mut sfs = apart.sfs().await;
    let user = user(&apart.auth, "ann").await;
    let (_, api) = api_token(&apart.auth, &user).await;
    known(&[&sfs], &user, &user.one).await;
    known(&[&sfs], &user, &user.other).await;
    auth(&apart.auth, "POST /api/logout", &user.other, &Value::Null).await;
    refused(&[&sfs], "logged out", &user.other).await;
    // What the stream has told the process, the durable consumer writes.
    let database = Database::attach(&apart.sfs_url).await.expect("the database of sfs");
    within("the row", async {
        let count = "SELECT count(*) FROM revoked_sessions";
        while sqlx::query_scalar::<_, i64>(count).fetch_one(database.reader()).await.expect("a count") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    database.close().await;
    apart.end_auth().await;
    apart.nats.kill9();
    killed(&mut sfs).await;
    let sfs = sfs.again().start().await;
    assert_eq!(storage(&sfs, &user.other).await.status, 401);
    known(&[&sfs], &user, &user.one).await;
    // Only auth knows these.
    let unasked = storage(&sfs, &api).await;
    assert_eq!((unasked.status, unasked.header("retry-after")), (503, "2"), "{}", unasked.text());
    apart.nats.restart();
    apart.restart_auth().await;
    answers(&sfs, &api, 200).await;
    known(&[&sfs], &user, &user.one).await;
    assert_eq!(storage(&sfs, &user.other).await.status, 401);
}

#[tokio::test]
async fn a_service_that_is_new_lets_nobody_in_before_it_has_asked_auth() {
    let mut apart = Apart::start().await;
    let (user, gone) = (user(&apart.auth, "ann").await, user(&apart.auth, "bob").await);
    let (api_id, _) = api_token(&apart.auth, &user).await;
    auth(&apart.auth, &format!("DELETE /api/tokens/{api_id}"), &user.one, &Value::Null).await;
    auth(&apart.auth, "POST /api/logout", &user.other, &Value::Null).await;
    delete(&apart.auth, &gone).await;
    // Its stream begins after the logout: nothing but auth itself can tell.
    apart.end_auth().await;
    apart.nats.kill9();
    apart.nats.wipe_data();
    let sfs = apart.sfs().await;
    for token in [&user.one, &user.other, &gone.one] {
        let early = storage(&sfs, token).await;
        assert_eq!((early.status, early.header("retry-after")), (503, "2"), "{}", early.text());
    }
    let ready = sfs.admin("/readyz?verbose").await;
    assert!(ready.text().contains("[!] sfs revocations: not known yet"), "{}", ready.text());
    // The bus is still away, and need not be there for this.
    apart.restart_auth().await;
    answers(&sfs, &user.one, 200).await;
    for token in [&user.other, &gone.one] {
        assert_eq!(storage(&sfs, token).await.status, 401);
    }
    apart.nats.restart();
    reports(&sfs, "[+] sfs revocations: complete").await;
    reports(&apart.auth, "[+] auth events: the bus is there, 0 events wait").await;
    auth(&apart.auth, "POST /api/logout", &user.one, &Value::Null).await;
    refused(&[&sfs], "logged out just after the broker came back", &user.one).await;
}

#[tokio::test]
async fn tokens_of_a_rotated_key_are_known_and_so_are_those_before() {
    let mut apart = Apart::start().await;
    let mut sfs = apart.sfs().await;
    let before = user(&apart.auth, "ann").await;
    known(&[&sfs], &before, &before.one).await;
    // After a month the next key is published, and after another day it signs.
    for hours in [30 * 24, 25] {
        apart.end_auth().await;
        apart.age_keys(hours).await;
        apart.restart_auth().await;
    }
    let after = user(&apart.auth, "bob").await;
    assert_ne!(head(&before.one), head(&after.one), "another key");
    // sfs has not seen the key, and has asked lately: then it is a stranger's. Later, without auth, nobody can say.
    apart.end_auth().await;
    answers(&sfs, &after.one, 503).await;
    known(&[&sfs], &before, &before.one).await;
    apart.restart_auth().await;
    answers(&sfs, &after.one, 200).await;
    known(&[&sfs], &after, &after.other).await;
    known(&[&sfs], &before, &before.other).await;
    // Kept for a restart.
    apart.end_auth().await;
    killed(&mut sfs).await;
    let sfs = sfs.again().start().await;
    known(&[&sfs], &after, &after.one).await;
    known(&[&sfs], &before, &before.one).await;
}

/// The header of a token, which names its key.
fn head(token: &str) -> &str {
    token.split('.').next().unwrap_or_default()
}
