use std::time::Duration;

use edd_servers::s3::S3;

use super::suite::{self, MIB, id, noise};
use crate::sfs::storage::{BlobStore, S3Settings, StorageError};

fn settings(server: &S3, prefix: &str) -> S3Settings {
    let variables = server.variables().map(|(name, value)| (name.to_owned(), value.to_owned()));
    S3Settings {
        bucket: server.bucket(),
        prefix: prefix.to_owned(),
        endpoint: Some(server.url()),
        variables: variables.into(),
    }
}

fn store(prefix: &str) -> BlobStore {
    BlobStore::s3(&settings(S3::shared(), prefix)).expect("a store")
}

#[tokio::test]
async fn what_is_written_is_read() {
    suite::what_is_written_is_read(&store(""), &[(1, 1), (70_000, 999)]).await;
    suite::what_is_written_is_read(&store("one/two"), &[(300_000, 70_000), (8 * MIB, MIB), (17 * MIB, 3 * MIB + 1)])
        .await;
}

#[tokio::test]
async fn what_is_unfinished_is_nothing() {
    suite::what_is_unfinished_is_nothing(&store("edd"), 9 * MIB).await;
}

#[tokio::test]
async fn all_are_listed() {
    suite::all_are_listed(&store("edd"), 20).await;
}

#[tokio::test]
async fn a_sweep_aborts_what_a_killed_writer_began_and_nothing_of_others() {
    let ours = settings(S3::shared(), "ours");
    let theirs = S3Settings { prefix: "ours-not".to_owned(), ..ours.clone() };
    let (ours, theirs) = (BlobStore::s3(&ours).expect("a store"), BlobStore::s3(&theirs).expect("a store"));
    for store in [&ours, &theirs] {
        let mut writer = store.create(id(1)).await.expect("a writer");
        writer.write(noise(9 * MIB)).await.expect("room");
        // As if killed: nothing is told.
        std::mem::forget(writer);
    }
    // This server says of every upload that it began in 2010; what is too young is `uploads.rs` to test.
    assert_eq!(ours.sweep(Duration::ZERO).await.expect("a sweep"), 1);
    assert_eq!(ours.sweep(Duration::ZERO).await.expect("a sweep"), 0);
    assert_eq!(theirs.sweep(Duration::ZERO).await.expect("a sweep"), 1);
}

#[tokio::test]
async fn a_server_that_is_gone_is_away() {
    let server = S3::start();
    let store = BlobStore::s3(&settings(&server, "")).expect("a store");
    suite::write(&store, id(1), &noise(100), 100).await;
    drop(server);
    let away = suite::read(&store, id(1), 0..100).await.expect_err("nobody answers");
    assert!(matches!(away, StorageError::Away(_)) && away.to_string().contains("refused"), "{away}");
}

#[test]
fn settings_are_checked_and_say_no_secret() {
    let bad = S3Settings {
        bucket: "b".to_owned(),
        prefix: String::new(),
        endpoint: None,
        variables: vec![("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned())],
    };
    let refused = BlobStore::s3(&bad).expect_err("half of the credentials");
    assert!(matches!(refused, StorageError::Settings(_)), "{refused}");
    assert!(!format!("{bad:?}{refused}").contains("hush"));
    let good = S3Settings {
        variables: vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), "us".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned()),
        ],
        ..bad
    };
    assert!(!format!("{:?}", BlobStore::s3(&good).expect("a store")).contains("hush"));
}
