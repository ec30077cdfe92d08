//! Clients that others wrote: curl, tus-js-client, rclone.

use std::path::Path;

use edd_servers::program::fetched_packages;

use super::site::{NAMESPACE, Site, USER, tree};
use crate::harness::Program;

#[tokio::test(flavor = "multi_thread")]
async fn curl_moves_files() {
    let mut site = Site::start().await;
    let bytes = site.make("a", 200_000);
    let url = site.file_url("in/a%20file");
    let status = async |arguments: &[&str]| {
        let told = ["--output", "answer", "--write-out", "%{http_code}"];
        site.curl(&[&told, arguments].concat()).run().await.ok().trim_end().to_owned()
    };
    assert_eq!(status(&["--upload-file", "a", &url]).await, "201");
    assert_eq!(status(&["--upload-file", "a", &url]).await, "409");
    assert_eq!(status(&["--upload-file", "a", &format!("{url}?overwrite=true")]).await, "200");
    assert_eq!(status(&["--form", "file=@a", &site.file_url("form")]).await, "200");
    assert_eq!(status(&[&url]).await, "200");
    assert!(site.read("answer") == bytes);
    assert_eq!(status(&[&site.file_url("form")]).await, "200");
    assert!(site.read("answer") == bytes, "a form's file is the file");

    // What was broken off goes on.
    std::fs::write(site.here("half"), &bytes[..120_000]).expect("half of a file");
    site.curl(&["--continue-at", "-", "--output", "half", &url]).run().await.ok();
    assert!(site.read("half") == bytes);
    let head = site.curl(&["--head", &url]).run().await;
    let tag = head.ok().lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("etag: ").map(str::to_owned));
    let tag = tag.expect("an entity tag");
    assert_eq!(status(&["--header", &format!("If-None-Match: {}", tag.trim()), &url]).await, "304");
    assert_eq!(status(&["--request", "DELETE", &url]).await, "200");
    assert_eq!(status(&[&url]).await, "404");
    site.deployment.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client_goes_on_where_it_broke_off() {
    let Some(packages) = fetched_packages() else {
        eprintln!("left out: tus-js-client is not here, because npm was not when `cargo xtask setup` ran");
        return;
    };
    let mut site = Site::start().await;
    let bytes = site.make("a.tar", 6 * 1024 * 1024);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/tus.js");
    let endpoint = format!("{}/storage/tus", site.url());
    let node = site.program("node").env("NODE_PATH", packages.to_str().expect("a plain path"));
    let node = node.args(&[script.to_str().expect("a plain path"), &endpoint, &site.token, NAMESPACE, "in/a.tar"]);
    assert_eq!(node.args(&["a.tar", "memory.json"]).run().await.ok(), "resumed\n");
    site.curl(&["--output", "back", &site.file_url("in/a.tar")]).run().await.ok();
    assert!(site.read("back") == bytes);
    site.deployment.stop().await;
}

