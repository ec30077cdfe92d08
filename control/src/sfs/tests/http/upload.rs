//! Files that are sent in one request.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edd_events::database::Kind;
use edd_servers::disk::Disk;
use futures_util::stream;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::site::Site;
use crate::scratch::Scratch;
use crate::sfs::config::Quotas;
use crate::sfs::storage::BlobStore;
use crate::sfs::tests::fixture::checksum;

fn etag(bytes: &str) -> String {
    format!("\"{}\"", checksum(bytes.as_bytes()))
}

#[tokio::test]
async fn a_file_is_its_body_or_in_a_form() {
    let site = Site::new().await;
    let made = site.ann("PUT /storage/docs/a/b.txt").body("hello").send().await;
    assert_eq!((made.status, made.header("etag")), (201, etag("hello").as_str()));
    let made = made.json();
    assert_eq!((&made["name"], &made["path"]), (&json!("b.txt"), &json!("a/b.txt")));
    assert_eq!(
        (&made["namespace"], &made["size"], &made["media_type"]),
        (&json!("docs"), &json!(5), &json!("text/plain"))
    );
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'), "{made}");
    let replaced = site.ann("PUT /storage/docs/a/b.txt?overwrite=true").body("again").send().await;
    // The clock stands still; what is replaced is as old as it was.
    assert_eq!(replaced.json()["created_at"], made["created_at"]);

    let form = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\
                Content-Type: image/png\r\n\r\nin a form\r\n--XX--\r\n";
    let send = |query: &str, size: &str| {
        let call = site.ann(&format!("POST /storage/docs/form{query}"));
        let call = call.header("content-type", "multipart/form-data; boundary=XX").header("x-file-size", size);
        call.body(form).send()
    };
    let made = send("?id=t1", "9").await.ok();
    assert_eq!((&made["size"], &made["media_type"]), (&json!(9), &json!("image/png")));
    assert_eq!(site.read("docs/form").await, "in a form");
    assert!(send("?id=t1", "9").await.refused(409).contains("overwrite=true"));
    for size in ["8", "10"] {
        assert!(send("?id=t1&overwrite=true", size).await.refused(400).contains("announced"), "{size}");
    }
    send("?id=t1&overwrite=true", "9").await.ok();
    assert_eq!(site.read("docs/form").await, "in a form");
}

