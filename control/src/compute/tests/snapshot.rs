//! What gateways copy: pages, digests, and that events lead to the same.

use std::collections::BTreeMap;

use edd_events::compute_cache::containers::Containers;
use edd_events::compute_cache::ingress_requests::IngressRequests;
use edd_events::compute_cache::ssh_keys::SshKeys;
use edd_events::database::Kind;
use edd_events::message::Message;
use edd_events::projection::{DigestBuilder, Entry, Key, Page, Projection};
use http::Method;
use serde_json::json;

use super::fixture::{ANN, BOB, Fixture};
use crate::compute::owner::Table;
use crate::scratch::on_each_database;

on_each_database![a_copy_by_events_is_a_copy_by_pages, pages_are_for_services_and_bounded];

/// Where the pages of a table are served.
fn path(table: Table) -> &'static str {
    match table {
        Table::Containers => "/api/containers",
        Table::SshKeys => "/api/ssh-keys",
        Table::IngressRequests => "/api/ingress-requests",
    }
}

/// All rows of a table, page by page.
pub async fn pages(fixture: &Fixture, table: Table, limit: u32) -> Vec<Entry> {
    let (mut entries, mut after) = (Vec::<Entry>::new(), String::new());
    loop {
        let path = format!("{}?limit={limit}{after}", path(table));
        let answer = fixture.fleet(Method::GET, &path).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let page = Page::from_json(table.shape(), answer.text.as_bytes()).expect("a page");
        assert!(page.entries.len() <= limit as usize);
        entries.extend(page.entries);
        if !page.more {
            return entries;
        }
        after = format!("&after={}", entries.last().expect("a row").key.replace('/', "%2F"));
    }
}

/// The rows that `messages` lead to.
pub fn followed(projection: &impl Projection, messages: &[Message]) -> Vec<Entry> {
    let mut rows = BTreeMap::<String, Entry>::new();
    for message in messages {
        let Some(entry) = projection.read(message).expect("a good event") else { continue };
        let Key::Is(key) = entry.key else { panic!("no key in {entry:?}") };
        let entry = Entry { key: key.clone(), version: entry.version, deleted: entry.deleted, fields: entry.fields };
        let before = rows.insert(key, entry.clone());
        assert!(before.is_none_or(|before| before.version < entry.version), "versions grow: {entry:?}");
    }
    rows.into_values().collect()
}

/// That whoever followed `messages` from the start has what the pages and the digests say.
pub async fn assert_copied(fixture: &Fixture, messages: &[Message]) {
    for (table, rows) in [
        (Table::Containers, followed(&Containers, messages)),
        (Table::SshKeys, followed(&SshKeys, messages)),
        (Table::IngressRequests, followed(&IngressRequests, messages)),
    ] {
        let paged = pages(fixture, table, 3).await;
        assert_eq!(paged, rows, "{table:?}");
        let mut digest = DigestBuilder::default();
        paged.iter().for_each(|entry| digest.add(entry).expect("ordered rows"));
        let owners = fixture.fleet(Method::GET, &format!("{}/digest", path(table))).send().await.ok();
        assert_eq!(owners, json!({"digest": digest.finish().to_string()}), "{table:?}");
    }
}

async fn a_copy_by_events_is_a_copy_by_pages(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut keys = Vec::new();
    for seed in 0..12 {
        // Numbers of two digits sort before some of one.
        keys.push(fixture.add_key(if seed < 6 { ANN } else { BOB }, seed).await);
    }
    fixture.delete(&format!("/compute/ssh-keys/{}", keys[0])).await.done();
    let id = fixture.create_as(ANN, json!({"name": "x", "ssh_key_ids": [keys[1], keys[2]]})).await;
    let gone = fixture.create_as(ANN, json!({"name": "gone", "ingress_rules": [{"port": 8000}, {"port": 8001}]})).await;
    for name in ["a", "b", "c"] {
        fixture.create_as(BOB, json!({"name": name})).await;
    }
    fixture.round().await;
    let ingress = format!("/compute/containers/{id}/ingress");
    for port in [8000, 8010, 8002] {
        fixture.post(&ingress, json!({"port": port, "protocol": "tls"})).await.ok();
    }
    fixture.delete(&format!("{ingress}/8002")).await.done();
    fixture.delete(&format!("{ingress}/8010")).await.done();
    fixture.post(&ingress, json!({"port": 8010})).await.ok();
    fixture.put(&format!("/compute/containers/{id}/https"), json!({"https_enabled": false})).await.done();
    fixture.delete(&format!("/compute/ssh-keys/{}", keys[1])).await.done();
    fixture.act(id, "hibernate").await.done();
    fixture.delete(&format!("/compute/containers/{gone}")).await.done();
    fixture.round().await;
    assert_copied(&fixture, &fixture.messages().await).await;
}

async fn pages_are_for_services_and_bounded(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for path in [
        "/api/containers",
        "/api/containers/digest",
        "/api/ssh-keys",
        "/api/ssh-keys/digest",
        "/api/ingress-requests",
        "/api/ingress-requests/digest",
    ] {
        let refused = fixture.get(path).await.refused(401);
        assert!(refused.contains("X-Service-Key is needed"), "{refused}");
        let wrong = fixture.anonymous(Method::GET, path).header("x-service-key", "guessed").send().await;
        assert!(wrong.refused(401).contains("is not this installation's"), "{path}");
        fixture.fleet(Method::GET, path).send().await.ok();
    }
    for path in ["/api/containers?limit=0", "/api/ssh-keys?limit=5001", "/api/ingress-requests?limit=x"] {
        fixture.fleet(Method::GET, path).send().await.refused(400);
    }
    for path in ["/api/containers/activity", "/api/containers/abcdefgh12/wake"] {
        assert_eq!(fixture.post(path, json!({})).await.status, 401);
    }
}
