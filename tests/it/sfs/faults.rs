//! Clients that go, writers that meet, and a process that dies.

use std::cell::Cell;
use std::path::Path;

use edd_events::database::Database;
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Connection, Deployment, Role, until};

use super::person::{Person, part};

const BLOCK_BYTES: usize = 64 * 1024;

async fn with_namespace(mut deployment: Deployment) -> (Deployment, Person) {
    deployment.start().await;
    let user = deployment.register().await;
    let ann = Person::new(deployment.gateway(), user);
    ann.done("POST /storage/namespaces", &json!({"name": "docs"})).await;
    (deployment, ann)
}

/// A request whose body has begun and does not end.
async fn half_sent(ann: &Person, request: &str, headers: &[(&str, &str)], blocks: usize) -> Connection {
    let mut connection = Connection::open(ann.address).await;
    let head = ann.head(request, headers);
    connection.send(format!("{head}Content-Length: {}\r\n\r\n", blocks * BLOCK_BYTES)).await;
    for _ in 0..10 {
        connection.send(vec![b'x'; BLOCK_BYTES]).await;
    }
    connection
}

/// How many bytes lie below a folder, in files of whatever name.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |path: &Path| match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => bytes_below(path),
        Ok(metadata) => metadata.len(),
        // Removed meanwhile.
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(|entry| size(&entry.path())).sum()
}

/// Lets the time pass in which somebody might still be writing.
async fn age_garbage(deployment: &Deployment) {
    let database = Database::attach(deployment.database("sfs")).await.expect("the share's database");
    let aged = sqlx::query("UPDATE blobs SET due_at = 1 WHERE due_at > 0").execute(database.writer()).await;
    aged.expect("a change");
    database.close().await;
}

