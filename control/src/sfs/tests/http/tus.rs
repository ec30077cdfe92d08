//! tus 1.0.0, as its clients speak it.

use std::pin::Pin;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use sha2::{Digest, Sha256};

use super::site::{Answer, Call, Site};
use crate::sfs::config::Quotas;
use crate::sfs::tests::fixture::checksum;

fn metadata(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key} {}", STANDARD.encode(value))).collect();
    pairs.join(",")
}

fn creation<'s>(site: &'s Site, path: &str, length: &str, more: &[(&str, &str)]) -> Call<'s> {
    let pairs = [&[("namespace", "docs"), ("filename", path)], more].concat();
    let call = site.ann("POST /storage/tus").header("tus-resumable", "1.0.0").header("upload-length", length);
    call.header("upload-metadata", &metadata(&pairs))
}

/// Begins an upload: its path.
async fn begin(site: &Site, path: &str, length: u64) -> String {
    let made = creation(site, path, &length.to_string(), &[]).send().await;
    assert_eq!((made.status, made.header("tus-resumable")), (201, "1.0.0"), "{}", made.text());
    assert!(made.header("upload-expires").ends_with("GMT"), "{:?}", made.headers);
    made.header("location").to_owned()
}

fn part<'s>(site: &'s Site, at: &str, offset: u64) -> Call<'s> {
    let call = site.ann(&format!("PATCH {at}")).header("tus-resumable", "1.0.0");
    call.header("content-type", "application/offset+octet-stream").header("upload-offset", &offset.to_string())
}

async fn offset(site: &Site, at: &str) -> Answer {
    site.ann(&format!("HEAD {at}")).header("tus-resumable", "1.0.0").send().await
}

#[tokio::test]
async fn a_file_comes_in_parts() {
    let site = Site::new().await;
    let at = begin(&site, "dir/a.txt", 11).await;
    let first = part(&site, &at, 0).body("hello ").send().await;
    assert_eq!((first.status, first.header("upload-offset")), (204, "6"));
    let head = offset(&site, &at).await;
    assert_eq!((head.status, head.header("upload-offset"), head.header("upload-length")), (200, "6", "11"));
    assert_eq!(head.header("cache-control"), "no-store");
    assert!(head.header("upload-metadata").contains("filename YS50eHQ="), "{:?}", head.headers);
    site.ann("GET /storage/docs/dir/a.txt").send().await.refused(404);
    let last = part(&site, &at, 6).body("world").send().await;
    assert_eq!((last.status, last.header("upload-offset")), (204, "11"));
    assert_eq!(last.header("etag"), format!("\"{}\"", checksum(b"hello world")));
    assert_eq!(site.read("docs/dir/a.txt").await, "hello world");
    // The client that did not hear it.
    assert_eq!(offset(&site, &at).await.header("upload-offset"), "11");
    assert_eq!(part(&site, &at, 11).send().await.status, 204);
    part(&site, &at, 6).body("world").send().await.refused(409);
}

