//! Sessions in lists, and how they end.

use edd_events::database::Kind;
use edd_proto::AnyEvent;
use edd_proto::auth::SessionEnd;
use serde_json::{Value, json};

use super::fixture::{ADMIN_PASSWORD, Call, DASHBOARD, Fixture, PASSWORD, on_each_database};

on_each_database![
    logging_out_ends_the_session_at_once,
    users_see_and_end_their_own_sessions,
    administrators_see_all_sessions,
    a_dashboard_gets_cookies_and_keeps_them_from_other_origins,
    an_old_clients_cookie_is_read,
];

/// Which sessions ended and why, if nothing else happened.
fn ended(events: &[(String, AnyEvent)]) -> Vec<(&str, SessionEnd)> {
    let mut ended = Vec::new();
    for (_, event) in events {
        let AnyEvent::SessionInvalidated(event) = event else { panic!("{event:?}") };
        ended.push((event.session_id.as_str(), event.reason()));
    }
    ended
}

fn with_cookies<'a>(cookies: &str, call: Call<'a>) -> Call<'a> {
    call.header("cookie", cookies).header("host", DASHBOARD)
}

async fn own_sessions(fixture: &Fixture, token: &str) -> Vec<Value> {
    let sessions = fixture.get("/api/settings/sessions").token(token).send().await.ok();
    sessions.as_array().expect("a bare array").clone()
}

async fn logging_out_ends_the_session_at_once(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let (first, second) = (fixture.admin().await, fixture.admin().await);
    let id = own_sessions(&fixture, &first).await[1]["id"].clone();
    fixture.events().await;
    // An empty body needs no Content-Type.
    fixture.post("/api/logout").token(&first).send().await.done();
    assert_eq!((fixture.session_status(&first).await, fixture.session_status(&second).await), (401, 200));
    let events = fixture.events().await;
    assert_eq!(ended(&events), [(id.as_str().expect("an id"), SessionEnd::LoggedOut)]);
    for token in [&*first, "nonsense"] {
        fixture.post("/api/logout").token(token).send().await.done();
    }
    fixture.post("/api/logout").send().await.done();
    assert!(fixture.events().await.is_empty(), "there was nothing to end");
    let restarted = fixture.restarted(super::fixture::config()).await;
    assert_eq!(restarted.session_status(&first).await, 401);
    assert_eq!(restarted.session_status(&second).await, 200);
}

async fn users_see_and_end_their_own_sessions(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.register("ann").await;
    let (current, other) = (fixture.login("ann", PASSWORD).await, fixture.login("ann", PASSWORD).await);
    let admin = fixture.admin().await;
    let admins = own_sessions(&fixture, &admin).await[0]["id"].clone();
    let admins = admins.as_str().expect("an id");
    let sessions = own_sessions(&fixture, &current).await;
    let flags: Vec<_> = sessions.iter().map(|session| session["is_current"] == json!(true)).collect();
    assert_eq!(flags, [false, true, false], "the latest first");
    assert_eq!(sessions[0]["expires_at"], json!("2026-01-02T00:00:00Z"));
    assert!(!sessions[0].to_string().contains(&other));
    fixture.events().await;

    for id in [admins, "V1StGXR8_Z5jdHi6B-myT", "1", "x'%20OR%201=1"] {
        for path in [format!("/api/settings/sessions?id={id}"), format!("/api/settings/sessions/{id}")] {
            let refused = fixture.delete(&path).token(&current).send().await;
            assert_eq!(refused.refused(404), "there is no such session", "{path}");
        }
    }
    assert_eq!(fixture.session_status(&admin).await, 200);
    assert!(fixture.events().await.is_empty());

    let id = sessions[0]["id"].as_str().expect("an id");
    fixture.delete(&format!("/api/settings/sessions/{id}")).token(&current).send().await.done();
    assert_eq!(fixture.session_status(&other).await, 401);
    assert_eq!(ended(&fixture.events().await), [(id, SessionEnd::Revoked)]);
    fixture.delete("/api/settings/sessions").token(&current).send().await.done();
    let registered = sessions[2]["id"].as_str().expect("an id");
    assert_eq!(ended(&fixture.events().await), [(registered, SessionEnd::Revoked)]);
    assert_eq!((fixture.session_status(&current).await, fixture.session_status(&admin).await), (200, 200));
}

