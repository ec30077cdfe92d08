use std::net::SocketAddr;

use axum::Router;
use axum::extract::connect_info::MockConnectInfo;
use axum::routing::{get, post};
use http::Request;
use http::header::ALLOW;
use serde::Deserialize;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::extract::{Json, MAX_JSON_BYTES, Path, Query};
use crate::request::{self, TrustedProxies};

#[derive(Deserialize)]
struct Token {
    name: String,
    #[serde(default)]
    scopes: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Page {
    limit: u32,
}

fn router() -> Router {
    let failing = |error: fn() -> Error| get(move || async move { Err::<(), _>(error()) });
    let router = Router::new()
        .route("/token", post(|Json(token): Json<Token>| async move { Json((token.name, token.scopes.len())) }))
        .route("/logout", post(|body: Option<Json<Token>>| async move { Json(body.map(|Json(token)| token.name)) }))
        .route("/small", post(|Json(text): Json<String, 8>| async move { text }))
        .route("/page", get(|Query(page): Query<Page>| async move { page.limit.to_string() }))
        .route("/key/{id}", get(|Path(id): Path<i64>| async move { id.to_string() }))
        .route("/away", failing(|| sqlx::Error::PoolTimedOut.into()))
        .route("/broken", failing(|| sqlx::Error::ColumnNotFound("secret_column".to_owned()).into()))
        .route("/limited", failing(|| Error::too_many_requests("too many logins", Duration::from_millis(89_001))))
        .route("/refused", failing(|| Error::unauthorized(Challenge::InvalidToken, "the token has expired")))
        .route("/bare", get(|| async { StatusCode::BAD_GATEWAY }));
    request::tracked(router, TrustedProxies::loopback()).layer(MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))))
}