/// rclone, that knows the share as `edd:`.
async fn rclone(site: &Site) -> impl Fn(&[&str]) -> Program {
    let password = site.program("rclone").args(&["obscure", &site.token]).run().await.ok().trim_end().to_owned();
    let url = format!("{}/storage/dav", site.url());
    move |arguments| {
        let program = site.program("rclone").env("RCLONE_CONFIG_EDD_TYPE", "webdav");
        let program = program.env("RCLONE_CONFIG_EDD_URL", &url).env("RCLONE_CONFIG_EDD_VENDOR", "other");
        let program = program.env("RCLONE_CONFIG_EDD_USER", USER).env("RCLONE_CONFIG_EDD_PASS", &password);
        program.args(&["--retries", "1", "--low-level-retries", "1"]).args(arguments)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rclone_synchronizes_over_webdav() {
    let mut site = Site::start().await;
    {
        let rclone = rclone(&site).await;
        let run = async |arguments: &[&str]| rclone(arguments).run().await.ok().to_owned();
        site.make("tree/one", 1000);
        site.make("tree/deep/er/two & ü", 70_000);
        site.make("tree/large", 3_000_000);
        site.make("tree/empty", 0);

        assert_eq!(run(&["lsd", "edd:"]).await.split_whitespace().last(), Some(NAMESPACE));
        run(&["copy", "tree", "edd:docs/in"]).await;
        run(&["check", "--download", "tree", "edd:docs/in"]).await;
        assert!(!run(&["cat", "edd:docs/in/one"]).await.is_empty());
        let listed = run(&["lsf", "--recursive", "--files-only", "edd:docs"]).await;
        let mut listed: Vec<_> = listed.lines().collect();
        listed.sort_unstable();
        assert_eq!(listed, ["in/deep/er/two & ü", "in/empty", "in/large", "in/one"]);

        // What is gone here goes there, what has changed is replaced.
        std::fs::remove_file(site.here("tree/large")).expect("a file less");
        site.make("tree/one", 1001);
        run(&["sync", "tree", "edd:docs/in"]).await;
        run(&["check", "--download", "tree", "edd:docs/in"]).await;
        run(&["moveto", "edd:docs/in/one", "edd:docs/in/deep/uno"]).await;
        run(&["moveto", "edd:docs/in/deep", "edd:docs/shallow"]).await;
        run(&["copyto", "edd:docs/shallow/uno", "edd:docs/in/copy"]).await;
        run(&["copy", "edd:docs", "back"]).await;
        assert_eq!(tree(&site.here("back")), ["in/copy", "in/empty", "shallow/er/two & ü", "shallow/uno"]);
        assert!(site.read("back/in/copy") == site.read("tree/one"));
        run(&["purge", "edd:docs/shallow"]).await;
        assert_eq!(run(&["lsf", "edd:docs"]).await, "in/\n");
        run(&["mkdir", "edd:made"]).await;
        let refused = rclone(&["purge", "edd:docs"]).run().await;
        assert_ne!(refused.code, Some(0), "a namespace is no folder: {refused:#?}");
    }
    site.deployment.stop().await;
}

/// What no client should get away with.
#[tokio::test(flavor = "multi_thread")]
async fn webdav_asks_for_credentials_and_keeps_what_it_should() {
    let mut site = Site::start().await;
    site.make("a", 5000);
    let dav = format!("{}/storage/dav", site.url());
    let (user, wrong) = (format!("{USER}:{}", site.token), format!("bob:{}", site.token));
    let status = async |arguments: &[&str]| {
        let told = ["--silent", "--output", "answer", "--write-out", "%{http_code} %header{www-authenticate}"];
        site.program("curl").args(&told).args(arguments).run().await.ok().trim_end().to_owned()
    };
    let as_ann = ["--user", user.as_str()];
    let file = format!("{dav}/docs/a");
    for arguments in [&["--request", "PROPFIND", "--header", "Depth: 1"][..], &["--upload-file", "a"], &[]] {
        let asked = status(&[arguments, &[&file]].concat()).await;
        assert!(asked.starts_with("401") && asked.contains("Basic realm="), "{arguments:?}: {asked}");
    }
    assert!(status(&["--user", &wrong, &file]).await.starts_with("401"), "somebody else's name");
    assert_eq!(status(&[&as_ann[..], &["--upload-file", "a", &file]].concat()).await, "201");
    let put = |headers: &[&str], name: &str| {
        let headers: Vec<&str> = headers.iter().flat_map(|header| ["--header", *header]).collect();
        let url = format!("{dav}/{name}");
        let arguments: Vec<String> =
            as_ann.iter().chain(&headers).chain(&["--upload-file", "a", &url]).map(|&word| word.to_owned()).collect();
        async move { status(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    assert_eq!(put(&[], "docs/a").await, "204");
    assert_eq!(put(&["If-None-Match: *"], "docs/a").await, "412");
    assert_eq!(put(&["If-Match: \"00\""], "docs/a").await, "412");
    assert_eq!(put(&["Content-Range: bytes 0-4999/9000"], "docs/a").await, "400", "no part of a file");
    assert_eq!(put(&[], "docs/none/a").await, "409", "no such folder");
    assert_eq!(put(&[], "docs/%2e%2e%2fa").await.split(' ').next(), Some("400"));
    let method = async |method: &str, name: &str| {
        status(&[&as_ann[..], &["--request", method, &format!("{dav}/{name}")]].concat()).await
    };
    // COPY and MOVE take the place of what is there, unless they are told not to.
    let to = async |method: &str, from: &str, name: &str, overwrite: &str| {
        let (destination, overwrite) = (format!("Destination: {dav}/{name}"), format!("Overwrite: {overwrite}"));
        let words = ["--request", method, "--header", &destination, "--header", &overwrite];
        status(&[&as_ann[..], &words, &[&format!("{dav}/{from}")]].concat()).await
    };
    assert_eq!(method("MKCOL", "docs/dir").await, "201");
    assert_eq!(to("COPY", "docs/a", "docs/dir/b", "T").await, "201");
    assert_eq!(to("COPY", "docs/a", "docs/dir/b", "F").await, "412");
    assert_eq!(to("MOVE", "docs/dir/b", "docs/a", "T").await, "204");
    assert_eq!(to("COPY", "docs/a", "docs/dir/c", "T").await, "201");
    assert_eq!(to("COPY", "docs/dir", "docs/other", "T").await, "201");
    assert_eq!(to("MOVE", "docs/dir", "docs/other", "T").await, "204", "a folder takes a folder's place");
    assert_eq!(to("MOVE", "docs/other", "docs/a", "T").await, "204", "and a file's");
    assert_eq!(to("MOVE", "docs/a", "docs/a/deeper", "T").await.split(' ').next(), Some("409"), "not into itself");
    assert_eq!(method("DELETE", "docs/a").await, "204");
    assert_eq!(put(&[], "docs/a").await, "201");
    assert_eq!(method("MKCOL", "docs/a").await, "405", "a file is there");
    assert_eq!(method("DELETE", "docs").await, "403", "a namespace is not deleted like this");
    assert_eq!(method("PROPFIND", "others").await, "404");
    assert_eq!(method("LOCK", "docs/a").await.split(' ').next(), Some("400"), "a lock without a body is none");
    // As Windows and macOS write: the name is locked first.
    let wanted = "<?xml version=\"1.0\"?><lockinfo xmlns=\"DAV:\"><lockscope><exclusive/></lockscope><locktype><write/>\
                  </locktype></lockinfo>";
    let lock = ["--request", "LOCK", "--data", wanted, "--dump-header", "head", &format!("{dav}/docs/locked")];
    assert_eq!(status(&[&as_ann[..], &lock].concat()).await, "201");
    let head = String::from_utf8(site.read("head")).expect("text").to_ascii_lowercase();
    let token = head.lines().find_map(|line| line.strip_prefix("lock-token: ")).expect("a lock's token").to_owned();
    assert_eq!(put(&[&format!("If: ({token})")], "docs/locked").await, "204", "an empty file was there");
    let unlock = ["--request", "UNLOCK", "--header", &format!("Lock-Token: {token}"), &format!("{dav}/docs/locked")];
    assert_eq!(status(&[&as_ann[..], &unlock].concat()).await, "204");
    // A page that is opened from here runs nothing.
    site.curl(&["--request", "PUT", "--data-binary", "<script>1</script>", &format!("{dav}/docs/x.html")])
        .run()
        .await
        .ok();
    let head = site.curl(&["--head", &format!("{dav}/docs/x.html")]).run().await;
    let head = head.ok().to_ascii_lowercase();
    for line in
        ["content-security-policy: sandbox", "x-content-type-options: nosniff", "content-disposition: attachment"]
    {
        assert!(head.contains(line), "{line} in {head}");
    }
    site.deployment.stop().await;
}
