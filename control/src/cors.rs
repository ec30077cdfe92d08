//! Which pages may call an API on its own host: the dashboard's, and no other (Fetch, 3.2).
//!
//! Tenants' pages are on sibling subdomains of the dashboard, and on other ports of its host there may be a tenant's
//! raw TCP service. So the host, the scheme and the port of the origin have to be right.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::error::Error;
use crate::origin::Origin;
use crate::request::Context;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// What a page may read of an answer besides its type and length: our own, those of ranges, and those of tus.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Request-ID, X-Next-Cursor, WWW-Authenticate, Retry-After, Location, ETag, Accept-Ranges, Content-Range, \
     Content-Disposition, Repr-Digest, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, \
     Tus-Checksum-Algorithm, Upload-Offset, Upload-Length, Upload-Metadata, Upload-Expires",
);
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");
const VARIES: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Where the dashboard is.
#[derive(Clone, Debug)]
pub struct Dashboard {
    host: Box<str>,
    origins: Arc<[Origin]>,
}

impl Dashboard {
    /// The dashboard on `host`, the base domain. It is let in from the scheme and the port by which the API itself is
    /// called, and from those of `origins`: where the gateway listens, as far as that is known.
    pub fn new(host: &str, origins: impl IntoIterator<Item = Origin>) -> Self {
        Self { host: host.to_ascii_lowercase().into(), origins: origins.into_iter().collect() }
    }

    /// Whether `page` is the dashboard, for an API that was called at `own`.
    fn is(&self, page: &Origin, own: Option<&Origin>) -> bool {
        let beside = |own: &Origin| own.scheme() == page.scheme() && own.port() == page.port();
        page.host() == &*self.host && (self.origins.contains(page) || own.is_some_and(beside))
    }
}

/// Lets pages of `dashboard` call `router`, which [`crate::request::tracked`] has to be put around.
pub fn open_to(dashboard: Dashboard, router: Router) -> Router {
    router.layer(from_fn_with_state(dashboard, answer))
}

async fn answer(State(dashboard): State<Dashboard>, context: Context, request: Request, next: Next) -> Response {
    let page = dashboards(&dashboard, request.headers(), context.origin.as_ref());
    let asked = request.headers().contains_key(ORIGIN) && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (asked && request.method() == Method::OPTIONS, &page) {
        (true, Some(_)) => preflight(request.headers()),
        (true, None) => {
            Error::forbidden("only pages of the dashboard may call this API from a browser").into_response()
        }
        (false, _) => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(VARY, VARIES);
    if let Some(page) = page {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
        // Old clients ask for it with every request, although their token is in a header.
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

/// The request's `Origin`, if that is the dashboard's.
fn dashboards(dashboard: &Dashboard, headers: &HeaderMap, own: Option<&Origin>) -> Option<HeaderValue> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(value), None) = (origins.next(), origins.next()) else { return None };
    let page: Origin = value.to_str().ok()?.parse().ok()?;
    dashboard.is(&page, own).then(|| value.clone())
}

/// The dashboard is ours: it may send every header that it asks for.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
    for value in asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.append(ACCESS_CONTROL_ALLOW_HEADERS, value.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::Body;
    use axum::extract::connect_info::MockConnectInfo;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;
    use crate::request::{self, TrustedProxies};

    const DASHBOARD: &str = "http://cloud.localhost:8080";

    async fn send(method: Method, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
        let listed = ["https://cloud.localhost:8443".parse().unwrap()];
        let refuse = || async { Err::<(), _>(Error::conflict("exists")) };
        let router = Router::new().route("/ok", post(|| async {})).route("/refused", post(refuse));
        let router = open_to(Dashboard::new("Cloud.localhost", listed), router);
        let router = request::tracked(router, TrustedProxies::loopback());
        let router = router.layer(MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
        let path = headers.iter().find(|(name, _)| *name == "path").map_or("/ok", |(_, path)| path);
        let mut request = http::Request::builder().method(method).uri(path).header("host", "auth.cloud.localhost:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (answer.status().as_u16(), answer.headers().clone())
    }

    async fn preflight_from(origin: &str) -> (u16, HeaderMap) {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "authorization,x-file-size"),
        ];
        send(Method::OPTIONS, &headers).await
    }

    #[tokio::test]
    async fn the_dashboards_preflights_are_answered() {
        for origin in [DASHBOARD, "https://cloud.localhost:8443"] {
            let (status, headers) = preflight_from(origin).await;
            assert_eq!((status, &headers[ACCESS_CONTROL_ALLOW_ORIGIN]), (204, &origin.parse::<HeaderValue>().unwrap()));
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "authorization,x-file-size");
            assert!(headers[ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap().contains("PUT"));
            assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "600");
            assert!(headers[VARY].to_str().unwrap().starts_with("Origin,"));
        }
    }

    #[tokio::test]
    async fn nobody_elses_are() {
        for origin in [
            "http://abc.compute.cloud.localhost:8080",
            "http://auth.cloud.localhost:8080",
            "http://cloud.localhost",
            "http://cloud.localhost:8001",
            "https://cloud.localhost:8080",
            "http://cloud.localhost:8443",
            "http://cloud.localhost.evil.example:8080",
            "http://evilcloud.localhost:8080",
            "null",
            "*",
            "",
        ] {
            let (status, headers) = preflight_from(origin).await;
            assert_eq!((status, headers.get(ACCESS_CONTROL_ALLOW_ORIGIN)), (403, None), "{origin}");
            let (status, headers) = send(Method::POST, &[("origin", origin)]).await;
            assert_eq!((status, headers.get(ACCESS_CONTROL_ALLOW_ORIGIN)), (200, None), "{origin}");
            assert!(headers.contains_key(VARY), "a cache must not give it to the dashboard");
        }
        let (_, headers) = send(Method::POST, &[("origin", DASHBOARD), ("origin", DASHBOARD)]).await;
        assert_eq!(headers.get(ACCESS_CONTROL_ALLOW_ORIGIN), None);
    }

    #[tokio::test]
    async fn the_dashboard_reads_answers_and_errors() {
        for (path, expected) in [("/ok", 200), ("/refused", 409), ("/nowhere", 404)] {
            let (status, headers) = send(Method::POST, &[("origin", DASHBOARD), ("path", path)]).await;
            assert_eq!(
                (status, &headers[ACCESS_CONTROL_ALLOW_ORIGIN]),
                (expected, &DASHBOARD.parse::<HeaderValue>().unwrap())
            );
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
            assert!(headers[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().contains("X-Request-ID"));
        }
        let (status, headers) = send(Method::OPTIONS, &[("origin", DASHBOARD)]).await;
        assert_eq!((status, headers.get(ACCESS_CONTROL_MAX_AGE)), (405, None), "OPTIONS that is no preflight");
        assert_eq!(send(Method::POST, &[]).await.1.get(ACCESS_CONTROL_ALLOW_ORIGIN), None);
    }

    #[tokio::test]
    async fn the_port_that_the_gateway_tells_is_the_real_one() {
        let told = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "auth.cloud.localhost"),
            ("origin", "https://cloud.localhost"),
        ];
        assert!(send(Method::POST, &told).await.1.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        let told = [told[0], told[1], ("origin", DASHBOARD)];
        assert!(!send(Method::POST, &told).await.1.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}
