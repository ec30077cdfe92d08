//! Files that are fetched.

use serde_json::json;

use super::site::Site;
use crate::sfs::tests::fixture::checksum;

#[tokio::test]
async fn a_file_says_what_it_is() {
    let site = Site::new().await;
    site.file("docs/na%C3%AFve.txt", "hello").await;
    let whole = site.ann("GET /storage/docs/na%C3%AFve.txt").send().await;
    assert_eq!((whole.status, whole.text().as_str()), (200, "hello"));
    let etag = format!("\"{}\"", checksum(b"hello"));
    for (name, value) in [
        ("content-length", "5"),
        ("content-type", "text/plain; charset=utf-8"),
        ("accept-ranges", "bytes"),
        ("etag", etag.as_str()),
        ("content-disposition", "inline; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    assert!(whole.header("repr-digest").starts_with("sha-256=:"));
    assert!(whole.header("last-modified").ends_with("GMT"));
    let head = site.ann("HEAD /storage/docs/na%C3%AFve.txt").header("range", "bytes=0-1").send().await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "5", 0));
    assert_eq!(head.header("etag"), etag);
    let saved = site.ann("GET /storage/download/docs/na%C3%AFve.txt").send().await;
    assert!(saved.header("content-disposition").starts_with("attachment;"));
    let asked = site.ann("GET /storage/docs/na%C3%AFve.txt?download=true").send().await;
    assert!(asked.header("content-disposition").starts_with("attachment;"));
    site.ann("GET /storage/docs/nowhere").send().await.refused(404);
    site.ann("POST /storage/files/folders").json(&json!({"namespace": "docs", "path": "dir"})).send().await.ok();
    site.ann("GET /storage/docs/dir").send().await.refused(409);
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let site = Site::new().await;
    site.file("docs/a", "hello").await;
    let etag = format!("\"{}\"", checksum(b"hello"));
    let get = |name: &str, value: &str| site.ann("GET /storage/docs/a").header(name, value).send();
    let same = get("if-none-match", &etag).await;
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, etag.as_str()));
    assert_eq!(get("if-none-match", "\"other\"").await.status, 200);
    get("if-match", "\"other\"").await.refused(412);
    let part = |range: &str, condition: &str| {
        site.ann("GET /storage/docs/a").header("range", range).header("if-range", condition).send()
    };
    let told = part("bytes=1-3", &etag).await;
    assert_eq!((told.status, told.text().as_str(), told.header("content-range")), (206, "ell", "bytes 1-3/5"));
    assert_eq!(told.header("content-length"), "3");
    assert_eq!(part("bytes=1-3", "\"other\"").await.text(), "hello");
    let beyond = get("range", "bytes=5-").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */5"));
    assert_eq!(get("range", "bytes=-2").await.text(), "lo");
    assert_eq!(get("range", "bytes=0-1,3-4").await.text(), "hello");
}

/// HTML, SVG and scripts are saved, sandboxed, and no code of any page.
#[tokio::test]
async fn nothing_that_was_uploaded_runs() {
    let site = Site::new().await;
    for (name, declared) in [
        ("a.html", ""),
        ("a.svg", ""),
        ("a.js", ""),
        ("a.xhtml", ""),
        ("a.png", "text/html"),
        ("a.txt", "image/svg+xml"),
        ("b.txt", "text/html; charset=utf-8"),
    ] {
        let call = site.ann(&format!("PUT /storage/docs/{name}")).body("<script>alert(1)</script>");
        let call = if declared.is_empty() { call } else { call.header("content-type", declared) };
        assert_eq!(call.send().await.status, 201, "{name}");
        let got = site.ann(&format!("GET /storage/docs/{name}")).send().await;
        assert!(got.header("content-disposition").starts_with("attachment;"), "{name}");
        assert!(got.header("content-security-policy").starts_with("sandbox; default-src 'none'"), "{name}");
        assert_eq!(got.header("x-content-type-options"), "nosniff", "{name}");
        assert!(!got.header("content-type").contains("javascript"), "{name}");
    }
    site.file("docs/a.pdf", "%PDF-").await;
    let pdf = site.ann("GET /storage/docs/a.pdf").send().await;
    assert!(pdf.header("content-disposition").starts_with("inline;"));
    assert!(pdf.header("content-security-policy").starts_with("default-src 'none'"));
}
