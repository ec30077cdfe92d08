//! The page that people sign in with, on the dashboard's host. Works with and without scripts.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::auth::api::{client, cookies, end_session, identify, require_same_origin, with};
use crate::auth::config::Registration;
use crate::auth::error::AuthError;
use crate::auth::model::User;
use crate::auth::service::{Attempt, NewAccount, Service, SignedIn};
use crate::error::Error;
use crate::password::Password;
use crate::request::Context;

const TEMPLATE: &str = include_str!("signin.html");
/// Longest form: three fields, each character as three.
const MAX_FORM_BYTES: usize = 8 * 1024;

/// Nothing but the template's own style and script, by their hashes.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let (_, rest) = TEMPLATE.split_once(&format!("<{tag}>")).expect("the template has one of each");
        let (content, _) = rest.split_once(&format!("</{tag}>")).expect("and closes it");
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content)))
    };
    format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
        hash("style"),
        hash("script")
    )
});

/// What the page shows.
#[derive(Clone, Copy)]
enum View<'a> {
    SignedIn(&'a User),
    SignIn,
    Register,
}

/// A page to be.
struct Page<'a> {
    view: View<'a>,
    host: &'a str,
    registration: Registration,
    /// What was typed, to be typed no second time.
    username: &'a str,
    problem: &'a str,
}

impl Page<'_> {
    fn html(&self) -> String {
        let (title, parts): (_, &[&str]) = match (self.view, self.registration) {
            (View::SignedIn(_), _) => ("Signed in", &["signed-in"]),
            (View::SignIn, Registration::Open) => ("Sign in", &["sign-in", "register-link"]),
            (View::SignIn, Registration::Closed) => ("Sign in", &["sign-in"]),
            (View::Register, _) => ("Register", &["register"]),
        };
        let (username, display_name) = match self.view {
            View::SignedIn(user) => (user.username.as_str(), user.display_name.as_str()),
            View::SignIn | View::Register => (self.username, ""),
        };
        let values = [
            ("title", title),
            ("host", self.host),
            ("problem", self.problem),
            ("username", username),
            ("display_name", display_name),
        ];
        fill(&kept(TEMPLATE, parts), &values)
    }

    fn answer(&self, status: StatusCode) -> Response {
        let headers = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, POLICY.as_str()),
            (X_FRAME_OPTIONS, "DENY"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "same-origin"),
            (CACHE_CONTROL, "no-store"),
        ];
        (status, headers, self.html()).into_response()
    }
}

/// `template` with those of its parts that are in `parts`, and what is in none.
fn kept(template: &str, parts: &[&str]) -> String {
    let mut pieces = template.split("<!-- part: ");
    let mut html = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(" -->").unwrap_or_default();
        let (part, after) = rest.split_once("<!-- end -->").unwrap_or_default();
        if parts.contains(&name) {
            html.push_str(part);
        }
        html.push_str(after);
    }
    html
}

/// `template` with its `{{names}}` replaced, once: what is in a value stays as it is.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut pieces = template.split("{{");
    let mut html = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").unwrap_or_default();
        let value = values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
        for c in value.chars() {
            match c {
                '&' => html.push_str("&amp;"),
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '"' => html.push_str("&quot;"),
                '\'' => html.push_str("&#39;"),
                c => html.push(c),
            }
        }
        html.push_str(rest);
    }
    html
}

pub(in crate::auth) fn router(service: Service) -> Router<Service> {
    Router::new()
        // Until there is more to see on the dashboard's host than who is signed in.
        .route("/", get(async || Redirect::to("/login")))
        .route("/login", get(show_sign_in).post(sign_in))
        .route("/register", get(show_register).post(register))
        .route("/logout", post(sign_out))
        .layer(from_fn_with_state(service, on_the_dashboard))
}

/// API hosts have no page, and set no cookies.
async fn on_the_dashboard(State(service): State<Service>, context: Context, request: Request, next: Next) -> Response {
    let is_dashboard = context.origin.is_some_and(|origin| origin.host() == service.config().dashboard_host);
    if is_dashboard { next.run(request).await } else { StatusCode::NOT_FOUND.into_response() }
}

fn page<'a>(service: &'a Service, view: View<'a>) -> Page<'a> {
    let config = service.config();
    Page { view, host: &config.dashboard_host, registration: config.registration, username: "", problem: "" }
}

