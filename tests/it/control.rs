//! `edd control`: a service alone, as an operator runs it beside others.

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