async fn send(request: http::request::Builder, body: impl Into<Body>) -> (StatusCode, HeaderMap, String) {
    let answer = router().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn get_of(path: &str) -> http::request::Builder {
    Request::get(path).header("x-request-id", "req-1")
}

fn json_to(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/json")
}

/// Status and message of what is answered to a body.
async fn refused(request: http::request::Builder, body: impl Into<Body>) -> (u16, String) {
    let (status, headers, body) = send(request, body).await;
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    let Value::Object(mut object) = serde_json::from_str(&body).unwrap() else { panic!("{body}") };
    let Some(Value::String(message)) = object.remove("error") else { panic!("{body}") };
    assert!(object.is_empty(), "{body}");
    (status.as_u16(), message)
}

#[tokio::test]
async fn an_error_is_written_as_the_client_reads_it() {
    let (status, headers, body) = send(get_of("/limited"), "").await;
    assert_eq!((status.as_u16(), body.as_str()), (429, r#"{"error":"too many logins"}"#));
    assert_eq!(
        (&headers[RETRY_AFTER], &headers[CACHE_CONTROL]),
        (&"90".parse().unwrap(), &"no-store".parse().unwrap())
    );
    assert_eq!(headers["x-request-id"], "req-1");

    let accept = "application/json;q=0.5, application/problem+json; q=1";
    let (status, headers, body) = send(get_of("/limited").header("accept", accept), "").await;
    assert_eq!((status.as_u16(), &headers[CONTENT_TYPE]), (429, &"application/problem+json".parse().unwrap()));
    assert_eq!(headers[RETRY_AFTER], "90");
    let expected = json!({
        "type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "too many logins",
        "request_id": "req-1",
    });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    let (_, headers, _) = send(get_of("/limited").header("accept", "application/problem+json;q=0, */*"), "").await;
    assert_eq!(headers[CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn causes_stay_inside_and_outages_say_when_to_come_back() {
    let (status, headers, body) = send(get_of("/away"), "").await;
    assert_eq!((status.as_u16(), &headers[RETRY_AFTER]), (503, &"2".parse().unwrap()));
    assert!(body.contains("try again") && !body.contains("pool"), "{body}");
    let (status, headers, body) = send(get_of("/broken"), "").await;
    assert_eq!((status.as_u16(), headers.get(RETRY_AFTER)), (500, None));
    assert!(!body.contains("secret_column"), "{body}");
    let (status, headers, _) = send(get_of("/refused"), "").await;
    assert_eq!(
        (status.as_u16(), &headers[WWW_AUTHENTICATE]),
        (401, &"Bearer error=\"invalid_token\"".parse().unwrap())
    );
}

#[test]
fn errors_of_the_kernel_are_told_apart() {
    let status = |error: Error| error.status().as_u16();
    assert_eq!(status(BusError::Unavailable("x".to_owned()).into()), 503);
    assert_eq!(status(BusError::NoAnswer(Duration::from_secs(2)).into()), 503);
    assert_eq!(status(BusError::Refused("x".to_owned()).into()), 500);
    assert_eq!(status(PublishError::Database(sqlx::Error::PoolClosed).into()), 503);
    assert_eq!(status(sqlx::Error::RowNotFound.into()), 500);
    for code in ["40001", "53100", "57P01", "08006", "5", "6", "10", "13", "261", "522", "8714"] {
        assert!(is_away_code(code), "{code}");
    }
    for code in ["23505", "42P01", "19", "2067", "1555", "1", "", "x"] {
        assert!(!is_away_code(code), "{code}");
    }
}

#[tokio::test]
async fn what_the_router_refuses_is_json_too() {
    let (status, message) = refused(get_of("/nowhere"), "").await;
    assert_eq!((status, message.as_str()), (404, "nothing is served at this path"));
    let (status, headers, body) = send(get_of("/token"), "").await;
    assert_eq!((status.as_u16(), &headers[ALLOW]), (405, &"POST".parse().unwrap()));
    assert!(body.contains("does not serve this method"), "{body}");
    assert_eq!(refused(get_of("/bare"), "").await, (502, "Bad Gateway".to_owned()));
    let (status, message) = refused(get_of("/page?limit=many"), "").await;
    assert!(status == 400 && message.contains("limit"), "{status} {message}");
    let (status, message) = refused(get_of("/key/x"), "").await;
    assert!(status == 400 && message.contains('x'), "{status} {message}");
}

#[tokio::test]
async fn malformed_bodies_are_told_where_they_are_wrong() {
    let ok = send(json_to("/token"), r#"{"name":"ci","scopes":{"compute.u":["read"]}}"#).await;
    assert_eq!((ok.0.as_u16(), ok.2.as_str()), (200, r#"["ci",1]"#));
    let cases = [
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("{\n \"name\": 5}", "`name`: invalid type: integer `5`, expected a string at line 2 column 10"),
        (
            "{\"name\":\"a\",\"scopes\":{\"b\":[1]}}",
            "`scopes.b[0]`: invalid type: integer `1`, expected a string at line 1 column 28",
        ),
        ("{}", "missing field `name` at line 1 column 2"),
        ("{\"name\":\"a\"} x", "trailing characters at line 1 column 14"),
        ("{\"name\":\"a\",\"name\":\"b\"}", "duplicate field `name` at line 1 column 18"),
        ("\"\u{7f}\"", "expected struct Token at line 1 column 3"),
    ];
    for (body, expected) in cases {
        let (status, message) = refused(json_to("/token"), body).await;
        assert_eq!(status, 400, "{body}");
        assert!(message.ends_with(expected), "{message}");
    }
    let (status, message) = refused(json_to("/token"), vec![b'"', 0xff, b'"']).await;
    assert!(status == 400 && message.contains("line 1"), "{message}");
    let (status, message) = refused(json_to("/token"), "[".repeat(5000)).await;
    assert!(status == 400 && message.contains("line 1"), "{message}");
    let (status, message) = refused(json_to("/token"), format!("\"{}\"", "x".repeat(5000))).await;
    assert!(status == 400 && message.len() < 300 && message.ends_with("line 1 column 5002"), "{message}");
}

#[tokio::test]
async fn bodies_are_bounded_and_declared() {
    let padded = |bytes: usize| [r#"{"name":"ci"}"#, &" ".repeat(bytes - 13)].concat();
    assert_eq!(send(json_to("/token"), padded(MAX_JSON_BYTES)).await.0.as_u16(), 200);
    let expected = (413, format!("the body is too large: at most {MAX_JSON_BYTES} bytes are read"));
    assert_eq!(refused(json_to("/token"), padded(MAX_JSON_BYTES + 1)).await, expected);
    let declared = json_to("/token").header("content-length", "99999999999");
    assert_eq!(refused(declared, padded(20)).await, expected);
    assert_eq!(refused(json_to("/small"), "\"1234567\"").await.0, 413);
    assert_eq!(send(json_to("/small"), "\"123456\"").await.2, "123456");

    let form = || Request::post("/token").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(refused(form(), "name=ci").await.0, 415);
    assert_eq!(refused(Request::post("/token"), r#"{"name":"ci"}"#).await.0, 415);
    let patch = Request::post("/token").header("content-type", "application/merge-patch+json; charset=utf-8");
    assert_eq!(send(patch, r#"{"name":"ci"}"#).await.0.as_u16(), 200);
    assert_eq!(refused(json_to("/token"), "").await.0, 400);
    assert_eq!(send(Request::post("/logout"), "").await.2, "null");
    assert_eq!(send(json_to("/logout"), r#"{"name":"ci"}"#).await.2, "\"ci\"");
    assert_eq!(refused(json_to("/logout"), "{").await.0, 400);
}

#[tokio::test]
async fn a_router_that_cannot_know_its_peers_says_so() {
    let router = request::tracked(Router::new().route("/", get(|| async {})), TrustedProxies::default());
    let answer = router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 500);
}
