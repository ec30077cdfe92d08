//! Users and their sessions, through the gateway of `edd up`: what a browser, curl and an administrator meet.

use serde_json::{Value, json};

use crate::harness::browser::{self, Browser};
use crate::harness::{Edd, Response, within};

const ROUTES: &str = "routes: [{host: demo.test, target: 'edd-demo:80'}]";
/// The auth service's own host, and the dashboard's, which serves the same by path.
const API: &str = "auth.cloud.localhost";
const DASHBOARD: &str = "cloud.localhost";
const ADMIN_PASSWORD: &str = "correct horse battery";

async fn start() -> Edd {
    Edd::up(ROUTES).env("EDD_ADMIN_PASSWORD", ADMIN_PASSWORD).start().await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// An answer's JSON, which must have this status.
#[track_caller]
fn expect(status: u16, response: &Response) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    if response.body.is_empty() { Value::Null } else { response.json() }
}

async fn register(edd: &Edd, name: &str) -> Value {
    let user = json!({"username": name, "password": "tr0ub4dor&3", "display_name": name.to_uppercase()});
    expect(200, &edd.ask("POST /api/register", API, &[], &user).await)
}

async fn login(edd: &Edd, name: &str, password: &str) -> Response {
    edd.ask("POST /api/login", API, &[], &json!({"username": name, "password": password})).await
}

async fn token(edd: &Edd, name: &str, password: &str) -> String {
    let session = expect(200, &login(edd, name, password).await);
    session["token"].as_str().expect("a token").to_owned()
}

async fn session(edd: &Edd, token: &str) -> Response {
    edd.ask("GET /api/session", API, &[("authorization", &bearer(token))], &Value::Null).await
}

#[tokio::test]
async fn a_tenant_registers_logs_in_and_out() {
    let edd = start().await;
    register(&edd, "ann").await;
    let session = expect(200, &login(&edd, "ann", "tr0ub4dor&3").await);
    assert_eq!((session["username"].as_str(), session["display_name"].as_str()), (Some("ann"), Some("ANN")));
    assert_eq!((session["user_id"].as_str().map(str::len), &session["is_admin"]), (Some(21), &json!(false)));
    let token = session["token"].as_str().expect("a token");
    let seen = expect(200, &self::session(&edd, token).await);
    assert_eq!(seen["user_id"], session["user_id"]);
    let out = edd.ask("POST /api/logout", API, &[("authorization", &bearer(token))], &Value::Null).await;
    assert_eq!(expect(200, &out), json!({"status": "ok"}));
    assert_eq!(self::session(&edd, token).await.status, 401);
    for (name, password, status) in [("ann", "wrong password", 401), ("nobody", "tr0ub4dor&3", 401), ("ann", "", 400)] {
        let refused = login(&edd, name, password).await;
        assert_eq!(refused.status, status, "{name} {password}");
        assert!(refused.json()["error"].is_string(), "{}", refused.text());
    }
    let twice = json!({"username": "ann", "password": "tr0ub4dor&3"});
    assert_eq!(edd.ask("POST /api/register", API, &[], &twice).await.status, 409);
}

/// What the dashboard's host sets, it alone gets: tenants' sites live below it.
#[tokio::test]
async fn a_browser_gets_cookies_from_the_dashboard_alone() {
    let edd = start().await;
    register(&edd, "ann").await;
    let ann = json!({"username": "ann", "password": "tr0ub4dor&3"});
    let api = edd.ask("POST /api/login", API, &[], &ann).await;
    assert!(!api.headers.contains_key("set-cookie"), "{:?}", api.headers);
    let origin = format!("http://{DASHBOARD}:{}", edd.http.port());
    let host = origin.trim_start_matches("http://");
    let answer = edd.ask("POST /api/login", host, &[("origin", &origin)], &ann).await;
    let cookies: Vec<&str> =
        answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("text")).collect();
    let cookie = cookies.iter().find(|cookie| cookie.starts_with("__Host-edd=")).expect("a session's cookie");
    for part in ["Secure", "HttpOnly", "SameSite=", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.to_lowercase().contains("domain="), "{cookie}");
    let cookie = cookie.split(';').next().expect("name and value");
    let asked = edd.ask("GET /api/session", host, &[("cookie", cookie)], &Value::Null).await;
    assert_eq!(expect(200, &asked)["username"], "ann");
    // A tenant's page is same-site, so that its requests bring the cookie along.
    let profile = json!({"display_name": "Eve was here"});
    for (origin, status) in
        [(format!("http://evil.compute.{host}"), 403), ("null".to_owned(), 403), (origin.clone(), 200)]
    {
        let headers = [("cookie", cookie), ("origin", origin.as_str())];
        let changed = edd.ask("PUT /api/settings/profile", host, &headers, &profile).await;
        assert_eq!(changed.status, status, "{origin}: {}", changed.text());
    }
    let silent = edd.ask("PUT /api/settings/profile", host, &[("cookie", cookie)], &profile).await;
    assert_eq!(silent.status, 403, "{}", silent.text());
    let page = edd.get(host, "/login").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"), "{:?}", page.headers);
}

