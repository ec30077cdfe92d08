//! What administrators ask.

use serde_json::json;

use super::site::Site;
use crate::sfs::tests::fixture::BOB;

#[tokio::test]
async fn administrators_see_and_give_away_all() {
    let site = Site::new().await;
    site.file("docs/a", "hello").await;
    for root in ["", "/storage"] {
        for request in [format!("GET {root}/admin/namespaces"), format!("DELETE {root}/admin/namespaces/docs")] {
            site.ann(&request).send().await.refused(403);
            site.nobody(&request).send().await.refused(401);
        }
        let listed = site.admin(&format!("GET {root}/admin/namespaces")).send().await.ok();
        assert_eq!((&listed[0]["name"], &listed[0]["owner_username"]), (&json!("docs"), &json!(null)), "{listed}");
    }
    assert_eq!(site.admin("GET /admin/namespaces?orphaned=true").send().await.ok(), json!([]));
    let give = json!({"owner": BOB});
    let change = |body: &serde_json::Value| site.admin("PUT /storage/admin/namespaces/docs").json(body).send();
    change(&give).await.refused(404);
    let known = "INSERT INTO user_cache (user_id, username, display_name, user_number, version, deleted, synced_at, round) \
                 VALUES ($1, 'bob', '', 7, 1, 0, 0, 0)";
    sqlx::query(known).bind(BOB).execute(site.database.writer()).await.expect("a row");
    let given = change(&give).await.ok();
    assert_eq!(given["owner"], BOB);
    site.ann("GET /storage/docs/a").send().await.refused(404);
    assert_eq!(site.bob("GET /storage/docs/a").send().await.text(), "hello");
    let listed = site.admin("GET /admin/namespaces").send().await.ok();
    assert_eq!(listed[0]["owner_username"], "bob");
    assert_eq!(change(&json!({"quota_bytes": 6})).await.ok()["quota_bytes"], 6);
    assert!(site.bob("PUT /storage/docs/b").body("hi").send().await.refused(507).contains("this namespace"));
    assert_eq!(change(&json!({"quota_bytes": null})).await.ok()["quota_bytes"], json!(null));
    change(&json!({})).await.refused(400);
    change(&json!({"quota_bytes": u64::MAX})).await.refused(400);
    site.admin("DELETE /admin/namespaces/docs").send().await.done();
    site.bob("GET /storage/docs/a").send().await.refused(404);
}
