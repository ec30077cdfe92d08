//! Signing keys follow one another, the same in all replicas.

use std::time::Duration;

use edd_events::database::Kind;

use super::fixture::{Fixture, on_each_database};

const DAY: Duration = Duration::from_secs(24 * 3600);

on_each_database![a_key_signs_for_30_days_and_the_next_is_known_before, replicas_agree_on_their_keys,];

fn known(fixture: &Fixture) -> Vec<String> {
    let jwks: serde_json::Value = serde_json::from_str(&fixture.service().key_set().to_json()).expect("json");
    let keys = jwks["keys"].as_array().expect("keys").iter();
    keys.map(|key| key["kid"].as_str().expect("an id").to_owned()).collect()
}

/// The key that signs now.
async fn signing(fixture: &Fixture) -> String {
    let token = fixture.admin().await;
    jsonwebtoken::decode_header(token).expect("a header").kid.expect("an id")
}

async fn a_key_signs_for_30_days_and_the_next_is_known_before(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let first = signing(&fixture).await;
    fixture.clock.advance(29 * DAY - Duration::from_secs(1));
    fixture.service().maintain_keys().await.expect("keys");
    assert_eq!(known(&fixture), [first.as_str()]);
    fixture.clock.advance(Duration::from_secs(1));
    fixture.service().maintain_keys().await.expect("keys");
    assert_eq!(known(&fixture).len(), 2);
    assert_eq!(signing(&fixture).await, first, "the next is only known");
    fixture.clock.advance(DAY);
    let token = fixture.admin().await;
    let second = signing(&fixture).await;
    assert_ne!(second, first, "without anything having been done in between");
    fixture.clock.advance(DAY - Duration::from_secs(1));
    fixture.service().maintain_keys().await.expect("keys");
    assert_eq!(known(&fixture).len(), 2, "a token of the first may still be good");
    assert_eq!(fixture.session_status(&token).await, 200);
    fixture.clock.advance(Duration::from_secs(120));
    fixture.service().maintain_keys().await.expect("keys");
    assert_eq!(known(&fixture), [second]);
    assert_eq!(fixture.count("signing_keys").await, 1);
}

async fn replicas_agree_on_their_keys(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let replica = fixture.replica().await;
    assert_eq!(known(&fixture), known(&replica));
    assert_eq!(replica.session_status(&fixture.admin().await).await, 200);
    fixture.clock.advance(29 * DAY);
    let (one, other) = tokio::join!(fixture.service().maintain_keys(), replica.service().maintain_keys());
    one.and(other).expect("keys");
    assert_eq!(known(&fixture).len(), 2);
    assert_eq!(known(&fixture), known(&replica));
    fixture.clock.advance(DAY);
    assert_eq!(signing(&fixture).await, signing(&replica).await);
    assert_eq!(fixture.session_status(&replica.admin().await).await, 200);
}
