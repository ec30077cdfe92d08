//! Share links over HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::site::Site;

async fn share(site: &Site, body: Value) -> (Value, String) {
    let made = site.post("/storage/shares", &body).await.ok();
    let token = made["token"].as_str().expect("a token").to_owned();
    (made, format!("/storage/shares/{token}"))
}

#[tokio::test]
async fn a_link_is_for_whoever_has_it() {
    let site = Site::new().await;
    site.file("docs/dir/a.txt", "hello").await;
    site.file("docs/dir/sub/b.txt", "below").await;
    let (made, file) = share(&site, json!({"namespace": "docs", "path": "dir/a.txt", "max_downloads": 2})).await;
    assert_eq!(made["url"], format!("http://storage.cloud.localhost:8080{file}"));
    let head = site.nobody(&format!("HEAD {file}")).send().await;
    assert_eq!((head.status, head.header("content-length")), (200, "5"), "it does not count");
    let got = site.nobody(&format!("GET {file}")).send().await;
    assert_eq!((got.status, got.text().as_str(), got.header("referrer-policy")), (200, "hello", "no-referrer"));
    assert!(got.header("content-disposition").contains("a.txt"));
    let rest = site.nobody(&format!("GET {file}")).header("range", "bytes=2-").send().await;
    assert_eq!((rest.status, rest.text().as_str()), (206, "llo"), "it goes on, and does not count");
    assert_eq!(site.nobody(&format!("GET {file}")).header("authorization", "Bearer x").send().await.status, 200);
    let used_up = site.nobody(&format!("GET {file}")).send().await;
    let unknown = site.nobody("GET /storage/shares/nonsense").send().await;
    assert_eq!((used_up.status, used_up.text()), (404, unknown.text()));

    let (_, folder) = share(&site, json!({"namespace": "docs", "path": "dir"})).await;
    let listed = site.nobody(&format!("GET {folder}")).send().await.ok();
    let shown: Vec<_> = listed.as_array().unwrap().iter().map(|it| (&it["path"], &it["is_folder"])).collect();
    assert_eq!(shown, [(&json!("a.txt"), &json!(false)), (&json!("sub"), &json!(true))]);
    assert!(listed[0].get("namespace").is_none(), "where it is, is nobody's business: {listed}");
    let page = site.nobody(&format!("GET {folder}?limit=1")).send().await;
    let next = site.nobody(&format!("GET {folder}?limit=1&cursor={}", page.header("x-next-cursor"))).send().await;
    assert_eq!(next.ok()[0]["path"], "sub");
    assert_eq!(site.nobody(&format!("GET {folder}/sub/b.txt")).send().await.text(), "below");
    assert_eq!(site.nobody(&format!("GET {folder}/sub/")).send().await.ok()[0]["path"], "sub/b.txt");
    for outside in ["..%2fa", "%2e%2e", "nowhere"] {
        site.nobody(&format!("GET {folder}/{outside}")).send().await.refused(404);
    }
}

#[tokio::test]
async fn a_password_is_asked_for_as_browsers_do() {
    let site = Site::new().await;
    site.file("docs/a", "hello").await;
    let (made, link) = share(&site, json!({"namespace": "docs", "path": "a", "password": "sesame"})).await;
    assert_eq!(made["has_password"], true);
    assert!(!made.to_string().contains("sesame") && !made.to_string().contains("argon2"), "{made}");
    let asked = site.nobody(&format!("GET {link}")).send().await;
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, "Basic realm=\"share\", charset=\"UTF-8\""));
    let with = |text: &str| {
        let basic = format!("Basic {}", STANDARD.encode(text));
        site.nobody(&format!("GET {link}")).header("authorization", &basic).send()
    };
    assert_eq!(with("x:wrong").await.status, 401);
    assert_eq!(with("anybody:sesame").await.text(), "hello");
    for _ in 0..10 {
        with("x:guess").await;
    }
    let limited = with("x:guess").await;
    assert_eq!(limited.status, 429);
    assert!(!limited.header("retry-after").is_empty());
}

#[tokio::test]
async fn its_maker_lists_and_revokes_it() {
    let site = Site::new().await;
    site.file("docs/a", "hello").await;
    let (made, link) = share(&site, json!({"namespace": "docs", "expires_in": 3600})).await;
    let listed = site.ann("GET /storage/shares").send().await;
    assert!(!listed.text().contains(made["token"].as_str().unwrap()), "the secret is told once");
    let listed = listed.ok();
    assert_eq!((&listed[0]["id"], &listed[0]["path"]), (&made["id"], &Value::Null));
    assert!(listed[0]["expires_at"].is_string());
    assert_eq!(site.bob("GET /storage/shares").send().await.ok(), json!([]));
    let id = made["id"].to_string();
    site.bob(&format!("DELETE /storage/shares/{id}")).send().await.refused(404);
    site.ann("DELETE /storage/shares/x").send().await.refused(404);
    site.ann(&format!("DELETE /storage/shares/{id}")).send().await.done();
    site.nobody(&format!("GET {link}")).send().await.refused(404);
    for (field, value) in
        [("expires_in", json!(0)), ("max_downloads", json!(0)), ("password", json!("")), ("path", json!(".."))]
    {
        let mut body = json!({"namespace": "docs"});
        body[field] = value;
        assert!(site.post("/storage/shares", &body).await.refused(400).contains(field), "{field}");
    }
    site.post("/storage/shares", &json!({"namespace": "docs", "path": "nowhere"})).await.refused(404);
}