#[tokio::test]
async fn an_administrator_makes_lists_and_deletes_users() {
    let edd = start().await;
    let admin = bearer(&token(&edd, "admin", ADMIN_PASSWORD).await);
    let admin = [("authorization", admin.as_str())];
    let made = json!({"username": "bob", "password": "tr0ub4dor&3"});
    let bob = expect(200, &edd.ask("POST /admin/users", API, &admin, &made).await);
    assert_eq!(bob["username"], "bob");
    assert_eq!(edd.ask("POST /admin/users", API, &admin, &made).await.status, 409);
    let bobs = token(&edd, "bob", "tr0ub4dor&3").await;
    let forbidden = edd.ask("GET /admin/users", API, &[("authorization", &bearer(&bobs))], &Value::Null).await;
    assert_eq!(forbidden.status, 403);
    assert_eq!(edd.ask("GET /admin/users", API, &[], &Value::Null).await.status, 401);
    let id = bob["user_id"].as_str().expect("an id");
    let gone = edd.ask(&format!("DELETE /admin/users?id={id}"), API, &admin, &Value::Null).await;
    assert_eq!(expect(200, &gone), json!({"status": "ok"}));
    assert_eq!(session(&edd, &bobs).await.status, 401, "a deleted user's token is refused");
    assert_eq!(login(&edd, "bob", "tr0ub4dor&3").await.status, 401);
    let again = edd.ask(&format!("DELETE /admin/users?id={id}"), API, &admin, &Value::Null).await;
    assert_eq!(again.status, 404);
}

/// Nothing of a session is in memory alone.
#[tokio::test]
async fn users_sessions_and_revocations_survive_a_kill() {
    let mut edd = start().await;
    register(&edd, "ann").await;
    let (kept, ended) = (token(&edd, "ann", "tr0ub4dor&3").await, token(&edd, "ann", "tr0ub4dor&3").await);
    let out = edd.ask("POST /api/logout", API, &[("authorization", &bearer(&ended))], &Value::Null).await;
    expect(200, &out);
    edd.signal(rustix::process::Signal::KILL);
    edd.wait_exit().await;
    let edd = edd.again().start().await;
    assert_eq!(session(&edd, &kept).await.status, 200);
    assert_eq!(session(&edd, &ended).await.status, 401);
}

/// The first administrator's password is printed once, unless somebody chose it.
#[tokio::test]
async fn the_first_password_is_told_once() {
    let mut edd = Edd::up(ROUTES).start().await;
    let told = edd.wait_log("the password", |line| line.text.contains("password")).await;
    let password = told.field("password").to_owned();
    assert!(password.len() >= 16, "{}", told.text);
    token(&edd, "admin", &password).await;
    edd.signal(rustix::process::Signal::TERM);
    edd.wait_exit().await;
    let edd = edd.again().start().await;
    token(&edd, "admin", &password).await;
    assert!(!edd.log().iter().any(|line| line.text.contains(&password)));
}

