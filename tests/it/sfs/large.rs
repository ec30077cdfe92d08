//! Files that are larger than what memory there is for them.

use serde_json::json;

use crate::harness::{Connection, Deployment, is_full_run};

use super::person::Person;

const BLOCK_BYTES: usize = 1 << 20;
/// What the process may need more than before, KiB: buffers of sockets, of the store, and what the allocator keeps.
const MAX_GROWTH_KIB: u64 = 64 << 10;

fn blocks() -> usize {
    if is_full_run() { 10 << 10 } else { 192 }
}

/// Through the gateway, in one process with everything else.
#[tokio::test]
async fn a_large_file_passes_in_constant_memory() {
    let mut deployment = Deployment::single();
    deployment.set_all("EDD_SFS_USER_QUOTA_BYTES", &(20_u64 << 30).to_string());
    deployment.start().await;
    let user = deployment.register().await;
    let ann = Person::new(deployment.gateway(), user);
    ann.done("POST /storage/namespaces", &json!({"name": "media"})).await;
    // What is needed once is there.
    assert_eq!(ann.send("PUT /storage/media/small", &[], &vec![0; 4 * BLOCK_BYTES]).await.status, 201);
    let before = deployment.gateway().resident_kib();
    let length = (blocks() * BLOCK_BYTES) as u64;
    let block: Vec<u8> = (0..BLOCK_BYTES).map(|at| (at % 251) as u8).collect();
    let mut peak = before;
    let mut connection = Connection::open(ann.address).await;
    connection.send(format!("{}Content-Length: {length}\r\n\r\n", ann.head("PUT /storage/media/large", &[]))).await;
    for _ in 0..blocks() {
        connection.send(&block).await;
        peak = peak.max(deployment.gateway().resident_kib());
    }
    let stored = connection.response().await;
    assert_eq!((stored.status, stored.json()["size"].as_u64()), (201, Some(length)));
    let mut connection = Connection::open(ann.address).await;
    connection.send(format!("{}\r\n", ann.head("GET /storage/media/large", &[]))).await;
    let head = connection.head().await.expect("an answer");
    assert_eq!((head.status, &head.headers["content-length"]), (200, &length.to_string().parse().expect("a value")));
    for number in 0..blocks() {
        assert!(connection.exactly(BLOCK_BYTES).await.expect("a block") == block, "block {number}");
        peak = peak.max(deployment.gateway().resident_kib());
    }
    eprintln!("{length} bytes up and down: {before} KiB before, {peak} KiB at most");
    assert!(peak < before + MAX_GROWTH_KIB, "{before} KiB before, {peak} KiB at most");
}

/// The answer reaches who is still sending.
#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let mut deployment = Deployment::single();
    deployment.set_all("EDD_SFS_USER_QUOTA_BYTES", "1000000");
    deployment.start().await;
    let user = deployment.register().await;
    let ann = Person::new(deployment.gateway(), user);
    ann.done("POST /storage/namespaces", &json!({"name": "media"})).await;
    let mut connection = Connection::open(ann.address).await;
    let head = ann.head("PUT /storage/media/large", &[]);
    connection.send(format!("{head}Content-Length: {}\r\n\r\n", 100 * BLOCK_BYTES)).await;
    connection.send(vec![0; 64 * 1024]).await;
    let refused = connection.response().await;
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(refused.text().contains("1000000 bytes"), "{}", refused.text());
    // Nobody says how much comes: it ends where there is no more room.
    let mut connection = Connection::open(ann.address).await;
    connection.send(format!("{}Transfer-Encoding: chunked\r\n\r\n", ann.head("PUT /storage/media/large", &[]))).await;
    for _ in 0..4 {
        let chunk = [b"80000\r\n", &vec![0; 512 * 1024][..], b"\r\n"].concat();
        if connection.try_send(chunk).await.is_err() {
            break;
        }
    }
    assert_eq!(connection.response().await.status, 507);
    assert_eq!(ann.send("GET /storage/media/large", &[], b"").await.status, 404);
}