#[tokio::test]
async fn a_part_comes_with_the_creation() {
    let site = Site::new().await;
    let with = |call: Call<'static>| call.header("content-type", "application/offset+octet-stream");
    let site: &'static Site = Box::leak(Box::new(site));
    let made = with(creation(site, "a", "5", &[])).body("he").send().await;
    assert_eq!((made.status, made.header("upload-offset")), (201, "2"));
    assert_eq!(part(site, made.header("location"), 2).body("llo").send().await.status, 204);
    assert_eq!(site.read("docs/a").await, "hello");
    assert_eq!(with(creation(site, "b", "5", &[])).body("hello").send().await.header("upload-offset"), "5");
    assert_eq!(site.read("docs/b").await, "hello");
    let empty = creation(site, "empty", "0", &[("filetype", "image/png")]).send().await;
    assert_eq!((empty.status, empty.header("upload-offset")), (201, "0"));
    assert_eq!(site.read("docs/empty").await, "");
    creation(site, "a", "1", &[]).send().await.refused(409);
    assert_eq!(creation(site, "a", "0", &[("overwrite", "true")]).send().await.status, 201);
    let wrong = with(creation(site, "c", "5", &[])).header("upload-checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    wrong.body("hello").send().await.refused(460);
}

#[tokio::test]
async fn a_wrong_sum_leaves_what_was_there() {
    let site = Site::new().await;
    let at = begin(&site, "a", 10).await;
    part(&site, &at, 0).body("hello").send().await;
    let sha256 = |text: &str| format!("sha256 {}", STANDARD.encode(Sha256::digest(text)));
    let summed = |sum: &str, body: Body| part(&site, &at, 5).header("upload-checksum", sum).body(body).send();
    summed(&sha256("other"), Body::from("world")).await.refused(460);
    assert_eq!(offset(&site, &at).await.header("upload-offset"), "5");
    summed("crc32 AAAA", Body::from("world")).await.refused(400);
    let broken = Body::from_stream(stream::iter([Ok("wor"), Err(std::io::Error::other("reset"))]));
    summed(&sha256("world"), broken).await.refused(400);
    assert_eq!(offset(&site, &at).await.header("upload-offset"), "5", "all of it or nothing");
    assert_eq!(summed(&sha256("world"), Body::from("world")).await.status, 204);
    assert_eq!(site.read("docs/a").await, "helloworld");
}

#[tokio::test]
async fn what_came_before_the_connection_broke_is_kept() {
    let site = Site::new().await;
    let at = begin(&site, "a", 5).await;
    let broken = Body::from_stream(stream::iter([Ok("he"), Err(std::io::Error::other("reset"))]));
    part(&site, &at, 0).body(broken).send().await.refused(400);
    assert_eq!(offset(&site, &at).await.header("upload-offset"), "2");
    // The whole request goes: what reads its body ends by itself.
    let (sender, request) = slow_part(&site, &at, "ll").await;
    drop(request);
    sender.send(Err(std::io::Error::other("reset"))).await.expect("it is read");
    while offset(&site, &at).await.header("upload-offset") != "4" {
        tokio::task::yield_now().await;
    }
    assert_eq!(part(&site, &at, 4).body("o").send().await.status, 204);
    assert_eq!(site.read("docs/a").await, "hello");
}

type Sender = tokio::sync::mpsc::Sender<Result<&'static str, std::io::Error>>;

/// A part at byte 2 that has begun with `text`, and does not end before its sender does.
async fn slow_part<'s>(
    site: &'s Site,
    at: &str,
    text: &'static str,
) -> (Sender, Pin<Box<dyn Future<Output = Response<Body>> + 's>>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let pieces = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let mut request: Pin<Box<dyn Future<Output = _> + 's>> =
        Box::pin(part(site, at, 2).body(Body::from_stream(pieces)).begin());
    tokio::select! {
        biased;
        _ = &mut request => panic!("nothing came yet"),
        // The second is taken once the first was.
        sent = async { sender.send(Ok(text)).await?; sender.send(Ok("")).await } => sent.expect("it is read"),
    }
    (sender, request)
}

/// A client that has lost its connection goes on at once, although nobody here has noticed.
#[tokio::test]
async fn who_comes_later_overtakes() {
    let site = Site::new().await;
    let at = begin(&site, "a", 5).await;
    part(&site, &at, 0).body("he").send().await;
    let (sender, request) = slow_part(&site, &at, "yx").await;
    assert_eq!(part(&site, &at, 2).body("l").send().await.header("upload-offset"), "3");
    drop(sender);
    let overtaken = Answer::of(request.await).await.refused(400);
    assert!(overtaken.contains("a later request goes on"), "{overtaken}");
    assert_eq!(part(&site, &at, 3).body("lo").send().await.status, 204);
    assert_eq!(site.read("docs/a").await, "hello");
    // The owner ends it, whoever adds to it.
    let at = begin(&site, "b", 5).await;
    part(&site, &at, 0).body("he").send().await;
    let (sender, request) = slow_part(&site, &at, "llo").await;
    assert_eq!(site.ann(&format!("DELETE {at}")).header("tus-resumable", "1.0.0").send().await.status, 204);
    drop(sender);
    Answer::of(request.await).await.refused(400);
    site.ann("GET /storage/docs/b").send().await.refused(404);
}