#[tokio::test]
async fn what_breaks_off_or_is_not_as_told_leaves_nothing() {
    let site = Site::new().await;
    site.file("docs/old", "old").await;
    let broken = || Body::from_stream(stream::iter([Ok("new"), Err(std::io::Error::other("reset"))]));
    for path in ["old", "new"] {
        let path = format!("PUT /storage/docs/{path}?overwrite=true");
        assert!(site.ann(&path).body(broken()).send().await.refused(400).contains("ended before"));
        assert_eq!(site.ann(&path).header("content-length", "4").body("new").send().await.status, 400);
        site.ann(&path).header("x-file-size", "4").body("new").send().await.refused(400);
        site.ann(&path).header("content-length", "3").header("x-file-size", "4").body("new").send().await.refused(400);
        site.ann(&path).header("content-encoding", "gzip").body("new").send().await.refused(415);
        site.ann(&path).header("content-range", "bytes 0-2/5").body("new").send().await.refused(400);
        let truncated = "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nnew";
        let form = site.ann(&path).header("content-type", "multipart/form-data; boundary=XX").body(truncated);
        form.send().await.refused(400);
    }
    assert_eq!(site.read("docs/old").await, "old");
    site.ann("GET /storage/docs/new").send().await.refused(404);
    let listed = site.ann("GET /storage/files?namespace=docs").send().await.ok();
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn digests_are_checked() {
    let site = Site::new().await;
    let right = STANDARD.encode(Sha256::digest("hello"));
    let wrong = STANDARD.encode(Sha256::digest("hullo"));
    for name in ["content-digest", "repr-digest"] {
        let put = |digest: &str| {
            let call = site.ann("PUT /storage/docs/a?overwrite=true").header(name, &format!("sha-256=:{digest}:"));
            call.body("hello").send()
        };
        let refused = put(&wrong).await.refused(400);
        assert!(refused.contains(&checksum(b"hello").to_string()), "both values: {refused}");
        assert!(refused.contains(&checksum(b"hullo").to_string()), "both values: {refused}");
        site.ann("GET /storage/docs/a").send().await.refused(404);
        assert_eq!(put(&right).await.status, 201, "{name}");
        site.ann("DELETE /storage/docs/a").send().await.done();
    }
    let hex = checksum(b"hello").to_string();
    let put = |sum: &str| site.ann("PUT /storage/docs/a").header("x-checksum-sha256", sum).body("hello").send();
    put(&hex.replace('2', "3")).await.refused(400);
    put("abc").await.refused(400);
    assert_eq!(put(&hex).await.status, 201);
}

#[tokio::test]
async fn conditions_keep_writers_from_overwriting_one_another() {
    let site = Site::new().await;
    let put = |name: &'static str, value: String, body: &'static str| {
        site.ann("PUT /storage/docs/a").header(name, &value).body(body).send()
    };
    put("if-match", "*".into(), "1").await.refused(412);
    assert_eq!(put("if-none-match", "*".into(), "1").await.status, 201);
    put("if-none-match", "*".into(), "2").await.refused(412);
    put("if-match", etag("0"), "2").await.refused(412);
    assert_eq!(put("if-match", etag("1"), "2").await.status, 201, "the clock stands still");
    assert_eq!(site.read("docs/a").await, "2");
    let delete = |value: String| site.ann("DELETE /storage/docs/a").header("if-match", &value).send();
    delete(etag("1")).await.refused(412);
    delete(etag("2")).await.done();
}

#[tokio::test]
async fn quotas_and_limits_name_themselves() {
    let quotas = Quotas { user_bytes: 10, user_entries: 3, file_bytes: Some(8), ..Quotas::default() };
    let site = Site::with(quotas).await;
    let put = |path: &str, body: &str| site.ann(&format!("PUT /storage/docs/{path}")).body(body.to_owned()).send();
    assert!(put("a", "123456789").await.refused(413).contains("at most 8 bytes"));
    assert_eq!(put("a", "12345678").await.status, 201);
    let refused = put("b", "123").await.refused(507);
    assert!(["10", "8", "3"].iter().all(|number| refused.contains(number)), "{refused}");
    assert_eq!(put("b", "1").await.status, 201);
    let refused = put("c/d", "").await.refused(507);
    assert!(refused.contains("files and folders"), "{refused}");
    // Before a byte is read.
    let endless = Body::from_stream(stream::pending::<Result<&str, std::io::Error>>());
    site.ann("PUT /storage/docs/c").header("content-length", "3").body(endless).send().await.refused(507);
    let problem = site.ann("PUT /storage/docs/c").header("accept", "application/problem+json").body("123").send().await;
    let problem = problem.json();
    assert_eq!((&problem["status"], problem["request_id"].is_string()), (&json!(507), true), "{problem}");
}

/// Another 507: nobody has to delete anything of their own.
#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_leaves_what_was_there() {
    let Some(disk) = Disk::mount("uploads over HTTP to a full disk", 4) else { return };
    let store = BlobStore::local(&disk.path().join("blobs")).expect("a store");
    let site = Site::on(Scratch::new(Kind::Sqlite), store, Quotas::default()).await;
    site.file("docs/a", "old").await;
    let at = site.ann("POST /storage/tus").header("tus-resumable", "1.0.0").header("upload-length", "5");
    let metadata = ["docs", "b"].map(|text| STANDARD.encode(text));
    let at = at.header("upload-metadata", &format!("namespace {},filename {}", metadata[0], metadata[1])).send().await;
    let at = at.header("location").to_owned();
    let part = || {
        let call = site.ann(&format!("PATCH {at}")).header("tus-resumable", "1.0.0").header("upload-offset", "0");
        call.header("content-type", "application/offset+octet-stream").body("bytes").send()
    };
    disk.fill();
    let body = "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nnew\r\n--XX--\r\n";
    let form = site.ann("POST /storage/docs/a?overwrite=true").body(body);
    let form = form.header("content-type", "multipart/form-data; boundary=XX");
    let raw = site.ann("PUT /storage/docs/a?overwrite=true").body("new");
    for refused in [form.send().await, raw.send().await, part().await] {
        assert!(refused.refused(507).contains("no room left"), "a quota says another thing");
    }
    disk.free();
    assert_eq!(site.read("docs/a").await, "old");
    site.ann("GET /storage/docs/b").send().await.refused(404);
    // It may be tried again.
    assert_eq!(part().await.status, 204);
    assert_eq!(site.read("docs/b").await, "bytes");
}

/// What is no name of a file, however it is written.
#[tokio::test]
async fn names_that_are_none_are_refused() {
    let site = Site::new().await;
    let long = "x".repeat(256);
    let deep = ["a"; 33].join("/");
    let path = vec!["x".repeat(200); 6].join("/");
    for name in [
        "..",
        "../a",
        "a/../b",
        "a/..",
        ".",
        "a/./b",
        "%2e%2e/a",
        "..%2fa",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%2fa",
        "a//b",
        "a/",
        "a%00b",
        "a%0ab",
        "a%5cb",
        "%e2%80%ae",
        "a%e2%80%8bb",
        "%20a",
        "a%20",
        &long,
        &deep,
        &path,
        // No UTF-8: Latin-1, an overlong slash, half a pair.
        "%ff",
        "caf%e9",
        "%c0%af",
        "%ed%a0%80",
    ] {
        for request in ["PUT", "GET", "DELETE"] {
            let answer = site.ann(&format!("{request} /storage/docs/{name}")).body("x").send().await;
            assert_eq!(answer.status, 400, "{request} {name}: {}", answer.text());
        }
    }
    assert_eq!(site.ann("GET /storage/files?namespace=docs").send().await.ok(), json!([]));
    // One name has one spelling: e with an accent, composed or not.
    site.file("docs/caf%C3%A9", "1").await;
    assert_eq!(site.read("docs/cafe%CC%81").await, "1");
    site.ann("PUT /storage/docs/cafe%CC%81").body("2").send().await.refused(409);
    for name in ["%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB", "a%25b", "a%3Fb", "a b".replace(' ', "%20").as_str(), "...", "~"]
    {
        assert_eq!(site.ann(&format!("PUT /storage/docs/{name}")).body("x").send().await.status, 201, "{name}");
        assert_eq!(site.read(&format!("docs/{name}")).await, "x");
    }
}
