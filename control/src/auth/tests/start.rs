//! The first start, and what runs beside the requests.

use std::time::Duration;

use edd_events::database::Kind;
use edd_proto::AnyEvent;
use tokio_util::sync::CancellationToken;

use super::fixture::{ADMIN_PASSWORD, Fixture, config, on_each_database};
use crate::auth::config::{AuthConfig, FirstAdmin};

on_each_database![
    the_first_start_alone_makes_an_administrator,
    two_first_starts_make_one_administrator,
    a_made_up_password_is_told_once,
    upkeep_removes_what_is_over_and_stops_when_told,
];

async fn the_first_start_alone_makes_an_administrator(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let events = fixture.events().await;
    let [(_, AnyEvent::UserCreated(created))] = &events[..] else { panic!("{events:?}") };
    assert_eq!(created.username, "admin");
    let token = fixture.admin().await;
    let session = fixture.get("/api/session").token(&token).send().await.ok();
    assert_eq!(session["is_admin"], serde_json::json!(true));
    let another = FirstAdmin {
        username: "root".parse().expect("a name"),
        password: Some("another password".parse().expect("a password")),
    };
    let restarted = fixture.restarted(AuthConfig { first_admin: another, ..config() }).await;
    restarted.login("admin", ADMIN_PASSWORD).await;
    assert_eq!(restarted.try_login("root", "another password").await.status, 401);
    assert_eq!(restarted.count("users").await, 1);
}

async fn two_first_starts_make_one_administrator(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for table in ["first_start", "sessions", "users"] {
        let statement = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
        sqlx::query(statement).execute(fixture.database.writer()).await.expect("a deletion");
    }
    let (one, other) = tokio::join!(fixture.replica(), fixture.replica());
    assert_eq!(one.count("users").await, 1);
    assert!(one.first_password.is_none() && other.first_password.is_none(), "the password was not made up");
    fixture.admin().await;
}

async fn a_made_up_password_is_told_once(kind: Kind) {
    let made_up = AuthConfig {
        first_admin: FirstAdmin { username: "boss".parse().expect("a name"), password: None },
        ..config()
    };
    let fixture = Fixture::with(kind, made_up).await;
    assert!(fixture.first_password.as_ref().is_some_and(|first| !format!("{first:?}").contains(&first.password)));
    let first = fixture.first_password.clone().expect("a password");
    assert_eq!(first.username.as_str(), "boss");
    fixture.login("boss", &first.password).await;
    assert!(fixture.replica().await.first_password.is_none());
}

async fn upkeep_removes_what_is_over_and_stops_when_told(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.admin().await;
    fixture.clock.advance(Duration::from_secs(25 * 3600));
    let stop = CancellationToken::new();
    let running = tokio::spawn(fixture.auth.clone().run(stop.clone()));
    let removed = async { while fixture.count("sessions").await > 0 {} };
    tokio::time::timeout(Duration::from_secs(20), removed).await.expect("the session is removed");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("an end").expect("no panic");
}
