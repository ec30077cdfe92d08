//! What other services read: all users, what is revoked, and the public keys.

use std::collections::BTreeMap;
use std::time::Duration;

use edd_events::database::Kind;
use edd_events::projection::DigestBuilder;
use edd_events::user_cache;
use edd_proto::{AnyEvent, Event};
use serde_json::{Value, json};

use super::fixture::{Fixture, PASSWORD, SERVICE_KEY, config, on_each_database};
use crate::access_token::KeySet;

on_each_database![
    a_snapshot_has_every_user_with_the_version_of_their_last_event,
    a_snapshot_has_what_is_revoked_until_it_would_have_ended,
    a_copy_made_of_the_snapshot_has_the_owners_digest,
    snapshots_are_for_services,
    pages_of_a_large_table_are_bounded,
    keys_are_public_and_may_be_cached,
];

async fn rows(fixture: &Fixture, path: &str, list: &str, limit: u32) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{path}{}limit={limit}{cursor}", if path.contains('?') { '&' } else { '?' });
        let page = fixture.get(&path).header("x-service-key", SERVICE_KEY).send().await.ok();
        let on_page = page[list].as_array().expect("a list");
        assert!(on_page.len() <= limit as usize);
        rows.extend(on_page.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&after={next}"),
            None => return rows,
        }
    }
}

async fn a_snapshot_has_every_user_with_the_version_of_their_last_event(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = fixture.admin().await;
    let mut ids = Vec::new();
    for name in ["ann", "bob", "carol", "dave"] {
        ids.push(fixture.register(name).await);
    }
    let token = fixture.login("bob", PASSWORD).await;
    for name in ["B", "C"] {
        let profile = json!({"display_name": name});
        fixture.put("/api/settings/profile").token(&token).json(&profile).send().await.done();
    }
    fixture.delete(&format!("/admin/users?id={}", ids[2])).token(&admin).send().await.done();
    let mut versions = BTreeMap::new();
    for (_, event) in fixture.events().await {
        let metadata = match &event {
            AnyEvent::UserCreated(event) => event.metadata(),
            AnyEvent::UserUpdated(event) => event.metadata(),
            AnyEvent::UserDeleted(event) => event.metadata(),
            _ => continue,
        };
        let metadata = metadata.expect("metadata");
        versions.insert(metadata.entity_id.clone(), metadata.version);
    }
    let all = rows(&fixture, "/api/users?deleted=true", "users", 2).await;
    let told: BTreeMap<_, _> = all
        .iter()
        .map(|row| (row["user_id"].as_str().expect("an id").to_owned(), row["version"].as_i64().expect("a version")))
        .collect();
    assert_eq!(told, versions);
    let order: Vec<_> = all.iter().map(|row| row["user_id"].as_str().expect("an id").as_bytes()).collect();
    assert!(order.is_sorted(), "by bytes, on every database");
    let row = |id: &str| all.iter().find(|row| row["user_id"] == json!(id)).expect("a row").clone();
    let bob = json!({"id": row(&ids[1])["id"], "user_id": ids[1], "username": "bob", "display_name": "C",
        "is_admin": false, "version": 3, "deleted": false, "created_at": "2026-01-01T00:00:00Z"});
    assert_eq!(row(&ids[1]), bob);
    assert!(bob["id"].is_i64());
    let carol = row(&ids[2]);
    assert_eq!((&carol["deleted"], &carol["username"], &carol["version"]), (&json!(true), &json!(""), &json!(2)));
    let live = rows(&fixture, "/api/users", "users", 5000).await;
    assert_eq!(live.len(), 4);
    assert!(live.iter().all(|row| row["user_id"] != json!(ids[2])));
}

async fn a_copy_made_of_the_snapshot_has_the_owners_digest(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = fixture.admin().await;
    let owners = async || {
        let answer = fixture.get("/api/users/digest").header("x-service-key", SERVICE_KEY).send().await.ok();
        answer["digest"].as_str().expect("a digest").to_owned()
    };
    let copys = async || {
        let mut digest = DigestBuilder::default();
        for row in rows(&fixture, "/api/users?deleted=true", "users", 3).await {
            let text = |field: &str| row[field].as_str().expect("text").to_owned();
            let names = (row["deleted"] == json!(false)).then(|| (text("username"), text("display_name")));
            let id = text("user_id").parse().expect("an id");
            let version = row["version"].as_i64().expect("a version");
            digest.add(&user_cache::entry(id, version, row["id"].as_i64(), names)).expect("entries in order");
        }
        digest.finish().to_string()
    };
    let mut seen = vec![owners().await];
    assert_eq!(copys().await, seen[0]);
    let id = fixture.register("ann").await;
    seen.push(owners().await);
    assert_eq!(copys().await, seen[1]);
    fixture.delete(&format!("/admin/users?id={id}")).token(&admin).send().await.done();
    assert_eq!(owners().await, seen[0], "tombstones do not count");
    assert_eq!(copys().await, seen[0]);
    assert_ne!(seen[0], seen[1]);
}

