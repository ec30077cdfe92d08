//! SSH keys: read as OpenSSH reads them, and nobody let in by one that is gone.

use std::process::Command;

use edd_events::database::Kind;
use edd_proto::AnyEvent;
use http::Method;
use serde_json::json;

use super::fixture::{ANN, BOB, Fixture, config, public_key};
use crate::compute::model::PublicKey;
use crate::scratch::on_each_database;

on_each_database![
    keys_are_added_listed_and_deleted,
    keys_are_bounded_and_distinct,
    a_container_whose_last_key_is_deleted_lets_nobody_in,
];

async fn keys_are_added_listed_and_deleted(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let added = fixture.post("/compute/ssh-keys", json!({"name": "laptop", "public_key": public_key(1)})).await.ok();
    let number = added["id"].as_i64().expect("a number");
    let fingerprint = added["fingerprint"].as_str().expect("a fingerprint").to_owned();
    let expected = json!({"id": number, "name": "laptop", "public_key": public_key(1), "fingerprint": fingerprint,
        "created_at": "2026-01-01T00:00:00Z"});
    assert_eq!(added, expected);
    assert_eq!(fixture.get("/compute/ssh-keys").await.ok(), json!({"ssh_keys": [expected]}));
    let bobs = fixture.call(BOB, Method::GET, "/compute/ssh-keys").send().await.ok();
    assert_eq!(bobs, json!({"ssh_keys": []}));
    let event = fixture.events().await.pop().expect("an event");
    let AnyEvent::SshKeyCreated(event) = event else { panic!("{event:?}") };
    assert_eq!((event.key_id, event.user_uid.as_str(), event.fingerprint), (number, ANN, fingerprint));
    assert_eq!(event.public_key, public_key(1));
    let path = format!("/compute/ssh-keys/{number}");
    fixture.call(BOB, Method::DELETE, &path).send().await.refused(404);
    fixture.delete("/compute/ssh-keys/one").await.refused(404);
    fixture.delete(&path).await.done();
    fixture.delete(&path).await.refused(404);
    assert_eq!(fixture.happenings().await, ["deleted"]);
    let again = fixture.post("/compute/ssh-keys", json!({"name": "", "public_key": public_key(1)})).await.ok();
    assert_eq!(again["name"], json!("ann@laptop"), "by its comment");
}

async fn keys_are_bounded_and_distinct(kind: Kind) {
    let mut config = config();
    config.quotas.ssh_keys = 2;
    let fixture = Fixture::with(kind, config).await;
    let add = async |name: &str, seed| {
        fixture.post("/compute/ssh-keys", json!({"name": name, "public_key": public_key(seed)})).await
    };
    add("a", 1).await.ok();
    assert_eq!(add("b", 1).await.refused(409), "you have this key already");
    fixture.add_key(BOB, 1).await;
    for name in ["a\nb".to_owned(), "x".repeat(65)] {
        assert_eq!(add(&name, 2).await.refused(400), "name: 1 to 64 characters on one line");
    }
    add("b", 2).await.ok();
    assert_eq!(add("c", 3).await.refused(409), "you have 2 SSH keys, which is the limit: delete one first");
}

async fn a_container_whose_last_key_is_deleted_lets_nobody_in(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let (one, two) = (fixture.add_key(ANN, 1).await, fixture.add_key(ANN, 2).await);
    let id = fixture.create_as(ANN, json!({"name": "x", "ssh_key_ids": [two, one]})).await;
    let free = fixture.create("free").await;
    assert_eq!(fixture.show(id).await["ssh_key_ids"], json!([one, two]));
    fixture.events().await;
    let told = async |number: i64| {
        fixture.delete(&format!("/compute/ssh-keys/{number}")).await.done();
        let events = fixture.events().await;
        assert!(matches!(&events[0], AnyEvent::SshKeyDeleted(event) if event.key_id == number), "{events:?}");
        let AnyEvent::ContainerSshToggled(toggled) = &events[1] else { panic!("{events:?}") };
        let container = toggled.container.clone().expect("its state");
        assert_eq!((events.len(), container.container_id.as_str()), (2, id.as_str()));
        (container.ssh_keys_restricted, container.ssh_key_ids)
    };
    assert_eq!(told(one).await, (true, vec![two]));
    assert_eq!(told(two).await, (true, vec![]));
    assert_eq!(fixture.show(id).await["ssh_key_ids"], json!([]));
    assert_eq!(fixture.show(free).await["ssh_key_ids"], json!(null));
}

/// What OpenSSH says of a key file.
fn ssh_keygen(arguments: &[&str]) -> String {
    let output = Command::new("ssh-keygen").args(arguments).output().expect("ssh-keygen runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn every_type_of_key_has_the_fingerprint_that_openssh_prints() {
    let folder = tempfile::tempdir().expect("a folder");
    for (index, make) in [
        &["-t", "ed25519"][..],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.path().join(format!("key{index}"));
        let file = file.to_str().expect("a path");
        ssh_keygen(&[make, &["-q", "-N", "", "-C", "a comment", "-f", file]].concat());
        let line = std::fs::read_to_string(format!("{file}.pub")).expect("a key");
        let key: PublicKey = line.parse().unwrap_or_else(|error| panic!("{make:?}: {error}"));
        assert_eq!((key.line.as_str(), key.comment.as_str()), (line.trim(), "a comment"));
        let printed = ssh_keygen(&["-l", "-f", &format!("{file}.pub")]);
        assert_eq!(printed.split(' ').nth(1), Some(key.fingerprint.as_str()), "{make:?}");
    }
    let weak = folder.path().join("weak");
    ssh_keygen(&["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", weak.to_str().expect("a path")]);
    let weak = std::fs::read_to_string(folder.path().join("weak.pub")).expect("a key");
    let refused = weak.parse::<PublicKey>().expect_err("1024 bits").to_string();
    assert!(refused.contains("1024 bits"), "{refused}");
}

#[test]
fn what_is_no_plain_key_is_refused_with_what_to_do() {
    let good = public_key(1);
    let base64 = good.split(' ').nth(1).expect("base64").to_owned();
    for (text, why) in [
        (String::new(), "paste the line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), "private key"),
        (format!("command=\"rm -rf /\" {good}"), "without options"),
        (format!("no-pty {good}"), "without options"),
        (format!("ssh-dss {base64}"), "of a type"),
        (format!("ssh-ed25519-cert-v01@openssh.com {base64}"), "of a type"),
        (format!("ssh-rsa {base64}"), "damaged"),
        (format!("ssh-ed25519 {}", &base64[..base64.len() - 4]), "damaged"),
        (format!("ssh-ed25519 {base64}AAAA"), "damaged"),
        ("ssh-ed25519".to_owned(), "damaged"),
        ("ssh-ed25519 !!!".to_owned(), "damaged"),
        (format!("{good}\n{good}"), "one line"),
        (format!("{good} {}", "x".repeat(9000)), "one line"),
    ] {
        let refused = text.parse::<PublicKey>().expect_err(&text).to_string();
        assert!(refused.starts_with("public_key: ") && refused.contains(why), "{text}: {refused}");
    }
    let spaced = format!("  ssh-ed25519   {base64}   a  comment \n");
    assert_eq!(spaced.parse::<PublicKey>().expect("a key").line, format!("ssh-ed25519 {base64} a  comment"));
}
