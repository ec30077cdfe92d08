use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use axum::routing::any;
use http::header::{ALLOW, WWW_AUTHENTICATE};
use http::{HeaderMap, Method};
use tower::ServiceExt;

use super::*;
use crate::request::{self, TrustedProxies};

async fn router(fixture: &Fixture) -> Router {
    let router =
        Router::new()
            .route("/me", any(|caller: Caller| async move { caller.username.to_string() }))
            .route(
                "/any",
                any(|caller: Option<Caller>| async move {
                    caller.map_or("nobody".to_owned(), |it| it.username.to_string())
                }),
            )
            .route("/socket", any(|UrlCaller(caller): UrlCaller| async move { caller.username.to_string() }))
            .route("/share", any(|caller: Option<UrlCaller>| async move { caller.is_some().to_string() }))
            .route(
                "/admin",
                any(|caller: Caller| async move {
                    caller.require_admin().map(|it| it.user().to_string()).map_err(Error::from)
                }),
            )
            .route("/c/{id}", any(container))
            .with_state(fixture.verifier.clone());
    request::tracked(router, TrustedProxies::loopback()).layer(MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))))
}

async fn container(caller: Caller, crate::extract::Path(id): crate::extract::Path<String>) -> Result<String, Error> {
    Ok(caller.may("compute", "read", &["containers", &id])?.owner().to_string())
}

