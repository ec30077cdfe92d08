//! Lists, folders, moves, copies and deletions.

use serde_json::{Value, json};

use super::site::Site;

fn paths(listed: &Value) -> Vec<&str> {
    listed.as_array().expect("an array").iter().map(|it| it["path"].as_str().expect("a path")).collect()
}

#[tokio::test]
async fn lists_are_flat_or_of_a_folder_and_go_on() {
    let site = Site::new().await;
    for path in ["a", "dir/b", "dir/sub/c%20d"] {
        site.file(&format!("docs/{path}"), "1").await;
    }
    let list = async |query: &str| site.ann(&format!("GET /storage/files?namespace=docs{query}")).send().await;
    let flat = list("").await.ok();
    assert_eq!(paths(&flat), ["a", "dir/b", "dir/sub/c d"]);
    let first = &flat[0];
    for (field, value) in
        [("name", json!("a")), ("namespace", json!("docs")), ("size", json!(1)), ("is_folder", json!(false))]
    {
        assert_eq!(first[field], value, "{field}");
    }
    assert!(first["created_at"].is_string() && first["modified_at"].is_string() && first["sha256"].is_string());
    assert_eq!(paths(&list("&folder=").await.ok()), ["a", "dir"]);
    assert_eq!(paths(&list("&folder=dir").await.ok()), ["dir/b", "dir/sub"]);
    assert_eq!(paths(&list("&folder=dir/").await.ok()), ["dir/b", "dir/sub"]);
    assert_eq!(paths(&list("&folder=dir&recursive=true").await.ok()), ["dir/b", "dir/sub/c d"]);
    let page = list("&limit=2").await;
    let cursor = page.header("x-next-cursor").to_owned();
    assert_eq!(paths(&page.ok()), ["a", "dir/b"]);
    let rest = list(&format!("&limit=2&cursor={cursor}")).await;
    assert_eq!(rest.header("x-next-cursor"), "");
    assert_eq!(paths(&rest.ok()), ["dir/sub/c d"]);
    list("&folder=nowhere").await.refused(404);
    list("&folder=a").await.refused(409);
    list("&folder=..").await.refused(400);
    list("&limit=0").await.refused(400);
    list("&cursor=%25").await.refused(400);
    site.ann("GET /storage/files").send().await.refused(400);
}

#[tokio::test]
async fn things_are_moved_copied_and_deleted() {
    let site = Site::new().await;
    site.post("/storage/namespaces", &json!({"name": "pics"})).await.ok();
    site.file("docs/a", "1").await;
    let act = async |what: &str, body: Value| site.post(&format!("/storage/files/{what}"), &body).await;
    let copied = act("copy", json!({"namespace": "docs", "from": "a", "to": "x/b", "to_namespace": "pics"})).await.ok();
    assert_eq!((&copied["namespace"], &copied["path"]), (&json!("pics"), &json!("x/b")));
    act("copy", json!({"namespace": "docs", "from": "a", "to": "x/b", "to_namespace": "pics"})).await.refused(409);
    site.file("docs/a", "2").await;
    let over = json!({"namespace": "docs", "from": "a", "to": "x/b", "to_namespace": "pics", "overwrite": true});
    act("move", over).await.ok();
    assert_eq!(site.read("pics/x/b").await, "2");
    site.ann("GET /storage/docs/a").send().await.refused(404);
    act("move", json!({"namespace": "pics", "from": "x", "to": "y/z"})).await.ok();
    assert_eq!(site.read("pics/y/z/b").await, "2");
    act("move", json!({"namespace": "pics", "from": "nowhere", "to": "b"})).await.refused(404);
    act("move", json!({"namespace": "pics", "from": "..", "to": "b"})).await.refused(400);
    act("folders", json!({"namespace": "pics", "path": "new/folder"})).await.ok();
    act("folders", json!({"namespace": "pics", "path": "new/folder"})).await.refused(409);
    assert!(site.ann("DELETE /storage/pics/y").send().await.refused(409).contains("recursive=true"));
    site.ann("DELETE /storage/pics/y?recursive=true").send().await.done();
    site.ann("DELETE /storage/pics/new/folder").send().await.done();
    site.ann("DELETE /storage/pics/new/folder").send().await.refused(404);
    let stolen = json!({"namespace": "docs", "from": "a", "to": "mine"});
    site.bob("POST /storage/files/copy").json(&stolen).send().await.refused(404);
}