async fn a_snapshot_has_what_is_revoked_until_it_would_have_ended(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = fixture.admin().await;
    let id = fixture.register("ann").await;
    let token = fixture.login("ann", PASSWORD).await;
    let wanted = json!({"name": "ci", "scopes": {format!("compute.{id}"): ["read"]}, "expires_in": "never"});
    let robot = fixture.post("/api/tokens").token(&token).json(&wanted).send().await.ok();
    fixture.post("/api/logout").token(&token).send().await.done();
    fixture.delete(&format!("/admin/users?id={id}")).token(&admin).send().await.done();

    let revoked = rows(&fixture, "/api/sessions/revoked", "revoked", 1).await;
    let kinds: Vec<_> =
        revoked.iter().map(|row| (row["kind"].as_str().expect("text"), row["reason"].clone())).collect();
    let deleted = json!("SESSION_END_USER_DELETED");
    let logged_out = json!("SESSION_END_LOGGED_OUT");
    let expected =
        [("session", logged_out), ("session", deleted.clone()), ("api_token", deleted.clone()), ("user", deleted)];
    assert_eq!(kinds, expected);
    assert!(revoked.iter().all(|row| row["user_id"] == json!(id) && row["id"].is_i64()));
    assert_eq!((&revoked[0]["version"], &revoked[0]["expires_at"]), (&json!(2), &json!("2026-01-02T00:00:00Z")));
    assert_eq!((&revoked[2]["record_id"], &revoked[2]["version"]), (&robot["id"], &json!(1)));
    assert_eq!((&revoked[3]["record_id"], &revoked[3]["version"]), (&json!(id), &json!(2)));
    let restarted = fixture.restarted(config()).await;
    assert_eq!(rows(&restarted, "/api/sessions/revoked", "revoked", 1000).await, revoked);

    restarted.clock.advance(Duration::from_secs(24 * 3600));
    let left = rows(&restarted, "/api/sessions/revoked", "revoked", 1000).await;
    assert_eq!(left.len(), 1, "the user, as long as a refreshed session could be");
    restarted.clock.advance(Duration::from_secs(29 * 24 * 3600));
    assert!(rows(&restarted, "/api/sessions/revoked", "revoked", 1000).await.is_empty());
    restarted.service().prune().await.expect("a count");
    assert_eq!(restarted.count("revocations").await, 0);
}

async fn snapshots_are_for_services(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = fixture.admin().await;
    for path in ["/api/users", "/api/users/digest", "/api/sessions/revoked"] {
        let get = || fixture.get(path).token(&admin);
        assert!(get().send().await.refused(401).contains("X-Service-Key is needed"));
        for key in ["", "between service", "between services ", "BETWEEN SERVICES"] {
            // A header's value loses the spaces around it on the wire; here it does not.
            let message = get().header("x-service-key", key).send().await.refused(401);
            assert!(message.contains("is not this installation's"), "{message}");
        }
        if path == "/api/users/digest" {
            continue;
        }
        for query in ["limit=0", "limit=5001", "limit=-1", "limit=x"] {
            let call = fixture.get(&format!("{path}?{query}")).header("x-service-key", SERVICE_KEY);
            call.send().await.refused(400);
        }
    }
    let unset = crate::auth::config::AuthConfig { service_key: None, ..config() };
    let fixture = fixture.restarted(unset).await;
    let message = fixture.get("/api/users").header("x-service-key", "").send().await.refused(401);
    assert!(message.contains("SERVICE_API_KEY"), "{message}");
}

async fn pages_of_a_large_table_are_bounded(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut transaction = fixture.database.begin().await.expect("a transaction");
    for number in 0..6000 {
        let id = format!("{number:021}");
        let insert = "INSERT INTO users (id, id_bytes, username, display_name, password_hash, is_admin, version, created_at) \
                      VALUES ($1, $2, $1, $1, '', 0, 1, 0)";
        let insert = sqlx::query(insert).bind(&id).bind(id.as_bytes().to_vec());
        insert.execute(&mut *transaction).await.expect("a row");
    }
    fixture.database.commit(transaction).await.expect("a commit");
    let unbounded = fixture.get("/api/users").header("x-service-key", SERVICE_KEY).send().await.ok();
    assert_eq!(unbounded["users"].as_array().expect("a list").len(), 1000);
    assert!(unbounded["next_cursor"].is_string());
    assert_eq!(rows(&fixture, "/api/users", "users", 1500).await.len(), 6001);
    let admin = fixture.admin().await;
    let listed = fixture.get("/admin/users").token(&admin).send().await;
    assert!(listed.headers.contains_key("x-next-cursor"));
    assert_eq!(listed.ok().as_array().expect("a list").len(), 1000);
}

async fn keys_are_public_and_may_be_cached(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let answer = fixture.get("/.well-known/jwks.json").send().await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    assert_eq!(answer.headers["content-type"], "application/jwk-set+json");
    assert!(!answer.text.contains("\"d\""), "no private half: {}", answer.text);
    let keys = KeySet::from_json("edd-auth", answer.text.as_bytes()).expect("a key set");
    let token = fixture.admin().await;
    assert!(keys.verify(&token, super::fixture::NOW).is_ok());
}
