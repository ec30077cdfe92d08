//! Users, as administrators and they themselves change them.

use edd_events::database::Kind;
use edd_proto::AnyEvent;
use edd_proto::auth::SessionEnd;
use serde_json::{Value, json};

use super::fixture::{Fixture, PASSWORD, on_each_database};

on_each_database![
    an_administrator_makes_and_lists_users,
    only_administrators_at_a_keyboard_may,
    a_deleted_user_ends_with_everything_of_theirs,
    who_cannot_be_deleted_is_said,
    a_freed_name_is_another_user,
    users_rename_themselves,
    a_new_password_ends_the_other_sessions,
    a_current_password_may_be_tried_ten_times,
];

async fn an_administrator_makes_and_lists_users(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = fixture.admin().await;
    fixture.events().await;
    let new = json!({"username": "Ann", "password": PASSWORD, "display_name": "Ann Ö"});
    let ann = fixture.post("/admin/users").token(&admin).json(&new).send().await.ok();
    let id = ann["user_id"].as_str().expect("an id");
    let expected = json!({"id": id, "user_id": id, "username": "ann", "display_name": "Ann Ö", "is_admin": false,
        "created_at": "2026-01-01T00:00:00Z"});
    assert_eq!(ann, expected);
    let [(subject, AnyEvent::UserCreated(_))] = &fixture.events().await[..] else { panic!("one event") };
    assert_eq!(subject, &format!("auth.user.{id}.created"));
    // As the old dashboard sends it.
    let unnamed = json!({"username": "bob", "password": PASSWORD, "display_name": ""});
    let bob = fixture.post("/admin/users").token(&admin).json(&unnamed).send().await.ok();
    assert_eq!(bob["display_name"], json!("bob"));
    let taken = fixture.post("/admin/users").token(&admin).json(&new).send().await;
    assert_eq!(taken.refused(409), "this username is taken");

    let all = fixture.get("/admin/users").token(&admin).send().await;
    assert!(!all.headers.contains_key("x-next-cursor"));
    let names = |users: &Value| -> Vec<String> {
        let users = users.as_array().expect("a bare array").iter();
        users.map(|user| user["username"].as_str().expect("a name").to_owned()).collect()
    };
    let (mut listed, mut paged, mut after) = (names(&all.ok()), Vec::new(), String::new());
    loop {
        let page = fixture.get(&format!("/admin/users?limit=1&after={after}")).token(&admin).send().await;
        let cursor = page.headers.get("x-next-cursor").map(|value| value.to_str().expect("text").to_owned());
        paged.extend(names(&page.ok()));
        let Some(cursor) = cursor else { break };
        after = cursor;
    }
    assert_eq!(paged, listed);
    listed.sort_unstable();
    assert_eq!(listed, ["admin", "ann", "bob"]);
}

async fn only_administrators_at_a_keyboard_may(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let ann = fixture.login("ann", PASSWORD).await;
    let admin = fixture.admin().await;
    let admin_id = fixture.get("/api/session").token(&admin).send().await.ok()["user_id"].clone();
    let scopes = json!({format!("auth.{}", admin_id.as_str().expect("an id")): ["write"]});
    let wanted = json!({"name": "robot", "scopes": scopes, "expires_in": "never"});
    let robot = fixture.post("/api/tokens").token(&admin).json(&wanted).send().await.ok();
    let robot = robot["token"].as_str().expect("a token");
    let new = json!({"username": "eve", "password": PASSWORD});
    for (token, status) in [(Some(&*ann), 403), (Some(robot), 403), (Some("nonsense"), 401), (None, 401)] {
        for call in [
            fixture.get("/admin/users"),
            fixture.post("/admin/users").json(&new),
            fixture.delete(&format!("/admin/users?id={id}")),
            fixture.get("/admin/sessions"),
        ] {
            let call = match token {
                Some(token) => call.token(token),
                None => call,
            };
            call.send().await.refused(status);
        }
    }
    assert_eq!(fixture.count("users").await, 2);
}

async fn a_deleted_user_ends_with_everything_of_theirs(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let (first, second) = (fixture.login("ann", PASSWORD).await, fixture.login("ann", PASSWORD).await);
    let wanted = json!({"name": "robot", "scopes": {format!("compute.{id}"): ["read"]}, "expires_in": "never"});
    let robot = fixture.post("/api/tokens").token(&first).json(&wanted).send().await.ok();
    let admin = fixture.admin().await;
    fixture.events().await;
    let delete = fixture.delete(&format!("/admin/users?id={id}")).token(&admin);
    delete.header("x-request-id", "r-9").send().await.done();

    let events = fixture.events().await;
    let (_, AnyEvent::UserDeleted(deleted)) = &events[0] else { panic!("{events:?}") };
    assert_eq!((deleted.user_uid.as_str(), deleted.username.as_str()), (id.as_str(), "ann"));
    let metadata = deleted.metadata.as_ref().expect("metadata");
    assert_eq!((metadata.version, metadata.correlation_id.as_str()), (2, "r-9"));
    let mut ended = Vec::new();
    for (_, event) in &events[1..] {
        let AnyEvent::SessionInvalidated(event) = event else { panic!("{event:?}") };
        assert_eq!((event.user_uid.as_str(), event.reason()), (id.as_str(), SessionEnd::UserDeleted));
        ended.push(event.session_id.as_str());
    }
    assert_eq!(ended.len(), 4, "three sessions, for registering begins one, and an API token");
    assert!(ended.contains(&robot["id"].as_str().expect("an id")));
    for token in [&*first, &*second, robot["token"].as_str().expect("a token")] {
        assert_eq!(fixture.session_status(token).await, 401);
    }
    assert_eq!(fixture.try_login("ann", PASSWORD).await.status, 401);
    let stored: (String, String, String) =
        sqlx::query_as("SELECT username, display_name, password_hash FROM users WHERE id = $1")
            .bind(&id)
            .fetch_one(fixture.database.reader())
            .await
            .expect("a tombstone");
    assert_eq!(stored, Default::default(), "of who is gone, only the ids stay");
    let again = fixture.delete(&format!("/admin/users?id={id}")).token(&admin).send().await;
    assert_eq!(again.refused(404), "there is no such user");
}