/// Who is signed in, with the cookies to set if their access token had to be refreshed for that.
async fn signed_in(service: &Service, request: Request) -> Result<Option<(User, Option<SignedIn>)>, Error> {
    let (mut parts, _) = request.into_parts();
    let context = Context::from_request_parts(&mut parts, &()).await?;
    match identify(&parts, &context, service).await {
        Ok(Some(identity)) => return Ok(Some((identity.user, None))),
        Err(error) if error.status() != StatusCode::UNAUTHORIZED => return Err(error),
        Ok(None) | Err(_) => {}
    }
    let Some(token) = cookies::refresh_token(&parts.headers)? else { return Ok(None) };
    match service.refresh(&token, &context.cause()).await {
        Ok(refreshed) => Ok(Some((refreshed.user.clone(), Some(refreshed)))),
        Err(AuthError::Unauthenticated(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn show_sign_in(State(service): State<Service>, request: Request) -> Result<Response, Error> {
    Ok(match signed_in(&service, request).await? {
        Some((user, refreshed)) => {
            let kept = refreshed.map(|refreshed| cookies::keep(&refreshed, service.now())).unwrap_or_default();
            with(kept, page(&service, View::SignedIn(&user)).answer(StatusCode::OK))
        }
        None => page(&service, View::SignIn).answer(StatusCode::OK),
    })
}

async fn show_register(State(service): State<Service>) -> Response {
    match service.config().registration {
        Registration::Open => page(&service, View::Register).answer(StatusCode::OK),
        Registration::Closed => Redirect::to("/login").into_response(),
    }
}

#[derive(Default, Deserialize)]
struct Form {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    display_name: String,
}

impl Form {
    /// Reads a form that our own page sent.
    async fn read(request: Request, context: &Context) -> Result<(Self, HeaderMap), Error> {
        let (parts, body) = request.into_parts();
        require_same_origin(&parts.headers, context)?;
        let is_form = parts.headers.get(CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
        });
        if !is_form {
            let message = "this is for the page's own form: programs use /api/login";
            return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let body: Bytes =
            axum::body::to_bytes(body, MAX_FORM_BYTES).await.map_err(|_| Error::too_large(MAX_FORM_BYTES))?;
        let form = serde_urlencoded::from_bytes(&body);
        let form = form.map_err(|error| Error::bad_request("the form cannot be read").with_cause(error))?;
        Ok((form, parts.headers))
    }
}

/// After a form: to the page that shows who is signed in, or the form again with what is wrong.
fn after(
    service: &Service,
    view: View<'_>,
    username: &str,
    done: Result<SignedIn, AuthError>,
) -> Result<Response, Error> {
    let error = match done {
        Ok(signed_in) => return Ok(with(cookies::keep(&signed_in, service.now()), Redirect::to("/login"))),
        Err(error) => Error::from(error),
    };
    if error.status().is_server_error() && error.status() != StatusCode::SERVICE_UNAVAILABLE {
        return Err(error);
    }
    let (status, problem) = (error.status(), error.message().to_owned());
    let shown = Page { username, problem: &problem, ..page(service, view) }.answer(status);
    let mut answer = shown;
    // Such as Retry-After.
    for (name, value) in error.into_response().headers() {
        if !answer.headers().contains_key(name) && name != http::header::CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    Ok(answer)
}

async fn sign_in(State(service): State<Service>, context: Context, request: Request) -> Result<Response, Error> {
    let (form, headers) = Form::read(request, &context).await?;
    let password = Password::attempt(form.password);
    let attempt = Attempt { username: form.username.clone(), password, wants_refresh: true };
    let done = service.login(attempt, &client(&context, &headers), &context.cause()).await;
    after(&service, View::SignIn, &form.username, done)
}

async fn register(State(service): State<Service>, context: Context, request: Request) -> Result<Response, Error> {
    let (form, headers) = Form::read(request, &context).await?;
    let client = client(&context, &headers);
    let done = match NewAccount::parse(&form.username, &form.display_name, &form.password) {
        Ok(account) => service.register(account, true, &client, &context.cause()).await,
        Err(error) => Err(error),
    };
    after(&service, View::Register, &form.username, done)
}

async fn sign_out(State(service): State<Service>, context: Context, request: Request) -> Result<Response, Error> {
    let (parts, _) = request.into_parts();
    require_same_origin(&parts.headers, &context)?;
    end_session(&service, &parts, &context).await?;
    Ok(with(cookies::forget(), Redirect::to("/login")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_stays_text() {
        let user = User {
            number: 1,
            id: "V1StGXR8_Z5jdHi6B-myT".parse().expect("an id"),
            username: "ann".to_owned(),
            display_name: "<script>{{username}}\"&'".to_owned(),
            is_admin: false,
            version: 1,
            created_at: 0,
            deleted_at: None,
        };
        let page = Page {
            view: View::SignedIn(&user),
            host: "cloud.localhost",
            registration: Registration::Open,
            username: "",
            problem: "",
        };
        let html = page.html();
        assert!(html.contains("<strong>&lt;script&gt;{{username}}&quot;&amp;&#39;</strong> (ann)"), "{html}");
        assert!(!html.contains("name=\"password\""), "no form but the one to sign out");
    }

    #[test]
    fn each_view_has_its_form_and_nothing_of_the_template() {
        let html = |view, registration| {
            let page = Page { view, host: "h", registration, username: "\"><i>", problem: "wrong" };
            page.html()
        };
        let views = [
            (View::SignIn, Registration::Open, "/login", true),
            (View::SignIn, Registration::Closed, "/login", false),
            (View::Register, Registration::Open, "/register", false),
        ];
        for (view, registration, action, links_to_register) in views {
            let html = html(view, registration);
            assert_eq!(html.matches("<form").count(), 1);
            assert!(html.contains(&format!("action=\"{action}\"")), "{html}");
            assert_eq!(html.contains("href=\"/register\""), links_to_register);
            assert!(html.contains("value=\"&quot;&gt;&lt;i&gt;\"") && html.contains(">wrong</p>"));
            for left in ["{{", "}}", "<!-- ", "http://", "https://", "src="] {
                assert!(!html.contains(left), "{left} in {html}");
            }
        }
    }
}
