//! Input that is broken, too large or hostile: a clear error, and nothing changed.

use edd_events::database::Kind;
use serde_json::json;

use super::fixture::{Fixture, PASSWORD, config, on_each_database};
use crate::auth::config::AuthConfig;
use crate::password::PasswordConfig;

on_each_database![
    bodies_that_are_none_are_refused,
    names_that_are_none_are_refused,
    tokens_that_are_none_are_refused,
    paths_that_are_not_there_yet_are_unknown,
    a_crowd_at_the_door_is_turned_away,
];

async fn bodies_that_are_none_are_refused(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let json = "application/json";
    let large = format!("{{\"username\": \"{}\"}}", "x".repeat(70_000));
    for (content_type, body, status) in [
        (json, "", 400),
        (json, "{", 400),
        (json, "[]", 400),
        (json, "null", 400),
        (json, r#"{"username": "ann"}"#, 400),
        (json, r#"{"username": "ann", "password": null}"#, 400),
        (json, r#"{"username": ["ann"], "password": "hunter2hunter2"}"#, 400),
        (json, r#"{"username": "ann", "password": 12345678}"#, 400),
        (json, r#"{"username": "ann", "password": "hunter2hunter2", "refresh": "yes"}"#, 400),
        (json, r#"{"username": "ann", "password": "hunter2hunter2"} {}"#, 400),
        (json, r#"{"username": "ann", "password": "\ud800 lone half"}"#, 400),
        ("text/plain", r#"{"username": "ann", "password": "hunter2hunter2"}"#, 415),
        ("application/x-www-form-urlencoded", "username=ann&password=hunter2hunter2", 415),
        (json, &large, 413),
    ] {
        for path in ["/api/login", "/api/register"] {
            let message = fixture.post(path).body(content_type, body).send().await.refused(status);
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
    for body in [json!({"username": "", "password": "x"}), json!({"username": "ann", "password": ""})] {
        let message = fixture.post("/api/login").json(&body).send().await.refused(400);
        assert_eq!(message, "username and password are needed");
    }
    assert_eq!((fixture.count("users").await, fixture.count("sessions").await), (1, 0));
    assert_eq!(fixture.service().hashes(), 1, "the first administrator's");
}

async fn names_that_are_none_are_refused(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for name in
        ["'; DROP TABLE users; --", "x' OR '1'='1", "аdmin", "ann\u{0}", "an", &"x".repeat(33), "ann b", "%admin"]
    {
        let account = json!({"username": name, "password": PASSWORD});
        let message = fixture.post("/api/register").json(&account).send().await.refused(400);
        assert_eq!(message, "username: 3 to 32 of a-z, 0-9, _ and -");
    }
    for display_name in ["a\u{0}b", "\u{202e}x", &"x".repeat(65)] {
        let account = json!({"username": "ann", "password": PASSWORD, "display_name": display_name});
        let message = fixture.post("/api/register").json(&account).send().await.refused(400);
        assert!(message.starts_with("display_name: "), "{message}");
    }
    let quoted =
        json!({"username": "ann", "password": "'\";--\u{0}\u{1f600}", "display_name": "'; DROP TABLE users; --"});
    let answer = fixture.post("/api/register").json(&quoted).send().await.ok();
    assert_eq!(answer["display_name"], quoted["display_name"]);
    fixture.login("ann", "'\";--\u{0}\u{1f600}").await;
}

async fn tokens_that_are_none_are_refused(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let good = fixture.admin().await;
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let (header, payload) = head.split_once('.').expect("two parts");
    let none = "eyJhbGciOiJub25lIn0";
    let flipped: String = signature.chars().rev().collect();
    for token in [
        "x",
        "a.b.c",
        "..",
        &format!("{header}.{payload}."),
        &format!("{header}.{payload}.{flipped}"),
        &format!("{none}.{payload}."),
        &format!("{none}.{payload}.{signature}"),
        &format!("{good}.{signature}"),
        "ecloud_",
        &format!("ecloud_{}", "x".repeat(43)),
        &"x".repeat(20_000),
    ] {
        let answer = fixture.get("/api/session").token(token).send().await;
        assert_eq!(answer.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
        let message = answer.refused(401);
        assert!(token.len() < 8 || !message.contains(token), "{message}");
    }
    for value in ["", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", &good, "\u{ff}"] {
        fixture.get("/api/session").header("authorization", value).send().await.refused(401);
    }
    fixture.get("/api/session").send().await.refused(401);
    fixture.get("/api/session").header("authorization", &format!("bearer {good}")).send().await.ok();
}

async fn paths_that_are_not_there_yet_are_unknown(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = fixture.admin().await;
    for path in ["/api/service-accounts", "/api/settings/keys", "/api/nothing", "/", "/api/users/../users"] {
        fixture.get(path).token(&admin).send().await.refused(404);
    }
    let answer = fixture.get("/api/login").send().await;
    assert_eq!(answer.headers["allow"], "POST");
    answer.refused(405);
}

async fn a_crowd_at_the_door_is_turned_away(kind: Kind) {
    let crowded = PasswordConfig { concurrent_hashes: 1, waiting_hashes: 1, memory_kib: 4096, ..config().passwords };
    let fixture = Fixture::with(kind, AuthConfig { passwords: crowded, ..config() }).await;
    let fixture = &fixture;
    let attempt = |name: &'static str| async move {
        let credentials = json!({"username": name, "password": "a wrong one"});
        fixture.post("/api/login").json(&credentials).send().await
    };
    let (a, b, c, d, e, f) = tokio::join!(
        attempt("user-a"),
        attempt("user-b"),
        attempt("user-c"),
        attempt("user-d"),
        attempt("user-e"),
        attempt("user-f"),
    );
    let mut statuses = Vec::new();
    for answer in [a, b, c, d, e, f] {
        statuses.push(answer.status);
        if answer.status == 503 {
            assert!(answer.headers.contains_key("retry-after"));
            answer.refused(503);
        }
    }
    assert!(statuses.contains(&401) && statuses.contains(&503), "{statuses:?}");
    assert_eq!(attempt("later").await.status, 401);
}
