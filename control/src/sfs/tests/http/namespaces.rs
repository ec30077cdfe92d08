//! `/storage/namespaces`

use serde_json::json;

use super::site::Site;

#[tokio::test]
async fn old_clients_find_the_shapes_that_they_know() {
    let site = Site::new().await;
    for (visibility, number, name) in [
        (json!(0), 0, "private"),
        (json!(1), 1, "internal"),
        (json!("public"), 2, "public"),
        (json!("1"), 1, "internal"),
    ] {
        let called = format!("n{}", visibility.to_string().replace('"', "s"));
        let made = site.post("/storage/namespaces", &json!({"name": called, "visibility": visibility})).await.ok();
        assert_eq!((&made["name"], &made["visibility"]), (&json!(called), &json!(number)), "{made}");
        assert_eq!(
            (&made["visibility_name"], &made["count"], &made["hidden"]),
            (&json!(name), &json!(0), &json!(false))
        );
    }
    site.file("docs/a", "1").await;
    let listed = site.ann("GET /storage/namespaces").send().await.ok();
    let counts: Vec<_> =
        listed.as_array().unwrap().iter().map(|it| (it["name"].clone(), it["count"].clone())).collect();
    assert_eq!(counts.len(), 5);
    assert_eq!(counts[0], (json!("docs"), json!(1)));
    let page = site.ann("GET /storage/namespaces?limit=2").send().await;
    assert_eq!(page.header("x-next-cursor"), "n0");
    let rest = site.ann("GET /storage/namespaces?limit=2&cursor=n0").send().await.ok();
    assert_eq!((&rest[0]["name"], &rest[1]["name"]), (&json!("n1"), &json!("ns1s")));
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=A"] {
        site.ann(&format!("GET /storage/namespaces?{query}")).send().await.refused(400);
    }
}

#[tokio::test]
async fn names_are_unique_and_no_words_of_paths() {
    let site = Site::new().await;
    let make = async |name: &str| site.post("/storage/namespaces", &json!({"name": name})).await;
    assert!(make("docs").await.refused(409).contains("docs"));
    for name in ["tus", "files", "namespaces", "download", "shares", "status", "admin", "dav", "sse", "Docs", "a/b", ""]
    {
        make(name).await.refused(400);
    }
    for visibility in [json!(3), json!("secret"), json!(-1), json!(true)] {
        let refused = site.post("/storage/namespaces", &json!({"name": "a", "visibility": visibility})).await;
        assert_eq!(refused.status, 400, "{visibility}");
    }
    site.nobody("POST /storage/namespaces").json(&json!({"name": "a"})).send().await.refused(401);
}

/// Unknown, and not to be seen, are one.
#[tokio::test]
async fn who_does_not_see_a_namespace_learns_nothing() {
    let site = Site::new().await;
    site.file("docs/a", "1").await;
    for request in [
        "GET /storage/namespaces/NAME",
        "DELETE /storage/namespaces/NAME",
        "GET /storage/files?namespace=NAME",
        "GET /storage/NAME/a",
        "PUT /storage/NAME/a",
        "POST /storage/NAME/a",
        "DELETE /storage/NAME/a",
        "GET /storage/download/NAME/a",
    ] {
        let ask = async |name| site.bob(&request.replace("NAME", name)).send().await;
        let (hidden, unknown, none) = (ask("docs").await, ask("nowhere").await, ask("NO%20NAME").await);
        assert_eq!((hidden.status, hidden.text()), (404, unknown.text()), "{request}");
        assert_eq!((unknown.status, none.status), (404, 404), "{request}");
        if request.starts_with("GET /storage/NAME") || request.contains("download") {
            let anonymous = site.nobody(&request.replace("NAME", "docs")).send().await;
            assert_eq!((anonymous.status, anonymous.text()), (404, unknown.text()), "{request}");
        }
    }
    site.bob("PUT /storage/namespaces/docs").json(&json!({"visibility": 2})).send().await.refused(404);
}

#[tokio::test]
async fn visibility_opens_and_closes() {
    let site = Site::new().await;
    site.file("docs/a", "1").await;
    let statuses = async |visibility: &str| {
        let change = json!({"visibility": visibility});
        site.ann("PUT /storage/namespaces/docs").json(&change).send().await.ok();
        let of = |answer: super::site::Answer| answer.status;
        (
            of(site.bob("GET /storage/docs/a").send().await),
            of(site.nobody("GET /storage/docs/a").send().await),
            of(site.bob("PUT /storage/docs/b").body("x").send().await),
        )
    };
    assert_eq!(statuses("private").await, (404, 404, 404));
    assert_eq!(statuses("internal").await, (200, 404, 403));
    assert_eq!(statuses("public").await, (200, 200, 403));
    let all = site.bob("GET /storage/namespaces?all=true").send().await.ok();
    assert_eq!(all[0]["name"], "docs");
    assert_eq!(site.bob("GET /storage/namespaces").send().await.ok(), json!([]), "his own");
    assert_eq!(site.nobody("GET /storage/namespaces").send().await.ok()[0]["name"], "docs");
    let renamed = json!({"name": "papers", "hidden": true});
    site.ann("PUT /storage/namespaces/docs").json(&renamed).send().await.ok();
    assert_eq!(site.nobody("GET /storage/papers/a").send().await.text(), "1");
    assert_eq!(site.nobody("GET /storage/namespaces").send().await.ok(), json!([]), "hidden");
    site.ann("DELETE /storage/namespaces/papers").send().await.done();
    site.ann("GET /storage/namespaces/papers").send().await.refused(404);
}

#[tokio::test]
async fn credentials_that_are_no_good_are_refused_where_none_are_needed() {
    let site = Site::new().await;
    site.ann("PUT /storage/namespaces/docs").json(&json!({"visibility": 2})).send().await.ok();
    site.file("docs/a", "1").await;
    let refused = site.nobody("GET /storage/docs/a").header("authorization", "Bearer nonsense").send().await;
    assert_eq!(refused.status, 401);
    let by_query = site.nobody("POST /storage/docs/b?token=x").body("1").send().await;
    assert_eq!((by_query.status, by_query.header("www-authenticate")), (401, "Bearer"));
    let from_elsewhere = site.nobody("POST /storage/docs/b").header("cookie", "token=x").body("1").send().await;
    assert_eq!(from_elsewhere.status, 403, "a cookie acts from its own origin alone");
    let status = site.ann("GET /storage/status").send().await.ok();
    assert_eq!(status["status"], "ok");
    let usage = site.ann("GET /storage/status/usage").send().await.ok();
    assert_eq!((&usage["used_bytes"], &usage["used_entries"]), (&json!(1), &json!(1)));
}
