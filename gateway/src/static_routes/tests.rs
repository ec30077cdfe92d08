//! Routes by API on both databases: taken in, replaced, served, told, taken out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use edd_events::clock::ManualClock;
use edd_events::database::{Database, Kind};
use edd_events::outbox;
use edd_events::publisher::Publisher as Events;
use edd_proto::{AnyEvent, Encoding};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::certs::{CertStore, CertsConfig};
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::route::{Action, Authority, HostPattern, PathPrefix, Protocol, Route, Source, Target};
use crate::router::Router;
use crate::scratch::{Scratch, on_each_database};
use crate::upstream::Upstreams;

on_each_database! {
    a_route_is_kept_served_and_told_of,
    what_the_file_would_refuse_is_refused,
    every_replica_and_every_start_serves_what_is_kept,
}

/// A replica: its table, and its handle on the routes.
struct Replica {
    router: Router,
    table: Publisher,
    routes: StaticRoutes,
}

impl Replica {
    fn on(database: &Database) -> Self {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let upstreams = Upstreams::new(HashMap::new(), Arc::clone(&metrics));
        let certs = CertStore::open(CertsConfig::default()).expect("certificates");
        let router = Router::default();
        let table = Publisher::new(Vec::new(), router.clone(), upstreams, metrics, certs, Duration::ZERO);
        let clock = Arc::new(ManualClock::at(1_000_000));
        let events = Events::new("gateway-service", Encoding::Protobuf, clock.clone());
        let routes = StaticRoutes::new(database.clone(), events, clock, table.clone());
        Self { router, table, routes }
    }

    /// Where requests for a host go.
    fn action(&self, host: &str) -> Option<String> {
        self.router.snapshot().table.match_http(host, "/").map(|live| live.route.describe_action())
    }

    async fn until(&self, host: &str, action: Option<&str>) {
        let mut changed = self.router.changed();
        let seen = changed.wait_for(|_| self.action(host).as_deref() == action);
        drop(tokio::time::timeout(Duration::from_secs(30), seen).await.expect("in time").expect("a router"));
    }
}

async fn events(database: &Database) -> Vec<String> {
    let rows = outbox::pending(database, 1000).await.expect("rows");
    let told =
        |row: &outbox::Pending| match AnyEvent::decode(&row.message.subject, Encoding::Protobuf, &row.message.payload)
            .expect("an event")
        {
            AnyEvent::RouteRegistered(it) => format!("+{} {}{} {}", it.route_id, it.host, it.path_prefix, it.target),
            AnyEvent::RouteUnregistered(it) => format!("-{} {}{}", it.route_id, it.host, it.path_prefix),
            other => panic!("not of a route: {other:?}"),
        };
    rows.iter().map(told).collect()
}

async fn a_route_is_kept_served_and_told_of(kind: Kind) {
    let scratch = Scratch::new(kind);
    let database = scratch.open(&[STEP]).await;
    let replica = Replica::on(&database);
    let added = replica.routes.add(&json!({ "host": "A.example", "target": "10.0.0.1:80" })).await.expect("a route");
    assert_eq!((added.host.as_str(), added.path.as_str(), added.action.as_str()), ("a.example", "/", "10.0.0.1:80"));
    assert_eq!(replica.action("a.example").as_deref(), Some("10.0.0.1:80"));
    let changed = json!({ "host": "a.example", "path": "/", "target": "https://10.0.0.2:443", "strip_prefix": true });
    let changed = replica.routes.add(&changed).await.expect("a route");
    assert_eq!(changed.route_id, added.route_id, "in the place of the one before");
    assert_eq!(replica.action("a.example").as_deref(), Some("https://10.0.0.2:443"));

    // routes.yaml wins, and what it hides is there when it goes.
    let target = Target { authority: Authority::parse("10.0.0.3:80").expect("a target"), weight: 1 };
    let action = Action::Proxy { targets: vec![target], protocol: Protocol::H1 };
    let (host, root) = (HostPattern::parse("a.example").expect("a host"), PathPrefix::parse("/").expect("a path"));
    let of_file = vec![Route::new(host, root, action, Source::File)];
    replica.table.publish(Source::File, of_file).await.expect("a revision");
    assert_eq!(replica.action("a.example").as_deref(), Some("10.0.0.3:80"));
    replica.table.publish(Source::File, Vec::new()).await.expect("a revision");
    assert_eq!(replica.action("a.example").as_deref(), Some("https://10.0.0.2:443"));

    replica.routes.remove("a.example", "/").await.expect("it is there");
    assert_eq!(replica.action("a.example"), None);
    let again = replica.routes.remove("a.example", "/").await;
    assert!(matches!(again, Err(RouteApiError::Unknown { .. })), "{again:?}");
    let id = added.route_id;
    let expected = [
        format!("+{id} a.example/ 10.0.0.1:80"),
        format!("+{id} a.example/ https://10.0.0.2:443"),
        format!("-{id} a.example/"),
    ];
    assert_eq!(events(&database).await, expected);
}

async fn what_the_file_would_refuse_is_refused(kind: Kind) {
    let scratch = Scratch::new(kind);
    let database = scratch.open(&[STEP]).await;
    let replica = Replica::on(&database);
    for (form, why) in [
        (json!({}), "target"),
        (json!([]), "mapping"),
        (json!("a.example"), "mapping"),
        (json!({ "host": "a b", "target": "x:80" }), "host name"),
        (json!({ "host": "a.example", "target": "x" }), "port"),
        (json!({ "host": "a.example", "target": "x:80", "pth": "/" }), "path"),
        (json!({ "host": "a.example", "path": "x", "target": "x:80" }), "begin with"),
        (json!({ "target": "https://x:443", "tls": { "ca_file": "/nowhere/ca.pem" } }), "/nowhere/ca.pem"),
    ] {
        match replica.routes.add(&form).await {
            Err(RouteApiError::Invalid(told)) => assert!(told.contains(why), "{form}: {told}"),
            other => panic!("{form}: {other:?}"),
        }
    }
    let named = replica.routes.remove("a b", "/").await;
    assert!(matches!(named, Err(RouteApiError::Invalid(_))), "{named:?}");
    assert_eq!(events(&database).await, [""; 0]);
    assert_eq!(store::all(&database, 10).await.expect("rows"), []);
}

async fn every_replica_and_every_start_serves_what_is_kept(kind: Kind) {
    let scratch = Scratch::new(kind);
    let database = scratch.open(&[STEP]).await;
    let (one, stop) = (Replica::on(&database), CancellationToken::new());
    one.routes.add(&json!({ "host": "a.example", "target": "10.0.0.1:80" })).await.expect("a route");
    let other = Replica::on(&database);
    let running = tokio::spawn(other.routes.clone().run(stop.clone()));
    other.until("a.example", Some("10.0.0.1:80")).await;
    one.routes.add(&json!({ "host": "b.example", "target": "10.0.0.2:80" })).await.expect("a route");
    other.until("b.example", Some("10.0.0.2:80")).await;
    one.routes.remove("a.example", "/").await.expect("it is there");
    other.until("a.example", None).await;
    one.routes.remove("b.example", "/").await.expect("it is there");
    other.until("b.example", None).await;
    stop.cancel();
    running.await.expect("it ends");
}
