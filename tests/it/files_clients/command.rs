//! `edd files`

use rustix::process::Signal;
use serde_json::Value;

use super::site::{NAMESPACE, Site, tree};
use crate::harness::{LogLine, Role, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_command_moves_files_and_folders() {
    let mut site = Site::start().await;
    let run = async |arguments: &[&str]| site.files(arguments).run().await;
    let small = site.make("a b.txt", 1000);
    site.make("tree/one", 10);
    site.make("tree/deep/er/two", 20);
    site.make("tree/empty", 0);

    assert_eq!(run(&["put", "a b.txt", "docs"]).await.ok(), "docs/a b.txt\n");
    let refused = run(&["put", "tree/one", "docs/a b.txt"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("exists"), "{refused:#?}");
    assert_eq!(run(&["put", "a b.txt", "docs"]).await.ok(), "docs/a b.txt\n", "the same once more is no conflict");
    let sent = run(&["put", "-r", "--json", "tree", "docs/t/"]).await;
    assert_eq!(sent.json()["files"].as_array().map(Vec::len), Some(3), "{sent:#?}");
    assert_eq!(run(&["put", "-", "docs/from-stdin"]).await.ok(), "docs/from-stdin\n");

    let listed = run(&["ls", "--json", "docs"]).await.json();
    let names: Vec<_> = listed["files"].as_array().expect("a list").iter().map(|it| it["name"].as_str()).collect();
    assert_eq!(names, [Some("a b.txt"), Some("from-stdin"), Some("t")], "{listed}");
    let all = run(&["ls", "-r", "docs"]).await;
    assert!(all.ok().contains("t/deep/er/two"), "{all:#?}");
    assert!(run(&["ls"]).await.ok().contains(NAMESPACE));

    run(&["get", "docs/a b.txt", "back"]).await.ok();
    assert!(site.read("back") == small);
    let refused = run(&["get", "docs/t/one", "back"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("--overwrite"), "{refused:#?}");
    run(&["get", "-r", "docs/t", "copy"]).await.ok();
    assert_eq!(tree(&site.here("copy")), ["deep/er/two", "empty", "one"]);
    assert!(site.read("copy/deep/er/two") == site.read("tree/deep/er/two"));
    assert_eq!(run(&["get", "docs/from-stdin", "-"]).await.ok(), "");

    run(&["mkdir", "docs/new"]).await.ok();
    run(&["mv", "docs/a b.txt", "docs/new/"]).await.ok();
    run(&["mkdir", "second", "--visibility", "public"]).await.ok();
    run(&["mv", "docs/new", "second/moved"]).await.ok();
    run(&["get", "second/moved/a b.txt", "moved"]).await.ok();
    assert!(site.read("moved") == small);
    let refused = run(&["rm", "docs/t"]).await;
    assert_eq!(refused.code, Some(1), "not empty: {refused:#?}");
    run(&["rm", "-r", "docs/t", "docs/from-stdin"]).await.ok();
    assert_eq!(run(&["ls", "--json", "docs"]).await.json()["files"], Value::Array(Vec::new()));
    run(&["rm", "-r", "docs"]).await.ok();
    let gone = run(&["ls", "docs"]).await;
    assert!(gone.code == Some(1) && gone.stderr.contains("no such namespace"), "{gone:#?}");
    let away = site.files(&["put", "a b.txt", "second"]).env("EDD_URL", "http://localhost:9").run().await;
    assert_eq!(away.code, Some(69), "{away:#?}");
    let invalid = site.files(&["ls"]).env("EDD_URL", "localhost").run().await;
    assert_eq!(invalid.code, Some(78), "{invalid:#?}");
    site.deployment.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_makes_links_and_takes_them_back() {
    let mut site = Site::start().await;
    let bytes = site.make("a", 300);
    site.files(&["put", "a", "docs"]).run().await.ok();
    let made = site.files(&["share", "docs/a", "--downloads", "1", "--expires-in", "1h"]).run().await;
    let url = made.ok().trim_end().to_owned();
    let fetch = async || {
        let told = ["--silent", "--output", "got", "--write-out", "%{http_code}", &url];
        site.program("curl").args(&told).run().await.stdout.trim_end().to_owned()
    };
    assert_eq!(fetch().await, "200", "{url}");
    assert!(site.read("got") == bytes);
    assert_eq!(fetch().await, "404", "used up");
    let made = site.files(&["share", "docs/a", "--json"]).run().await.json();
    let id = made["id"].to_string();
    assert!(site.files(&["shares"]).run().await.ok().contains("docs/a"));
    site.files(&["unshare", &id]).run().await.ok();
    let left = site.files(&["shares", "--json"]).run().await.json();
    assert!(left["shares"].as_array().expect("a list").iter().all(|share| share["id"] != made["id"]), "{left}");
    site.deployment.stop().await;
}

/// So many whole blobs has the share.
async fn until_blobs(site: &mut Site, most: usize) {
    let blobs = site.blobs();
    until("some of it to arrive", async || {
        let whole = tree(&blobs).iter().filter(|name| !name.contains('#')).count();
        if whole >= most { Ok(()) } else { Err(format!("{whole} blobs")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_the_client_was_killed_and_the_server_too() {
    let mut site = Site::start().await;
    let bytes = site.make("large", 24 * 1024 * 1024);
    let put = ["put", "--piece-mib", "1", "large", "docs"];

    let running = site.files(&put).start();
    until_blobs(&mut site, 3).await;
    // Killed, with no word to anybody.
    drop(running);
    let memory = site.here(".cache/edd/uploads");
    let remembered = || tree(&memory).len();
    assert_eq!(remembered(), 1);
    let again = site.files(&put).start();
    until_blobs(&mut site, 8).await;
    site.deployment.end(Role::Up, Signal::KILL).await;
    site.deployment.start().await;
    site.until_known().await;
    until("the upload to be done, and forgotten", async || match remembered() {
        0 => Ok(()),
        count => Err(format!("{count} uploads are remembered")),
    })
    .await;
    assert_eq!(again.output().await.ok(), "docs/large\n");
    let begun = site.deployment.gateway().log().iter().filter(|line| line.field("path") == "/storage/tus").count();
    assert_eq!(begun, 0, "the upload that began before goes on");
    // What was under way as the server was killed is not waited for.
    let status = |line: &LogLine| line.json["status"].as_u64().unwrap_or_default();
    let log = site.deployment.gateway().log();
    let parts: Vec<_> = log.iter().filter(|line| line.field("method") == "PATCH").collect();
    assert!(parts.iter().all(|line| matches!(status(line), 204 | 500..)), "{parts:#?}");

    // A download goes on, too, and what is there is not fetched again.
    let part = site.here("part");
    std::fs::create_dir(&part).expect("a folder");
    let name = part_name(&site, &bytes).await;
    std::fs::write(part.join(&name), &bytes[..20 * 1024 * 1024]).expect("a part");
    site.files(&["get", "docs/large", "part/whole"]).run().await.ok();
    assert!(std::fs::read(part.join("whole")).expect("the file") == bytes);
    let sent = |line: &LogLine| line.json["bytes_out"].as_u64().unwrap_or_default();
    let log = site
        .deployment
        .gateway()
        .wait_log("the download", |line| line.field("path") == "/storage/docs/large" && line.field("method") == "GET");
    assert_eq!(sent(&log.await), 4 * 1024 * 1024);
    // A part that is wrong is noticed, and the next run begins anew.
    std::fs::write(part.join(&name), vec![0; 1000]).expect("a part");
    let again = ["get", "--overwrite", "docs/large", "part/whole"];
    let wrong = site.files(&again).run().await;
    assert!(wrong.code == Some(1) && wrong.stderr.contains("SHA-256"), "{wrong:#?}");
    assert_eq!(tree(&part), ["whole"]);
    site.files(&again).run().await.ok();
    assert!(std::fs::read(part.join("whole")).expect("the file") == bytes);
    site.deployment.stop().await;
}

/// What a file called `whole` is called before it is whole.
async fn part_name(site: &Site, bytes: &[u8]) -> String {
    let listed = site.files(&["ls", "--json", "docs"]).run().await.json();
    let sha256 = listed["files"][0]["sha256"].as_str().expect("a checksum").to_owned();
    assert_eq!(listed["files"][0]["size"], bytes.len());
    let name = site.program("sh").args(&["-c", "printf whole | sha256sum | cut -c1-8"]).run().await;
    format!(".edd-{}-{}.part", name.ok().trim_end(), &sha256[..16])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_finds_what_is_lost() {
    let mut site = Site::start().await;
    // Of two sizes, because bytes follow from the size.
    for (name, size) in [("kept", 5000), ("lost", 6000)] {
        site.make(name, size);
        site.files(&["put", name, "docs"]).run().await.ok();
    }
    let check = async |site: &mut Site, more: &[&str]| {
        let edd = site.deployment.process(Role::Up);
        edd.verb(&[&["sfs", "check", "--content"], more].concat()).run().await
    };
    assert!(check(&mut site, &[]).await.ok().contains("0 differences"));
    let blobs = site.blobs();
    let file = tree(&blobs).into_iter().map(|name| blobs.join(name));
    let lost = file.into_iter().find(|file| std::fs::read(file).is_ok_and(|bytes| bytes == site.read("lost")));
    std::fs::remove_file(lost.expect("a blob")).expect("our own file");
    let found = check(&mut site, &["--json"]).await;
    assert_eq!(found.code, Some(1), "{found:#?}");
    let lines: Vec<Value> = found.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (summary, findings) = lines.split_last().expect("a summary");
    assert_eq!(summary["summary"]["repaired"], 0, "{summary}");
    assert!(findings.iter().any(|finding| finding["files"][0] == "docs/lost"), "{findings:#?}");
    assert_eq!(check(&mut site, &["--repair"]).await.code, Some(1), "nothing is taken from anybody unasked");
    check(&mut site, &["--repair", "--delete-lost"]).await.ok();
    assert!(check(&mut site, &[]).await.ok().contains("0 differences"));
    let listed = site.files(&["ls", "--json", "docs"]).run().await.json();
    assert_eq!(listed["files"].as_array().map(Vec::len), Some(1), "{listed}");
    site.deployment.stop().await;
}
