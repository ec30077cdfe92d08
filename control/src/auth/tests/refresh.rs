//! Refresh tokens: used once, and what happens when one comes again.

use std::time::Duration;

use edd_events::database::Kind;
use edd_proto::AnyEvent;
use edd_proto::auth::SessionEnd;
use serde_json::{Value, json};

use super::fixture::{ADMIN_PASSWORD, Answer, DASHBOARD, Fixture, on_each_database};

on_each_database![
    a_refresh_token_is_used_once_and_replaced,
    a_used_token_ends_the_session,
    an_answer_that_was_lost_is_asked_for_again,
    a_thief_and_a_victim_within_the_grace_are_found_out,
    two_that_refresh_at_once_end_nothing_and_share_no_token,
    refreshing_ends_with_the_session,
    a_session_is_refreshed_so_often_and_no_more,
    a_browser_refreshes_by_its_cookie,
    a_refresh_cookie_logs_out_when_the_access_token_has_expired,
];

async fn login(fixture: &Fixture) -> Value {
    let credentials = json!({"username": "admin", "password": ADMIN_PASSWORD, "refresh": true});
    fixture.post("/api/login").json(&credentials).send().await.ok()
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_else(|| panic!("{field} in {answer}")).to_owned()
}

async fn refresh(fixture: &Fixture, token: &str) -> Answer {
    fixture.post("/api/refresh").json(&json!({"refresh_token": token})).send().await
}

async fn a_refresh_token_is_used_once_and_replaced(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut answer = login(&fixture).await;
    let secret = text(&answer, "refresh_token");
    assert_eq!(secret.len(), 43);
    assert_eq!(answer["expires_at"], json!("2026-01-01T00:15:00Z"));
    let stored: Vec<u8> = sqlx::query_scalar("SELECT sha256 FROM refresh_tokens")
        .fetch_one(fixture.database.reader())
        .await
        .expect("a row");
    assert_eq!(stored, crate::entropy::Secret::of(&secret).sha256());
    for _ in 0..3 {
        let old = text(&answer, "token");
        fixture.clock.advance(Duration::from_secs(15 * 60 + 30));
        assert_eq!(fixture.session_status(&old).await, 401, "15 minutes, and 30 s for clocks that differ");
        let next = refresh(&fixture, &text(&answer, "refresh_token")).await.ok();
        assert_ne!(next["refresh_token"], answer["refresh_token"]);
        assert_eq!(fixture.session_status(&text(&next, "token")).await, 200);
        answer = next;
    }
    let events = fixture.events().await;
    assert!(events.iter().all(|(_, event)| !matches!(event, AnyEvent::SessionInvalidated(_))), "{events:?}");
}

/// Whether the session has ended, and said so.
async fn has_ended(fixture: &Fixture, access_token: &str) -> bool {
    let events = fixture.events().await;
    let reused = events.iter().any(|(_, event)| {
        matches!(event, AnyEvent::SessionInvalidated(event) if event.reason() == SessionEnd::RefreshReused)
    });
    assert_eq!(fixture.session_status(access_token).await == 401, reused, "{events:?}");
    reused
}

async fn a_used_token_ends_the_session(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let first = login(&fixture).await;
    let second = refresh(&fixture, &text(&first, "refresh_token")).await.ok();
    fixture.clock.advance(Duration::from_secs(10));
    let message = refresh(&fixture, &text(&first, "refresh_token")).await.refused(401);
    assert!(message.contains("refresh token"), "{message}");
    assert!(has_ended(&fixture, &text(&second, "token")).await);
    refresh(&fixture, &text(&second, "refresh_token")).await.refused(401);
    assert_eq!(fixture.count("refresh_tokens").await, 0);
    assert_eq!(fixture.count("revocations").await, 1);
}

async fn an_answer_that_was_lost_is_asked_for_again(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let first = login(&fixture).await;
    refresh(&fixture, &text(&first, "refresh_token")).await.ok();
    fixture.clock.advance(Duration::from_secs(9));
    let again = refresh(&fixture, &text(&first, "refresh_token")).await.ok();
    fixture.clock.advance(Duration::from_secs(900));
    let next = refresh(&fixture, &text(&again, "refresh_token")).await.ok();
    assert!(!has_ended(&fixture, &text(&next, "token")).await);
}

