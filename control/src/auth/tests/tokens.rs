//! API tokens.

use std::time::Duration;

use edd_events::database::Kind;
use edd_proto::AnyEvent;
use edd_proto::auth::SessionEnd;
use serde_json::json;

use super::fixture::{Fixture, PASSWORD, on_each_database};

on_each_database![
    a_token_is_shown_once_and_opens_what_it_says,
    a_token_expires_when_it_was_said_to,
    a_deleted_token_is_told,
    what_no_token_can_be_is_refused,
    a_token_cannot_change_its_account,
    the_number_of_tokens_is_bounded,
];

async fn a_token_is_shown_once_and_opens_what_it_says(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let session = fixture.login("ann", PASSWORD).await;
    let scopes =
        json!({format!("compute.{id}"): ["read"], format!("storage.{id}.namespaces.photos"): ["read", "write"]});
    let wanted = json!({"name": "ci", "scopes": scopes, "expires_in": "90d", "more": 1});
    let answer = fixture.post("/api/tokens").token(&session).json(&wanted).send().await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let made = answer.ok();
    let secret = made["token"].as_str().expect("a token");
    assert_eq!((&secret[..7], secret.len()), ("ecloud_", 50));
    assert_eq!((&made["name"], &made["scopes"]), (&json!("ci"), &scopes));
    assert_eq!(made["expires_at"], json!("2026-04-01T00:00:00Z"));
    let stored: Vec<u8> =
        sqlx::query_scalar("SELECT sha256 FROM api_tokens").fetch_one(fixture.database.reader()).await.expect("a row");
    assert_eq!(stored, crate::entropy::Secret::of(secret).sha256());

    let own = fixture.get("/api/session").token(secret).send().await.ok();
    assert_eq!((&own["username"], &own["expires_at"]), (&json!("ann"), &json!("2026-04-01T00:00:00Z")));
    let listed = fixture.get("/api/tokens").token(&session).send().await;
    assert!(!listed.text.contains(secret));
    let listed = listed.ok();
    assert_eq!((&listed[0]["id"], &listed[0]["last_used_at"]), (&made["id"], &json!("2026-01-01T00:00:00Z")));
    assert!(listed[0].get("token").is_none());
    let path = format!("/api/tokens/{}", made["id"].as_str().expect("an id"));
    assert_eq!(fixture.get(&path).token(&session).send().await.ok(), listed[0]);
    fixture.get("/api/tokens/unknown").token(&session).send().await.refused(404);
    let admin = fixture.admin().await;
    fixture.get(&path).token(&admin).send().await.refused(404);
}

async fn a_token_expires_when_it_was_said_to(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let session = fixture.login("ann", PASSWORD).await;
    let mut tokens = Vec::new();
    for expires_in in ["30d", "365d", "never"] {
        let wanted =
            json!({"name": expires_in, "scopes": {format!("compute.{id}"): ["read"]}, "expires_in": expires_in});
        let made = fixture.post("/api/tokens").token(&session).json(&wanted).send().await.ok();
        assert_eq!(made["expires_at"].is_null(), expires_in == "never");
        tokens.push(made["token"].as_str().expect("a token").to_owned());
    }
    let mut at = 0;
    for (days, statuses) in
        [(29, [200, 200, 200]), (30, [401, 200, 200]), (365, [401, 401, 200]), (9999, [401, 401, 200])]
    {
        fixture.clock.advance(Duration::from_secs((days - at) * 24 * 3600));
        at = days;
        for (token, status) in tokens.iter().zip(statuses) {
            assert_eq!(fixture.session_status(token).await, status, "after {days} days");
        }
    }
    fixture.events().await;
    fixture.service().prune().await.expect("a count");
    assert_eq!(fixture.count("api_tokens").await, 1);
    assert!(fixture.events().await.is_empty());
}