async fn who_cannot_be_deleted_is_said(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = fixture.admin().await;
    let own = fixture.get("/api/session").token(&admin).send().await.ok();
    let own = own["user_id"].as_str().expect("an id");
    let refused = async |query: &str, status| {
        fixture.delete(&format!("/admin/users{query}")).token(&admin).send().await.refused(status)
    };
    assert!(refused(&format!("?id={own}"), 400).await.contains("themselves"));
    assert!(refused("", 400).await.contains("?id="));
    for id in ["V1StGXR8_Z5jdHi6B-myT", "1", "", "%00", "x'%20OR%201=1"] {
        assert_eq!(refused(&format!("?id={id}"), 404).await, "there is no such user", "{id}");
    }
    assert_eq!(fixture.session_status(&admin).await, 200);
}

async fn a_freed_name_is_another_user(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = fixture.admin().await;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let id = fixture.register("ann").await;
        fixture.login("ann", PASSWORD).await;
        fixture.delete(&format!("/admin/users?id={id}")).token(&admin).send().await.done();
        ids.insert(id);
    }
    assert_eq!((ids.len(), fixture.count("users").await), (3, 4));
}

async fn users_rename_themselves(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let token = fixture.login("ann", PASSWORD).await;
    fixture.events().await;
    let rename = |name: &str| {
        let profile = json!({"display_name": name});
        fixture.put("/api/settings/profile").token(&token).json(&profile).send()
    };
    rename(" Ann \u{1f600} ").await.done();
    let session = fixture.get("/api/session").token(&token).send().await.ok();
    assert_eq!(session["display_name"], json!("Ann \u{1f600}"));
    let [(subject, AnyEvent::UserUpdated(updated))] = &fixture.events().await[..] else { panic!("one event") };
    assert_eq!(subject, &format!("auth.user.{id}.updated"));
    assert_eq!((updated.username.as_str(), updated.display_name.as_str()), ("ann", "Ann \u{1f600}"));
    assert_eq!(updated.metadata.as_ref().expect("metadata").version, 2);
    for name in ["", " ", "a\0", "\u{202e}nna", &"x".repeat(65)] {
        let message = rename(name).await.refused(400);
        assert_eq!(message, "display_name: 1 to 64 characters, none of them invisible");
    }
    assert!(fixture.events().await.is_empty());
}

async fn a_new_password_ends_the_other_sessions(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.register("ann").await;
    let (current, other) = (fixture.login("ann", PASSWORD).await, fixture.login("ann", PASSWORD).await);
    fixture.events().await;
    let change = |old: &str, new: &str| {
        let passwords = json!({"current": old, "new": new});
        fixture.put("/api/settings/password").token(&current).json(&passwords).send()
    };
    assert!(change("a wrong one", "another password").await.refused(403).contains("current password"));
    assert_eq!(change(PASSWORD, "short").await.refused(400), "password: 8 to 1024 bytes");
    assert_eq!(fixture.session_status(&other).await, 200);
    assert!(fixture.events().await.is_empty());

    change(PASSWORD, "another password").await.done();
    assert_eq!((fixture.session_status(&current).await, fixture.session_status(&other).await), (200, 401));
    let events = fixture.events().await;
    assert_eq!(events.len(), 2, "the one of registering as well: {events:?}");
    for (_, event) in events {
        let AnyEvent::SessionInvalidated(event) = event else { panic!("{event:?}") };
        assert_eq!((event.user_uid.as_str(), event.reason()), (id.as_str(), SessionEnd::PasswordChanged));
    }
    assert_eq!(fixture.try_login("ann", PASSWORD).await.status, 401);
    fixture.login("ann", "another password").await;
    // As edd-cloud's settings page names them.
    let passwords = json!({"current_password": "another password", "new_password": PASSWORD});
    fixture.put("/api/settings/password").token(&current).json(&passwords).send().await.done();
}

async fn a_current_password_may_be_tried_ten_times(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.register("ann").await;
    let token = fixture.login("ann", PASSWORD).await;
    let passwords = json!({"current": "a wrong one", "new": "another password"});
    let attempt = || fixture.put("/api/settings/password").token(&token).json(&passwords).send();
    for _ in 0..10 {
        attempt().await.refused(403);
    }
    let answer = attempt().await;
    assert_eq!(answer.headers["retry-after"], "900");
    answer.refused(429);
}
