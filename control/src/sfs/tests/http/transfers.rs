//! How far transfers are, over server-sent events.

use axum::body::Body;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::site::Site;

/// What is told of a transfer, from its beginning to its end.
async fn told(response: axum::response::Response) -> Vec<Value> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut bytes = response.into_body().into_data_stream();
    let mut text = String::new();
    while let Some(piece) = bytes.next().await {
        text += std::str::from_utf8(&piece.expect("bytes")).expect("text");
    }
    text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
}

#[tokio::test]
async fn an_upload_and_a_download_are_followed() {
    let site = Site::new().await;
    for (path, request, direction) in [
        ("/sse/progress", "PUT /storage/docs/a?id=t1", "upload"),
        ("/storage/sse/progress", "GET /storage/docs/a?id=t2", "download"),
    ] {
        let id = &request[request.len() - 2..];
        let follower = site.ann(&format!("GET {path}?id={id}")).begin().await;
        let pieces = stream::iter((0..5).map(|_| Ok::<_, std::io::Error>("x".repeat(1000))));
        let call = site.ann(request).header("x-file-size", "5000").body(Body::from_stream(pieces));
        assert!(call.send().await.status < 300, "{request}");
        let told = told(follower).await;
        let last = told.last().expect("an event");
        assert_eq!((&last["id"], &last["direction"]), (&Value::from(id), &Value::from(direction)), "{last}");
        assert_eq!(
            (&last["bytes"], &last["total"], &last["done"]),
            (&5000.into(), &5000.into(), &true.into()),
            "{last}"
        );
        assert!(last.get("error").is_none(), "{last}");
    }
}

#[tokio::test]
async fn what_fails_says_why() {
    let site = Site::new().await;
    let follower = site.ann("GET /sse/progress?id=t1").begin().await;
    site.ann("PUT /storage/docs/a?id=t1").header("x-file-size", "3").body("hello").send().await.refused(400);
    let told = told(follower).await;
    let error = told.last().expect("an event")["error"].as_str().expect("a reason").to_owned();
    assert!(error.contains("announced"), "{error}");
    site.ann("GET /sse/progress").send().await.refused(400);
    site.ann("GET /sse/progress?id=").send().await.refused(400);
    site.nobody("GET /sse/progress?id=t1").send().await.refused(401);
    site.ann("PUT /storage/docs/a?id=a%20b").body("x").send().await.refused(400);
}

/// Ids are the clients' choice: two users may have the same.
#[tokio::test]
async fn a_transfer_is_told_to_whose_it_is_alone() {
    let site = Site::new().await;
    site.bob("POST /storage/namespaces").json(&json!({"name": "bobs"})).send().await.ok();
    let follower = site.bob("GET /sse/progress?id=t1").begin().await;
    assert_eq!(site.ann("PUT /storage/docs/a?id=t1").body("of Ann's").send().await.status, 201);
    assert_eq!(site.bob("PUT /storage/bobs/b?id=t1").body("his").send().await.status, 201);
    let told = told(follower).await;
    assert!(told.iter().all(|event| event["bytes"].as_u64() <= Some(3)), "{told:?}");
    assert_eq!(told.last().map(|last| (&last["bytes"], &last["done"])), Some((&3.into(), &true.into())));
}