/// Waits until the store has this many bytes, all of which are files'.
async fn until_stored(deployment: &Deployment, ann: &Person, bytes: u64) {
    let store = deployment.gateway().path("data/blobs");
    let is_hidden = Cell::new(false);
    until(&format!("the store to have {bytes} bytes"), async || {
        age_garbage(deployment).await;
        // A change wakes the keeper, which does not see what was done behind its back.
        is_hidden.set(!is_hidden.get());
        ann.done("PUT /storage/namespaces/docs", &json!({"hidden": is_hidden.get()})).await;
        match bytes_below(&store) {
            found if found == bytes => Ok(()),
            found => Err(found.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_in_mid_upload_changes_nothing() {
    let (deployment, ann) = with_namespace(Deployment::single()).await;
    assert_eq!(ann.send("PUT /storage/docs/old", &[], b"old").await.status, 201);
    for path in ["old", "new"] {
        drop(half_sent(&ann, &format!("PUT /storage/docs/{path}?overwrite=true"), &[], 100).await);
        let form = [("content-type", "multipart/form-data; boundary=XX")];
        drop(half_sent(&ann, &format!("POST /storage/docs/{path}?overwrite=true"), &form, 100).await);
    }
    until_stored(&deployment, &ann, 3).await;
    assert_eq!(ann.read("docs/old").await, b"old");
    assert_eq!(ann.send("GET /storage/docs/new", &[], b"").await.status, 404);
}

#[tokio::test]
async fn a_process_that_dies_in_mid_write_leaves_the_old_file_and_no_garbage() {
    let (mut deployment, ann) = with_namespace(Deployment::single()).await;
    assert_eq!(ann.send("PUT /storage/docs/old", &[], b"old").await.status, 201);
    let location = ann.create_upload("docs", "resumed", 100 * BLOCK_BYTES).await;
    let block = vec![b'x'; BLOCK_BYTES];
    ann.add(&location, 0, &block).await;
    // One that breaks off: what came of it is kept. Who is gone before it came may not have been heard at all.
    let store = deployment.gateway().path("data/blobs");
    let before = bytes_below(&store);
    let breaking = half_sent(&ann, &format!("PATCH {location}"), &part(&BLOCK_BYTES.to_string()), 99).await;
    let until_written = async |before: u64| {
        until("bytes to be on the disk", async || match bytes_below(&store) {
            found if found > before => Ok(()),
            found => Err(found.to_string()),
        })
        .await;
    };
    until_written(before).await;
    drop(breaking);
    until("what came to be kept", async || match ann.offset(&location).await {
        Some(offset) if offset > BLOCK_BYTES => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let kept = ann.offset(&location).await.expect("it is there");
    // Two that are under way as the process dies.
    let before = bytes_below(&store);
    let writing = half_sent(&ann, "PUT /storage/docs/old?overwrite=true", &[], 100).await;
    until_written(before).await;
    let before = bytes_below(&store);
    let blocks_left = 100 - kept.div_ceil(BLOCK_BYTES);
    let resuming = half_sent(&ann, &format!("PATCH {location}"), &part(&kept.to_string()), blocks_left).await;
    until_written(before).await;
    deployment.end(Role::Up, Signal::KILL).await;
    drop((writing, resuming));
    deployment.start().await;
    let ann = ann.by(deployment.gateway().http);
    ann.until_known().await;
    assert_eq!(ann.read("docs/old").await, b"old");
    let offset = ann.offset(&location).await.expect("it is still there");
    assert!((kept..100 * BLOCK_BYTES).contains(&offset), "{offset}");
    // Whoever added to it as the process died is not waited for.
    ann.add(&location, offset, &vec![b'x'; 100 * BLOCK_BYTES - offset]).await;
    assert_eq!(ann.read("docs/resumed").await.len(), 100 * BLOCK_BYTES);
    until_stored(&deployment, &ann, 100 * BLOCK_BYTES as u64 + 3).await;
}

/// Whoever reads meanwhile sees one whole file or the other.
#[tokio::test]
async fn two_writers_of_one_path_leave_one_whole_file() {
    let (deployment, ann) = with_namespace(Deployment::single()).await;
    let bytes = |writer: u8| vec![writer; 3 * BLOCK_BYTES];
    assert_eq!(ann.send("PUT /storage/docs/a", &[], &bytes(b'0')).await.status, 201);
    let write = async |writer: u8| {
        for _ in 0..5 {
            let answer = ann.send("PUT /storage/docs/a?overwrite=true", &[], &bytes(writer)).await;
            assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        }
    };
    let read = async || {
        for _ in 0..20 {
            let read = ann.read("docs/a").await;
            assert_eq!(read, bytes(read[0]));
        }
    };
    tokio::join!(write(b'1'), write(b'2'), write(b'3'), read());
    // Of those who want to be first, one is.
    let first = join_all((0..5).map(|_| ann.send("PUT /storage/docs/b", &[], b"x"))).await;
    let count = |status| first.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(201), count(409)), (1, 4));
    until_stored(&deployment, &ann, 3 * BLOCK_BYTES as u64 + 1).await;
}

#[tokio::test]
async fn very_many_tiny_files_stop_at_the_quota() {
    let mut deployment = Deployment::single();
    deployment.set_all("EDD_SFS_USER_MAX_FILES", "20");
    let (deployment, ann) = with_namespace(deployment).await;
    let mut statuses = Vec::new();
    for number in 0..15 {
        statuses.push(ann.send(&format!("PUT /storage/docs/{number}/x"), &[], b"").await);
    }
    assert!(statuses[..10].iter().all(|answer| answer.status == 201));
    for refused in &statuses[10..] {
        assert_eq!(refused.status, 507);
        assert!(refused.text().contains("20 files and folders"), "{}", refused.text());
    }
    let listed = ann.done("GET /storage/files?namespace=docs", &Value::Null).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(10));
    drop(deployment);
}

/// While a file comes, and not after it.
#[tokio::test]
async fn progress_is_told_through_the_gateway_as_it_happens() {
    let (deployment, ann) = with_namespace(Deployment::single()).await;
    let mut events = Connection::open(ann.address).await;
    events.send(format!("{}\r\n", ann.head("GET /sse/progress?id=t1", &[]))).await;
    let mut upload = half_sent(&ann, "PUT /storage/docs/a?id=t1", &[], 100).await;
    let head = events.head().await.expect("the stream begins");
    assert_eq!((head.status, &head.headers["content-type"]), (200, &"text/event-stream".parse().expect("a value")));
    let next = async |events: &mut Connection| loop {
        let line = events.until(b"\n").await.expect("a line");
        if let Some(data) = line.strip_prefix(b"data: ") {
            break serde_json::from_slice::<Value>(data).expect("JSON");
        }
    };
    let mut seen = next(&mut events).await;
    while seen["bytes"] != json!(10 * BLOCK_BYTES) {
        assert_eq!((&seen["direction"], &seen["done"]), (&json!("upload"), &json!(false)), "{seen}");
        seen = next(&mut events).await;
    }
    assert_eq!(seen["total"], json!(100 * BLOCK_BYTES));
    upload.send(vec![b'x'; 90 * BLOCK_BYTES]).await;
    assert_eq!(upload.response().await.status, 201);
    while seen["done"] != json!(true) {
        seen = next(&mut events).await;
    }
    assert_eq!((&seen["bytes"], seen.get("error")), (&json!(100 * BLOCK_BYTES), None), "{seen}");
    drop(deployment);
}