async fn a_deleted_token_is_told(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let session = fixture.login("ann", PASSWORD).await;
    let admin = fixture.admin().await;
    for by_query in [false, true] {
        let wanted = json!({"name": "ci", "scopes": {format!("compute.{id}"): ["read"]}, "expires_in": "never"});
        let made = fixture.post("/api/tokens").token(&session).json(&wanted).send().await.ok();
        let record = made["id"].as_str().expect("an id");
        let path = if by_query { format!("/api/tokens?id={record}") } else { format!("/api/tokens/{record}") };
        fixture.events().await;
        fixture.delete(&path).token(&admin).send().await.refused(404);
        assert!(fixture.events().await.is_empty(), "another user's");
        fixture.delete(&path).token(&session).send().await.done();
        let events = fixture.events().await;
        let [(subject, AnyEvent::SessionInvalidated(ended))] = &events[..] else { panic!("{events:?}") };
        assert_eq!(subject, &format!("auth.session.{record}.invalidated"));
        assert_eq!((ended.user_uid.as_str(), ended.reason()), (id.as_str(), SessionEnd::Revoked));
        assert!(ended.expires_at.is_some(), "it need not be remembered for ever");
        assert_eq!(fixture.session_status(made["token"].as_str().expect("a token")).await, 401);
        fixture.delete(&path).token(&session).send().await.refused(404);
    }
    fixture.delete("/api/tokens").token(&session).send().await.refused(400);
}

async fn what_no_token_can_be_is_refused(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let session = fixture.login("ann", PASSWORD).await;
    let own = format!("compute.{id}");
    let another = fixture.register("bob").await;
    for (wanted, word) in [
        (json!({"name": "", "scopes": {own.clone(): ["read"]}, "expires_in": "30d"}), "name"),
        (json!({"name": "a\0", "scopes": {own.clone(): ["read"]}, "expires_in": "30d"}), "name"),
        (json!({"name": "a", "scopes": {}, "expires_in": "30d"}), "scopes"),
        (json!({"name": "a", "scopes": {format!("compute.{another}"): ["read"]}, "expires_in": "30d"}), "your own"),
        (json!({"name": "a", "scopes": {own.clone(): []}, "expires_in": "30d"}), "actions"),
        (json!({"name": "a", "scopes": {own.clone(): "read"}, "expires_in": "30d"}), "scopes"),
        (json!({"name": "a", "scopes": [own.clone()], "expires_in": "30d"}), "scopes"),
        (json!({"name": "a", "scopes": {own.clone(): ["read"]}, "expires_in": "31d"}), "expires_in"),
        (json!({"name": "a", "scopes": {own.clone(): ["read"]}, "expires_in": 30}), "expires_in"),
        (json!({"name": "a", "scopes": {own.clone(): ["read"]}}), "expires_in"),
        (json!({"scopes": {own.clone(): ["read"]}, "expires_in": "never"}), "name"),
    ] {
        let message = fixture.post("/api/tokens").token(&session).json(&wanted).send().await.refused(400);
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(fixture.count("api_tokens").await, 0);
}

async fn a_token_cannot_change_its_account(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let session = fixture.login("ann", PASSWORD).await;
    let wanted = json!({"name": "ci", "scopes": {format!("auth.{id}"): ["write"]}, "expires_in": "never"});
    let made = fixture.post("/api/tokens").token(&session).json(&wanted).send().await.ok();
    let token = made["token"].as_str().expect("a token");
    for call in [
        fixture.post("/api/tokens").json(&wanted),
        fixture.get("/api/tokens"),
        fixture.delete("/api/tokens?id=x"),
        fixture.put("/api/settings/profile").json(&json!({"display_name": "x"})),
        fixture.put("/api/settings/password").json(&json!({"current": PASSWORD, "new": "another password"})),
        fixture.get("/api/settings/sessions"),
        fixture.delete("/api/settings/sessions"),
        fixture.post("/api/logout"),
    ] {
        call.token(token).send().await.refused(403);
    }
}

async fn the_number_of_tokens_is_bounded(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let session = fixture.login("ann", PASSWORD).await;
    let wanted = json!({"name": "ci", "scopes": {format!("compute.{id}"): ["read"]}, "expires_in": "never"});
    for _ in 0..100 {
        fixture.post("/api/tokens").token(&session).json(&wanted).send().await.ok();
    }
    let message = fixture.post("/api/tokens").token(&session).json(&wanted).send().await.refused(409);
    assert!(message.contains("100"), "{message}");
}