#[tokio::test]
async fn refusals_have_their_own_statuses() {
    let site = Site::with(Quotas { user_bytes: 100, ..Quotas::default() }).await;
    creation(&site, "a", "101", &[]).send().await.refused(413);
    let at = begin(&site, "a", 5).await;
    site.ann(&format!("HEAD {at}")).send().await;
    for version in ["0.2.2", ""] {
        let old = site.ann(&format!("PATCH {at}")).header("tus-resumable", version).send().await;
        assert_eq!(old.status, 412);
    }
    part(&site, &at, 1).body("x").send().await.refused(409);
    part(&site, &at, 0).body("123456").send().await.refused(413);
    part(&site, &at, 0).header("content-length", "6").body("123456").send().await.refused(413);
    let untyped = site.ann(&format!("PATCH {at}")).header("tus-resumable", "1.0.0").header("upload-offset", "0");
    untyped.body("x").send().await.refused(415);
    let nowhere = format!("/storage/tus/{}", "0".repeat(32));
    for missing in [nowhere.as_str(), "/storage/tus/x"] {
        assert_eq!(offset(&site, missing).await.status, 404);
        part(&site, missing, 0).body("x").send().await.refused(404);
    }
    let foreign = site.bob(&format!("HEAD {at}")).header("tus-resumable", "1.0.0").send().await;
    assert_eq!(foreign.status, 404);
    let nobody = site.nobody(&format!("HEAD {at}")).header("tus-resumable", "1.0.0").send().await;
    assert_eq!(nobody.status, 401);
    let deferred = site.ann("POST /storage/tus").header("tus-resumable", "1.0.0").header("upload-defer-length", "1");
    deferred.send().await.refused(400);
    let nameless = site.ann("POST /storage/tus").header("tus-resumable", "1.0.0").header("upload-length", "1");
    nameless.send().await.refused(400);
    creation(&site, "../a", "1", &[]).send().await.refused(400);
    site.clock.advance(std::time::Duration::from_secs(86_400));
    part(&site, &at, 0).body("x").send().await.refused(410);
}

#[tokio::test]
async fn what_is_spoken_is_told_and_uploads_end() {
    let site = Site::new().await;
    let told = site.nobody("OPTIONS /storage/tus").send().await;
    assert_eq!((told.status, told.header("tus-version"), told.header("tus-resumable")), (204, "1.0.0", "1.0.0"));
    for extension in ["creation", "creation-with-upload", "checksum", "expiration", "termination"] {
        assert!(told.header("tus-extension").split(',').any(|it| it == extension), "{extension}");
    }
    assert_eq!((told.header("tus-checksum-algorithm"), told.header("tus-max-size")), ("sha1,sha256", "10737418240"));
    let at = begin(&site, "a", 5).await;
    let over = |method: &str| site.ann(&format!("POST {at}")).header("x-http-method-override", method);
    let by_post = over("PATCH").header("tus-resumable", "1.0.0").header("upload-offset", "0");
    let by_post = by_post.header("content-type", "application/offset+octet-stream").body("he").send().await;
    assert_eq!((by_post.status, by_post.header("upload-offset")), (204, "2"));
    assert_eq!(over("PUT").header("tus-resumable", "1.0.0").send().await.status, 405);
    let ended = site.ann(&format!("DELETE {at}")).header("tus-resumable", "1.0.0").send().await;
    assert_eq!(ended.status, 204);
    assert_eq!(offset(&site, &at).await.status, 404);
    let usage = site.ann("GET /storage/status/usage").send().await.ok();
    assert_eq!(usage["reserved_bytes"], 0);
}

/// A body is not held: what is sent is written as it comes.
#[tokio::test]
async fn pieces_are_written_as_they_come() {
    let site = Site::new().await;
    let piece = "x".repeat(64 * 1024);
    let length = 64 * piece.len() as u64;
    let at = begin(&site, "big", length).await;
    let pieces = stream::iter((0..64).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let all = part(&site, &at, 0).body(Body::from_stream(pieces)).send().await;
    assert_eq!(all.header("upload-offset"), length.to_string());
    assert_eq!(site.read("docs/big").await.len() as u64, length);
}