async fn send(router: &Router, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
    let mut request = http::Request::builder().method(method).uri(path).header("host", "cloud.localhost:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
    (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn handlers_get_their_caller_or_the_client_hears_why_not() {
    let fixture = Fixture::new().await;
    let router = router(&fixture).await;
    let bearer = format!("Bearer {}", fixture.token("s1"));
    let get = |path: &'static str, value: Option<&str>| {
        let headers: Vec<_> = value.map(|value| ("authorization", value.to_owned())).into_iter().collect();
        let router = router.clone();
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            send(&router, Method::GET, path, &headers).await
        }
    };
    let (status, _, body) = get("/me", Some(&bearer)).await;
    assert_eq!((status, body.as_str()), (200, "ann"));
    let (status, headers, body) = get("/me", None).await;
    assert_eq!((status, headers[WWW_AUTHENTICATE].to_str().unwrap()), (401, "Bearer"));
    assert!(body.starts_with("{\"error\":\"sign in"), "{body}");
    let (status, headers, body) = get("/me", Some("Bearer nonsense")).await;
    assert_eq!((status, headers[WWW_AUTHENTICATE].to_str().unwrap()), (401, "Bearer error=\"invalid_token\""));
    assert_eq!(body, "{\"error\":\"the token is malformed\"}");
    assert_eq!(get("/me", Some("Basic YTpi")).await.0, 401);
    assert_eq!(get("/any", Some(&bearer)).await.2, "ann");
    assert_eq!(get("/any", None).await.2, "nobody");
    assert_eq!(get("/any", Some("Bearer nonsense")).await.0, 401, "no good is not nobody");

    let (status, headers, body) = get("/admin", Some(&bearer)).await;
    assert_eq!((status, headers.get(WWW_AUTHENTICATE)), (403, None));
    assert!(body.contains("only administrators"), "{body}");
    let admin = format!("Bearer {}", fixture.token("admin"));
    assert_eq!(get("/admin", Some(&admin)).await.2, ANN);
    fixture.verifier.revocations().insert(&revoked("admin"));
    let (status, _, body) = get("/admin", Some(&admin)).await;
    assert!(status == 401 && body.contains("sign in again"), "{status} {body}");
}

#[tokio::test]
async fn api_tokens_do_what_their_scopes_say_and_nothing_for_administrators() {
    let fixture = Fixture::new().await;
    let narrow = ValidateTokenResponse {
        scopes: vec![edd_proto::auth::Scope {
            resource: format!("compute.{ANN}.containers.c1"),
            actions: vec!["read".to_owned()],
        }],
        ..good()
    };
    fixture.serve([(api_token('a'), narrow)].into()).await;
    let router = router(&fixture).await;
    let bearer = format!("Bearer {}", api_token('a'));
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(send(&router, Method::GET, "/c/c1", &headers).await.2, ANN);
    for path in ["/c/c2", "/admin"] {
        let (status, headers, body) = send(&router, Method::GET, path, &headers).await;
        let challenge = headers[WWW_AUTHENTICATE].to_str().unwrap().to_owned();
        assert_eq!((status, challenge.as_str()), (403, "Bearer error=\"insufficient_scope\""), "{path} {body}");
    }
    let (_, _, body) = send(&router, Method::GET, "/c/c2", &headers).await;
    assert_eq!(body, format!("{{\"error\":\"the API token does not allow `read` on `compute.{ANN}.containers.c2`\"}}"));
    let by_session = format!("Bearer {}", fixture.token("s1"));
    assert_eq!(send(&router, Method::GET, "/c/c2", &[("authorization", &by_session)]).await.2, ANN);
}

#[test]
fn an_administrators_api_token_is_no_administrator() {
    let session = Caller::from(claims("admin"));
    assert_eq!(session.require_admin().map(|admin| admin.user().to_string()), Ok(ANN.to_owned()));
    let token = Caller { scopes: Some(Scopes::new(Vec::new()).unwrap()), ..session };
    assert_eq!(token.require_admin(), Err(Denied::AdminToken));
}

#[tokio::test]
async fn a_cookie_acts_from_the_dashboards_own_page_alone() {
    let fixture = Fixture::new().await;
    let router = router(&fixture).await;
    let cookie = format!("theme=dark; __Host-edd={}", fixture.token("s1"));
    let old = format!("token={}", fixture.token("s1"));
    for cookie in [cookie.as_str(), old.as_str()] {
        let of = |origin: &'static str| [("cookie", cookie.to_owned()), ("origin", origin.to_owned())];
        let post = |headers: [(&'static str, String); 2]| {
            let router = router.clone();
            async move {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                send(&router, Method::POST, "/me", &headers).await
            }
        };
        assert_eq!(post(of("http://cloud.localhost:8080")).await.2, "ann");
        let (status, _, body) = post(of("http://abc.compute.cloud.localhost:8080")).await;
        assert!(status == 403 && body.contains("has to come from a page of this origin"), "{status} {body}");
        assert_eq!(send(&router, Method::POST, "/me", &[("cookie", cookie)]).await.0, 403);
        assert_eq!(send(&router, Method::GET, "/me", &[("cookie", cookie)]).await.2, "ann");
        // What the gateway says of the request's origin counts.
        let told = [
            ("cookie", cookie),
            ("origin", "https://cloud.example.org"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "cloud.example.org"),
        ];
        assert_eq!(send(&router, Method::POST, "/me", &told).await.2, "ann");
    }
    let twice = format!("{old}; {old}");
    assert_eq!(send(&router, Method::GET, "/me", &[("cookie", &twice)]).await.0, 400);
}

#[tokio::test]
async fn the_query_counts_on_routes_that_say_so() {
    let fixture = Fixture::new().await;
    let router = router(&fixture).await;
    let query = format!("token={}", fixture.token("s1"));
    let get = |path: String| {
        let router = router.clone();
        async move { send(&router, Method::GET, &path, &[]).await }
    };
    assert_eq!(get(format!("/socket?a=b&{query}")).await.2, "ann");
    assert_eq!(get(format!("/share?{query}")).await.2, "true");
    assert_eq!(get("/share".to_owned()).await.2, "false");
    assert_eq!(get(format!("/me?{query}")).await.0, 401);
    assert_eq!(get(format!("/any?{query}")).await.2, "nobody");
    assert_eq!(get("/socket?token=a%20b".to_owned()).await.0, 401);
    assert_eq!(get(format!("/socket?{query}&{query}")).await.0, 400);
    assert_eq!(get("/socket".to_owned()).await.1.get(ALLOW), None);
}

#[tokio::test]
async fn what_is_away_is_no_fault_of_the_client() {
    let fixture = Fixture::new().await;
    let router = router(&fixture).await;
    fixture.source.fails(Some("connection refused at 10.0.0.9"));
    let bearer = format!("Bearer {}", fixture.token("s1"));
    let (status, headers, body) = send(&router, Method::GET, "/me", &[("authorization", &bearer)]).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (503, "2"));
    assert!(!body.contains("10.0.0.9"), "{body}");
    let api = format!("Bearer {}", api_token('a'));
    assert_eq!(send(&router, Method::GET, "/me", &[("authorization", &api)]).await.0, 503);
}
