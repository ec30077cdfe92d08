//! Passwords, tokens and limits.

use std::time::Duration;

use edd_events::database::Kind;
use edd_proto::AnyEvent;
use serde_json::json;

use super::fixture::{ADMIN_PASSWORD, Fixture, NOW, PASSWORD, config, on_each_database};
use crate::access_token::KeySet;
use crate::auth::config::{Limits, Registration};
use crate::password::PasswordConfig;

const MINUTES: Duration = Duration::from_secs(60);

on_each_database![
    a_login_answers_what_old_clients_read,
    registering_makes_an_account_and_signs_in,
    registration_can_be_closed,
    an_unknown_user_is_as_wrong_as_a_wrong_password,
    passwords_get_new_hashes_when_the_parameters_change,
    an_address_may_try_20_times_and_an_account_10_times,
    a_stranger_does_not_lock_out_who_is_at_home,
    sessions_end_by_themselves,
    a_user_has_a_hundred_sessions_at_most,
];

async fn a_login_answers_what_old_clients_read(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.register("ann").await;
    fixture.events().await;
    let second_factor = json!({"username": "Ann", "password": PASSWORD, "challenge_token": null, "code": 7});
    let call = fixture.post("/api/login").json(&second_factor).header("x-request-id", "req-7");
    let answer = call.header("user-agent", "Firefox").from("203.0.113.9").send().await;
    assert!(answer.headers.get("set-cookie").is_none(), "API hosts set no cookies");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let answer = answer.ok();
    let user_id = answer["user_id"].as_str().expect("an id");
    assert_eq!(user_id.len(), 21);
    let expected = json!({"username": "ann", "display_name": "ann", "user_id": user_id, "is_admin": false,
        "token": answer["token"], "expires_at": "2026-01-02T00:00:00Z"});
    assert_eq!(answer, expected);
    // As the old dashboard does: without a look at the signature.
    let token = answer["token"].as_str().expect("a token");
    let keys = KeySet::from_json("edd-auth", fixture.service().key_set().to_json().as_bytes()).expect("a key set");
    let claims = keys.verify(token, NOW).expect("claims");
    assert_eq!((claims.username.as_str(), claims.display_name.as_str(), claims.is_admin), ("ann", "ann", false));
    assert_eq!((claims.user_id.as_str(), claims.exp), (user_id, NOW / 1_000_000 + 24 * 3600));

    let session = fixture.get("/api/session").token(token).send().await.ok();
    assert_eq!((&session["username"], &session["user_id"]), (&json!("ann"), &json!(user_id)));
    assert_eq!(session["is_admin"], json!(false));
    let [(subject, AnyEvent::SessionCreated(created))] = &fixture.events().await[..] else { panic!("one event") };
    assert_eq!(subject, &format!("auth.session.{}.created", claims.sid));
    assert_eq!((created.user_uid.as_str(), created.user_id), (user_id, claims.user_number));
    assert_eq!(created.expires_at.expect("a time").seconds, claims.exp);
    let metadata = created.metadata.as_ref().expect("metadata");
    assert_eq!((metadata.correlation_id.as_str(), metadata.source.as_str()), ("req-7", "auth-service"));
    let own = fixture.get("/api/settings/sessions").token(token).send().await.ok();
    assert_eq!((&own[0]["ip_address"], &own[0]["user_agent"]), (&json!("203.0.113.9"), &json!("Firefox")));
}

async fn registering_makes_an_account_and_signs_in(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.events().await;
    let account = json!({"username": "Bob_2", "password": PASSWORD, "display_name": " Bob Ö "});
    let answer = fixture.post("/api/register").json(&account).send().await.ok();
    assert_eq!((&answer["username"], &answer["display_name"]), (&json!("bob_2"), &json!("Bob Ö")));
    assert_eq!(answer["is_admin"], json!(false));
    assert_eq!(fixture.session_status(answer["token"].as_str().expect("a token")).await, 200);
    let events = fixture.events().await;
    let [(subject, AnyEvent::UserCreated(created)), (_, AnyEvent::SessionCreated(_))] = &events[..] else {
        panic!("{events:?}")
    };
    let user_id = answer["user_id"].as_str().expect("an id");
    assert_eq!(subject, &format!("auth.user.{user_id}.created"));
    assert_eq!((created.username.as_str(), created.display_name.as_str()), ("bob_2", "Bob Ö"));
    assert_eq!(created.user_uid, user_id);

    let message = fixture.post("/api/register").json(&account).send().await.refused(409);
    assert_eq!(message, "this username is taken");
    let same = json!({"username": "BOB_2", "password": PASSWORD});
    fixture.post("/api/register").json(&same).send().await.refused(409);
    let short = json!({"username": "carol", "password": "short"});
    let message = fixture.post("/api/register").json(&short).send().await.refused(400);
    assert_eq!(message, "password: 8 to 1024 bytes");
    assert!(fixture.events().await.is_empty());
}

async fn registration_can_be_closed(kind: Kind) {
    let fixture =
        Fixture::with(kind, crate::auth::config::AuthConfig { registration: Registration::Closed, ..config() });
    let fixture = fixture.await;
    let account = json!({"username": "ann", "password": PASSWORD});
    let message = fixture.post("/api/register").json(&account).send().await.refused(403);
    assert!(message.contains("administrator"), "{message}");
    let admin = fixture.admin().await;
    fixture.post("/admin/users").token(&admin).json(&account).send().await.ok();
    fixture.login("ann", PASSWORD).await;
}

