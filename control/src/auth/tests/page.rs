//! The page to sign in with, as a browser without scripts uses it. With scripts it is tried in a real one.

use edd_events::database::Kind;
use serde_json::json;

use super::fixture::{ADMIN_PASSWORD, Answer, Call, DASHBOARD, Fixture, PASSWORD, config, on_each_database};
use crate::auth::config::{AuthConfig, Registration};

const FORM: &str = "application/x-www-form-urlencoded";

on_each_database![
    a_form_signs_in_and_out,
    a_form_registers,
    what_is_wrong_is_said_beside_the_form,
    forms_of_other_origins_are_refused,
    api_hosts_have_no_page,
    an_expired_access_token_is_refreshed_by_the_page,
    a_closed_registration_has_no_form,
];

fn page<'a>(fixture: &'a Fixture, path: &str, cookies: &str) -> Call<'a> {
    fixture.get(path).header("host", DASHBOARD).header("cookie", cookies)
}

async fn submit(fixture: &Fixture, path: &str, form: &str) -> Answer {
    fixture.post(path).body(FORM, form).on_dashboard().send().await
}

/// A page with all that protects it.
#[track_caller]
fn html(answer: Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text);
    let header = |name| answer.headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("cache-control"), "no-store");
    let policy = header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    answer.text
}

fn redirected(answer: &Answer) {
    assert_eq!((answer.status, answer.headers["location"].to_str().expect("text")), (303, "/login"));
}

async fn a_form_signs_in_and_out(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let form = html(page(&fixture, "/login", "").send().await, 200);
    assert!(form.contains("name=\"username\"") && form.contains("href=\"/register\""));
    let answer =
        submit(&fixture, "/login", &format!("username=admin&password={}", ADMIN_PASSWORD.replace(' ', "+"))).await;
    redirected(&answer);
    let cookies = answer.cookies();
    let shown = html(page(&fixture, "/login", &cookies).send().await, 200);
    assert!(shown.contains("Signed in as <strong>admin</strong> (admin)") && shown.contains("action=\"/logout\""));
    let answer = fixture.post("/logout").header("cookie", &cookies).on_dashboard().send().await;
    redirected(&answer);
    assert!(answer.cookie("__Host-edd").expect("a cookie").starts_with("; Path=/; Max-Age=0;"));
    let form = html(page(&fixture, "/login", &cookies).send().await, 200);
    assert!(form.contains("name=\"password\""));
}

async fn a_form_registers(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    assert!(html(page(&fixture, "/register", "").send().await, 200).contains("action=\"/register\""));
    let answer =
        submit(&fixture, "/register", &format!("username=ann&display_name=%3Cb%3E+%C3%96&password={PASSWORD}")).await;
    redirected(&answer);
    let shown = html(page(&fixture, "/login", &answer.cookies()).send().await, 200);
    assert!(shown.contains("<strong>&lt;b&gt; Ö</strong> (ann)"), "{shown}");
}

async fn what_is_wrong_is_said_beside_the_form(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let wrong = submit(&fixture, "/login", "username=%22%3E%3Cscript%3E&password=x").await;
    assert!(wrong.headers.get("set-cookie").is_none());
    let shown = html(wrong, 401);
    assert!(shown.contains(">wrong username or password</p>"));
    assert!(shown.contains("value=\"&quot;&gt;&lt;script&gt;\"") && !shown.contains("\"><script>"));
    let short = html(submit(&fixture, "/register", "username=ann&password=x").await, 400);
    assert!(short.contains(">password: 8 to 1024 bytes</p>"));
    let taken = html(submit(&fixture, "/register", &format!("username=admin&password={PASSWORD}")).await, 409);
    assert!(taken.contains(">this username is taken</p>"));
    for _ in 0..9 {
        submit(&fixture, "/login", "username=admin&password=x").await;
    }
    submit(&fixture, "/login", "username=admin&password=x").await;
    let limited = submit(&fixture, "/login", "username=admin&password=x").await;
    assert_eq!(limited.headers["retry-after"], "900");
    assert!(html(limited, 429).contains(">too many attempts"));
}

async fn forms_of_other_origins_are_refused(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let form = format!("username=admin&password={}", ADMIN_PASSWORD.replace(' ', "+"));
    for origin in ["http://evil.compute.cloud.localhost:8080", "http://cloud.localhost:8001", "null"] {
        for path in ["/login", "/register", "/logout"] {
            let answer = fixture.post(path).body(FORM, &form).header("host", DASHBOARD).header("origin", origin);
            let answer = answer.send().await;
            assert!(answer.headers.get("set-cookie").is_none());
            answer.refused(403);
        }
    }
    let json = json!({"username": "admin", "password": ADMIN_PASSWORD});
    fixture.post("/login").json(&json).on_dashboard().send().await.refused(415);
    submit(&fixture, "/login", &"x".repeat(10_000)).await.refused(413);
    assert_eq!(submit(&fixture, "/login", "username=%ff&password=%00").await.status, 401);
    assert_eq!(fixture.count("sessions").await, 0);
}

async fn api_hosts_have_no_page(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for host in ["auth.cloud.localhost:8080", "127.0.0.1:8081", "evil.compute.cloud.localhost"] {
        for path in ["/login", "/register"] {
            fixture.get(path).header("host", host).send().await.refused(404);
        }
        let origin = format!("http://{host}");
        fixture
            .post("/login")
            .body(FORM, "username=a")
            .header("host", host)
            .header("origin", &origin)
            .send()
            .await
            .refused(404);
    }
}

async fn an_expired_access_token_is_refreshed_by_the_page(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let credentials = json!({"username": "admin", "password": ADMIN_PASSWORD, "refresh": true});
    let cookies = fixture.post("/api/login").json(&credentials).on_dashboard().send().await.cookies();
    fixture.clock.advance(std::time::Duration::from_secs(3600));
    let answer = page(&fixture, "/login", &cookies).send().await;
    let next = answer.cookies();
    assert!(html(answer, 200).contains("Signed in as"));
    fixture.get("/api/session").header("host", DASHBOARD).header("cookie", &next).send().await.ok();
}

async fn a_closed_registration_has_no_form(kind: Kind) {
    let closed = AuthConfig { registration: Registration::Closed, ..config() };
    let fixture = Fixture::with(kind, closed).await;
    assert!(!html(page(&fixture, "/login", "").send().await, 200).contains("/register"));
    redirected(&page(&fixture, "/register", "").send().await);
    let refused = submit(&fixture, "/register", &format!("username=ann&password={PASSWORD}")).await;
    assert!(html(refused, 403).contains("ask an administrator"));
}
