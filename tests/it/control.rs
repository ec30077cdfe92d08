//! `edd control`: a service alone, as an operator runs it beside others.

use edd_events::database::Database;
use edd_servers::nats::Nats;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Edd, within};

#[tokio::test]
async fn a_service_without_a_broker_says_what_it_lacks() {
    for service in ["auth", "sfs", "compute"] {
        let output = Edd::control(service).run().await;
        assert_eq!((output.code, output.stdout.as_str()), (Some(78), ""), "{output:#?}");
        assert!(output.stderr.contains("NATS_URL") && output.stderr.contains("edd up"), "{output:#?}");
    }
}

#[tokio::test]
async fn a_service_tells_of_its_health_and_stops_when_told() {
    let nats = Nats::start();
    let mut auth = Edd::control("auth").env("NATS_URL", &nats.url()).start().await;
    let key = auth.ask("GET /.well-known/jwks.json", "auth", &[], &Value::Null).await;
    assert_eq!((key.status, key.json()["keys"][0]["kty"].as_str()), (200, Some("OKP")), "{}", key.text());
    let well = "[+] auth events: the bus is there";
    within("the bus", async { while !auth.admin("/readyz?verbose").await.text().contains(well) {} }).await;
    assert_eq!(auth.admin("/livez").await.status, 200);
    nats.kill9();
    within("the loss of the bus", async { while auth.admin("/readyz?verbose").await.text().contains(well) {} }).await;
    assert_eq!(auth.admin("/readyz").await.status, 200, "it serves on");
    auth.signal(Signal::TERM);
    assert_eq!(auth.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn figures_of_events_are_there_to_be_scraped() {
    let nats = Nats::start();
    let auth = Edd::control("auth").env("NATS_URL", &nats.url()).start().await;
    // The first administrator was an event.
    let published =
        |text: &str| text.contains("edd_events_published_total{event_type=\"auth.UserCreated\",service=\"auth\"} 1");
    within("the figure", async { while !published(auth.admin("/metrics").await.text()) {} }).await;
    let empty = "edd_outbox_pending{service=\"auth\"} 0";
    within("an empty outbox", async { while !auth.admin("/metrics").await.text().contains(empty) {} }).await;
}

#[tokio::test]
async fn a_database_that_is_away_or_unknown_is_named_without_its_password() {
    let nats = Nats::start();
    let control = |url: &str| Edd::control("auth").env("NATS_URL", &nats.url()).env("DATABASE_URL", url);
    for (url, code, told) in [
        ("mysql://edd:secret@db/auth", 78, "is not a database URL"),
        ("postgres://edd:secret@127.0.0.1:9/auth", 69, "127.0.0.1:9/auth"),
    ] {
        let output = control(url).run().await;
        assert_eq!(output.code, Some(code), "{output:#?}");
        assert!(output.stderr.contains(told) && !output.stderr.contains("secret"), "{output:#?}");
    }
}

/// As many as a full run has time for.
fn many() -> u64 {
    if std::env::var_os("EDD_TEST_FULL").is_some() { 1_000_000 } else { 20_000 }
}

/// Whoever reads all users, however many, costs the service a page at a time.
#[tokio::test]
async fn a_list_of_all_users_is_read_in_bounded_memory() {
    let nats = Nats::start();
    let mut auth = Edd::control("auth").env("NATS_URL", &nats.url()).env("SERVICE_API_KEY", "key").start().await;
    auth.signal(Signal::TERM);
    auth.wait_exit().await;
    let database = Database::attach_file(&auth.path("data/auth.db")).await.expect("the service's database");
    let insert = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         INSERT INTO users (id, id_bytes, username, display_name, password_hash, is_admin, version, created_at) \
         SELECT printf('%021d', i), CAST(printf('%021d', i) AS BLOB), 'user-' || i, 'User ' || i, '', 0, 1, 0 FROM n",
        many()
    );
    let insert = sqlx::query(sqlx::AssertSqlSafe(insert)).execute(database.writer());
    insert.await.expect("users");
    database.close().await;
    let auth = auth.again().start().await;
    let key = [("x-service-key", "key")];
    let page = async |after: &str| {
        let page = auth.ask(&format!("GET /api/users?limit=5000{after}"), "auth", &key, &Value::Null).await;
        assert_eq!(page.status, 200, "{}", page.text());
        page.json()
    };
    let mut users = page("").await;
    let before = auth.resident_kib();
    let (mut count, mut last) = (0, String::new());
    loop {
        for user in users["users"].as_array().expect("a list") {
            let id = user["user_id"].as_str().expect("an id").to_owned();
            assert!(id > last, "{id} after {last}");
            (count, last) = (count + 1, id);
        }
        match users["next_cursor"].as_str() {
            Some(cursor) => users = page(&format!("&after={cursor}")).await,
            None => break,
        }
    }
    // And the first administrator.
    assert_eq!(count, many() + 1);
    if count < 100_000 {
        // Of a million it takes longer than this test waits for an answer.
        let digest = auth.ask("GET /api/users/digest", "auth", &key, &Value::Null).await.json();
        assert!(digest["digest"].as_str().is_some_and(|digest| digest.starts_with(&format!("{count}:"))), "{digest}");
    }
    let grown = auth.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for {count} users");
}

/// Routes are served from the first moment; whoever else is needed is waited for.
#[tokio::test]
async fn a_gateway_starts_without_broker_and_database() {
    let routes = "routes: [{redirect: {to: 'http://x.test'}}]";
    let gateway = Edd::gateway(routes).env("NATS_URL", "nats://127.0.0.1:9");
    let mut edd = gateway.clone().env("DATABASE_URL", "postgres://edd:secret@127.0.0.1:9/gateway").start().await;
    assert_eq!(edd.get("a.test", "/").await.status, 301);
    assert_eq!(edd.admin("/readyz").await.status, 200);
    edd.wait_log("why users are not known", |line| line.text.contains("users and containers are not followed yet"))
        .await;
    edd.signal(Signal::TERM);
    assert_eq!(edd.wait_exit().await.code(), Some(0));
    assert!(!edd.log().iter().any(|line| line.text.contains("secret")));
    let mistaken = gateway.env("DATABASE_URL", "mysql://x/y").run().await;
    assert_eq!(mistaken.code, Some(78), "{mistaken:#?}");
}