async fn an_unknown_user_is_as_wrong_as_a_wrong_password(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.register("ann").await;
    let mut answers = Vec::new();
    for (name, password) in [
        ("ann", "wrong password"),
        ("nobody", "wrong password"),
        ("ann' OR '1'='1", "wrong password"),
        ("аnn", PASSWORD),
        ("ann\0", PASSWORD),
        ("a", PASSWORD),
        ("ann", &"x".repeat(2000)),
        ("ann", &PASSWORD.to_uppercase()),
    ] {
        let before = fixture.service().hashes();
        let answer = fixture.try_login(name, password).await;
        assert_eq!(fixture.service().hashes() - before, 1, "the same work for {name}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        answers.push(answer.refused(401));
    }
    answers.dedup();
    assert_eq!(answers, ["wrong username or password"]);
}

async fn passwords_get_new_hashes_when_the_parameters_change(kind: Kind) {
    let mut config = config();
    let fixture = Fixture::with(kind, config.clone()).await;
    fixture.register("ann").await;
    config.passwords = PasswordConfig { memory_kib: 128, ..config.passwords };
    let fixture = fixture.restarted(config).await;
    let hashes = async |password: &str| {
        let before = fixture.service().hashes();
        let status = fixture.try_login("ann", password).await.status;
        (status, fixture.service().hashes() - before)
    };
    assert_eq!(hashes("a wrong password").await, (401, 1));
    assert_eq!(hashes(PASSWORD).await, (200, 2), "compared, and made anew");
    assert_eq!(hashes(PASSWORD).await, (200, 1));
    let stored: String = sqlx::query_scalar("SELECT password_hash FROM users WHERE username = 'ann'")
        .fetch_one(fixture.database.reader())
        .await
        .expect("a hash");
    assert!(stored.starts_with("$argon2id$v=19$m=128,t=1,p=1$"), "{stored}");
}

async fn an_address_may_try_20_times_and_an_account_10_times(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let attempt = |name: &str, ip: &str| {
        let call = fixture.post("/api/login").json(&json!({"username": name, "password": "a wrong one"}));
        call.from(ip).send()
    };
    for number in 0..10 {
        assert_eq!(attempt("ann", &format!("203.0.113.{number}")).await.status, 401);
    }
    let answer = attempt("ann", "203.0.113.99").await;
    assert_eq!(answer.headers["retry-after"], "900");
    assert_eq!(answer.refused(429), "too many attempts: try again in 900 s");
    for number in 0..20 {
        let ip = format!("2001:db8:1:2::{number}");
        assert_eq!(attempt(&format!("user-{number}"), &ip).await.status, 401);
    }
    let before = fixture.service().hashes();
    assert_eq!(attempt("someone", "2001:db8:1:2:ffff::").await.status, 429, "one /64 is one address");
    assert_eq!(fixture.service().hashes(), before, "what is refused costs nothing");
    assert_eq!(attempt("someone", "2001:db8:1:3::").await.status, 401);
    fixture.clock.advance(15 * MINUTES);
    assert_eq!(attempt("ann", "2001:db8:1:2::").await.status, 401);
}

async fn a_stranger_does_not_lock_out_who_is_at_home(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let account = json!({"username": "ann", "password": PASSWORD});
    fixture.post("/api/register").json(&account).from("192.0.2.1").send().await.ok();
    for number in 0..11 {
        let wrong = json!({"username": "ann", "password": "a wrong one"});
        let answer = fixture.post("/api/login").json(&wrong).from(&format!("203.0.113.{number}")).send().await;
        assert_eq!(answer.status, if number < 10 { 401 } else { 429 });
    }
    let login = |ip: &str| fixture.post("/api/login").json(&account).from(ip).send();
    assert_eq!(login("203.0.113.50").await.status, 429, "the right password from elsewhere");
    for _ in 0..10 {
        login("192.0.2.1").await.ok();
    }
    assert_eq!(login("192.0.2.1").await.status, 429, "the number holds at home as well");
}

async fn sessions_end_by_themselves(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let token = fixture.login("admin", ADMIN_PASSWORD).await;
    fixture.clock.advance(24 * 60 * MINUTES - MINUTES);
    assert_eq!(fixture.session_status(&token).await, 200);
    fixture.clock.advance(MINUTES);
    let message = fixture.get("/api/session").token(&token).send().await.refused(401);
    assert!(message.starts_with("not signed in: "), "{message}");
    fixture.events().await;
    assert_eq!(fixture.service().prune().await.expect("a count"), 1);
    assert_eq!(fixture.count("sessions").await, 0);
    assert!(fixture.events().await.is_empty(), "every verifier knows by the clock");
}

async fn a_user_has_a_hundred_sessions_at_most(kind: Kind) {
    let many = crate::limiter::Limit { tries: 1000, window: MINUTES };
    let limits = Limits { logins_per_address: many, logins_per_account: many, ..Limits::default() };
    let fixture = Fixture::with(kind, crate::auth::config::AuthConfig { limits, ..config() }).await;
    let first = fixture.admin().await;
    let second = fixture.admin().await;
    for _ in 0..98 {
        fixture.admin().await;
    }
    fixture.events().await;
    assert_eq!((fixture.session_status(&first).await, fixture.session_status(&second).await), (200, 200));
    fixture.admin().await;
    assert_eq!((fixture.session_status(&first).await, fixture.session_status(&second).await), (401, 200));
    let events = fixture.events().await;
    assert!(
        matches!(&events[..], [(_, AnyEvent::SessionInvalidated(_)), (_, AnyEvent::SessionCreated(_))]),
        "{events:?}"
    );
    assert_eq!(fixture.count("sessions").await, 100);
}