async fn a_thief_and_a_victim_within_the_grace_are_found_out(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let stolen = login(&fixture).await;
    let thief = refresh(&fixture, &text(&stolen, "refresh_token")).await.ok();
    let victim = refresh(&fixture, &text(&stolen, "refresh_token")).await.ok();
    fixture.clock.advance(Duration::from_secs(900));
    let victim = refresh(&fixture, &text(&victim, "refresh_token")).await.ok();
    refresh(&fixture, &text(&thief, "refresh_token")).await.refused(401);
    assert!(has_ended(&fixture, &text(&victim, "token")).await);

    let stolen = login(&fixture).await;
    let thief = refresh(&fixture, &text(&stolen, "refresh_token")).await.ok();
    let thief = refresh(&fixture, &text(&thief, "refresh_token")).await.ok();
    refresh(&fixture, &text(&stolen, "refresh_token")).await.refused(401);
    assert!(has_ended(&fixture, &text(&thief, "token")).await, "its successor had been used, so no answer was lost");
}

async fn two_that_refresh_at_once_end_nothing_and_share_no_token(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let first = login(&fixture).await;
    let token = text(&first, "refresh_token");
    let (one, other) = tokio::join!(refresh(&fixture, &token), refresh(&fixture, &token));
    let (one, other) = (one.ok(), other.ok());
    assert_ne!(one["refresh_token"], other["refresh_token"]);
    let unused: i64 = sqlx::query_scalar("SELECT count(*) FROM refresh_tokens WHERE used_at IS NULL")
        .fetch_one(fixture.database.reader())
        .await
        .expect("a count");
    assert_eq!(unused, 1);
    assert!(!has_ended(&fixture, &text(&one, "token")).await);
}

async fn refreshing_ends_with_the_session(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let answer = login(&fixture).await;
    fixture.clock.advance(Duration::from_secs(30 * 24 * 3600 - 60));
    let last = refresh(&fixture, &text(&answer, "refresh_token")).await.ok();
    assert_eq!(last["expires_at"], json!("2026-01-31T00:00:00Z"), "no longer than the session");
    fixture.clock.advance(Duration::from_secs(60));
    refresh(&fixture, &text(&last, "refresh_token")).await.refused(401);
    let answer = login(&fixture).await;
    fixture.post("/api/logout").token(&text(&answer, "token")).send().await.done();
    refresh(&fixture, &text(&answer, "refresh_token")).await.refused(401);
    for nonsense in ["", "x", &"x".repeat(10_000), "\0", "' OR 1=1"] {
        refresh(&fixture, nonsense).await.refused(401);
    }
    fixture.post("/api/refresh").send().await.refused(401);
    fixture.post("/api/refresh").json(&json!({"refresh_token": 7})).send().await.refused(400);
}

async fn a_session_is_refreshed_so_often_and_no_more(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut answer = login(&fixture).await;
    for _ in 0..30 {
        answer = refresh(&fixture, &text(&answer, "refresh_token")).await.ok();
    }
    let token = text(&answer, "refresh_token");
    refresh(&fixture, &token).await.refused(429);
    fixture.clock.advance(Duration::from_secs(15 * 60));
    refresh(&fixture, &token).await.ok();
}

async fn a_browser_refreshes_by_its_cookie(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let credentials = json!({"username": "admin", "password": ADMIN_PASSWORD, "refresh": true});
    let login = fixture.post("/api/login").json(&credentials).on_dashboard().send().await;
    let cookies = login.cookies();
    let from_elsewhere = fixture.post("/api/refresh").header("host", DASHBOARD).header("cookie", &cookies);
    from_elsewhere.header("origin", "http://evil.compute.cloud.localhost:8080").send().await.refused(403);
    let refreshed = fixture.post("/api/refresh").header("cookie", &cookies).on_dashboard().send().await;
    assert_ne!(refreshed.cookie("__Host-edd-refresh"), login.cookie("__Host-edd-refresh"));
    let next = refreshed.cookies();
    assert!(refreshed.ok().get("refresh_token").is_none());
    fixture.get("/api/session").header("cookie", &next).header("host", DASHBOARD).send().await.ok();
    fixture.clock.advance(Duration::from_secs(11));
    let reused = fixture.post("/api/refresh").header("cookie", &cookies).on_dashboard().send().await;
    assert!(reused.cookie("__Host-edd-refresh").expect("a cookie").starts_with("; Path=/; Max-Age=0;"));
    reused.refused(401);
}

async fn a_refresh_cookie_logs_out_when_the_access_token_has_expired(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let credentials = json!({"username": "admin", "password": ADMIN_PASSWORD, "refresh": true});
    let login = fixture.post("/api/login").json(&credentials).on_dashboard().send().await;
    let cookies = login.cookies();
    fixture.clock.advance(Duration::from_secs(3600));
    fixture.events().await;
    fixture.post("/api/logout").header("cookie", &cookies).on_dashboard().send().await.done();
    let events = fixture.events().await;
    let [(_, AnyEvent::SessionInvalidated(ended))] = &events[..] else { panic!("{events:?}") };
    assert_eq!(ended.reason(), SessionEnd::LoggedOut);
    assert_eq!(fixture.count("sessions").await, 0);
}