async fn administrators_see_all_sessions(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.register("ann").await;
    let admin = fixture.admin().await;
    let all = fixture.get("/admin/sessions").token(&admin).send().await.ok();
    let names: Vec<_> = all.as_array().expect("a bare array").iter().map(|row| row["username"].clone()).collect();
    assert_eq!(names, [json!("admin"), json!("ann")]);
    let first = fixture.get("/admin/sessions?limit=1").token(&admin).send().await;
    let cursor = first.headers["x-next-cursor"].to_str().expect("text").to_owned();
    let second = fixture.get(&format!("/admin/sessions?limit=1&after={cursor}")).token(&admin).send().await.ok();
    assert_eq!(second[0]["username"], json!("ann"));
    for query in ["limit=0", "limit=5001", "limit=x", "after=x"] {
        fixture.get(&format!("/admin/sessions?{query}")).token(&admin).send().await.refused(400);
    }
}

async fn a_dashboard_gets_cookies_and_keeps_them_from_other_origins(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let credentials = json!({"username": "admin", "password": ADMIN_PASSWORD, "refresh": true});
    let login = fixture.post("/api/login").json(&credentials).on_dashboard().send().await;
    let cookies = login.cookies();
    let access = login.cookie("__Host-edd").expect("a cookie");
    assert!(access.ends_with("; Path=/; Max-Age=900; Secure; HttpOnly; SameSite=Lax"), "{access}");
    let refresh = login.cookie("__Host-edd-refresh").expect("a cookie");
    assert!(refresh.ends_with("; Path=/; Max-Age=2592000; Secure; HttpOnly; SameSite=Lax"), "{refresh}");
    assert!(login.ok().get("refresh_token").is_none(), "no script can read it");

    with_cookies(&cookies, fixture.get("/api/session")).send().await.ok();
    let rename = |origin: Option<(&'static str, &str)>| {
        let call = with_cookies(&cookies, fixture.put("/api/settings/profile")).json(&json!({"display_name": "A"}));
        match origin {
            Some((header, value)) => call.header(header, value).send(),
            None => call.send(),
        }
    };
    rename(Some(("origin", "http://cloud.localhost:8080"))).await.done();
    rename(Some(("sec-fetch-site", "same-origin"))).await.done();
    rename(None).await.refused(403);
    for other in [
        ("origin", "http://evil.compute.cloud.localhost:8080"),
        ("origin", "http://cloud.localhost:8000"),
        ("origin", "https://cloud.localhost:8080"),
        ("origin", "null"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "cross-site"),
    ] {
        rename(Some(other)).await.refused(403);
        let logout = with_cookies(&cookies, fixture.post("/api/logout")).header(other.0, other.1).send().await;
        logout.refused(403);
    }
    let elsewhere = fixture.post("/api/login").json(&credentials).header("host", DASHBOARD);
    let elsewhere = elsewhere.header("origin", "http://evil.compute.cloud.localhost:8080").send().await;
    assert!(elsewhere.cookie("__Host-edd").is_none(), "nobody signs a browser in from elsewhere");

    let logout = with_cookies(&cookies, fixture.post("/api/logout")).on_dashboard().send().await;
    assert!(logout.cookie("__Host-edd").expect("a cookie").starts_with("; Path=/; Max-Age=0;"));
    assert!(logout.cookie("__Host-edd-refresh").expect("a cookie").starts_with("; Path=/; Max-Age=0;"));
    logout.done();
    with_cookies(&cookies, fixture.get("/api/session")).send().await.refused(401);
}

async fn an_old_clients_cookie_is_read(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let token = fixture.admin().await;
    let cookie = format!("theme=dark; token={token}");
    fixture.get("/api/session").header("cookie", &cookie).send().await.ok();
    let own = "http://auth.cloud.localhost:8080";
    let logout = fixture.post("/api/logout").header("cookie", &cookie).header("origin", own).send().await;
    assert!(logout.headers.get("set-cookie").is_none());
    logout.done();
    assert_eq!(fixture.session_status(&token).await, 401);
}