/// What a user does is in the audit trail under the id of the request that did it.
#[tokio::test]
async fn a_request_is_found_again_in_the_events_that_it_caused() {
    let edd = start().await;
    let user = json!({"username": "ann", "password": "tr0ub4dor&3"});
    let answer = edd.ask("POST /api/register", API, &[], &user).await;
    expect(200, &answer);
    let id = answer.header("x-request-id").to_owned();
    let listed = edd.verb(&["events", "list", "--correlation", &id, "--json"]).env("EDD_DATA_DIR", "data");
    let listed = listed.run().await.json();
    let subjects: Vec<_> = listed["events"].as_array().expect("a list").iter().map(|event| &event["subject"]).collect();
    let created = format!("auth.user.{}.created", answer.json()["user_id"].as_str().expect("an id"));
    // Who registers is signed in as well.
    assert_eq!((subjects.len(), subjects[1]), (2, &json!(created)), "{subjects:?}");
    assert!(subjects[0].as_str().is_some_and(|session| session.starts_with("auth.session.")), "{subjects:?}");
}

/// The gateway keeps a copy of every user, made by events.
#[tokio::test]
async fn users_reach_the_gateway_s_own_database() {
    let edd = start().await;
    register(&edd, "ann").await;
    let told = within("three complete copies", async {
        loop {
            let ready = edd.admin("/readyz?verbose").await;
            let complete = |service| format!("[+] {service} user_cache: complete, follows AUTH");
            if ["sfs", "compute", "gateway"].iter().all(|service| ready.text().contains(&complete(service))) {
                return;
            }
        }
    });
    told.await;
}

/// The page and its script, with a browser's own idea of cookies, origins and policies.
#[tokio::test]
async fn a_browser_signs_in_and_out() {
    if !browser::wanted() {
        return;
    }
    let edd = start().await;
    for origin in [
        format!("https://{DASHBOARD}:{}", edd.https.port()),
        // Browsers take names below `localhost` for safe, and so keep cookies that are for HTTPS alone.
        format!("http://{DASHBOARD}:{}", edd.http.port()),
    ] {
        let mut browser = Browser::open(&format!("{origin}/")).await;
        within("the form", async { while !browser.text().await.contains("Password") {} }).await;
        let fill = format!(
            "document.querySelector('[name=username]').value = 'admin';
             document.querySelector('[name=password]').value = '{ADMIN_PASSWORD}';
             document.querySelector('form').requestSubmit()"
        );
        browser.evaluate(&fill).await;
        within("the name of who signed in", async { while !browser.text().await.contains("Signed in as") {} }).await;
        let session = browser.evaluate("fetch('/api/session').then(answer => answer.json())").await;
        assert_eq!(session["username"], "admin", "{origin}");
        assert_eq!(browser.evaluate("document.cookie").await, "", "no script may read it");
        let out = "fetch('/api/logout', {method: 'POST'}).then(() => fetch('/api/session')).then(a => a.status)";
        assert_eq!(browser.evaluate(out).await, 401, "{origin}");
    }
}

/// Beside the running service, and from either side.
#[tokio::test]
async fn a_copy_of_the_users_is_rebuilt_by_one_command() {
    let edd = start().await;
    register(&edd, "ann").await;
    register(&edd, "bob").await;
    let replay = |arguments: &[&str]| {
        let verb = edd.verb(&["events", "replay", "--json"]).args(arguments);
        verb.env("EDD_DATA_DIR", "data").run()
    };
    let from_stream = replay(&["--service", "sfs"]).await.json();
    assert_eq!((&from_stream["source"], &from_stream["read"]), (&json!("stream"), &json!(3)), "{from_stream}");
    let from_owner = replay(&["--service", "gateway", "--from", "owner"]).await.json();
    assert_eq!((&from_owner["source"], &from_owner["read"]), (&json!("owner"), &json!(3)), "{from_owner}");
    for (arguments, hint) in [
        (&["--service", "sfs", "--projection", "files"][..], "it has `user_cache`"),
        (&["--service", "auth"], "auth has no copies"),
    ] {
        let refused = replay(arguments).await;
        assert_eq!(refused.code, Some(78), "{refused:#?}");
        assert!(refused.stderr.contains(hint), "{refused:#?}");
    }
    register(&edd, "eve").await;
    let again = replay(&["--service", "sfs", "--from", "stream"]).await.json();
    assert_eq!(again["read"], 4, "{again}");
}
