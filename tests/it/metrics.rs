//! `/metrics`: what Prometheus is told, in its own format, and that nobody outside can make it more.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::tls::Client;
use crate::harness::{Cases, Edd, H2Client, Metrics, RawUpstream, Upstream};

/// Checks a scrape as `promtool check metrics` does.
fn check_exposition(text: &str) {
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("a sample before its HELP: {line}"));
        let (family, help) = help.split_once(' ').expect("a text behind the name");
        assert!(family.starts_with("edd_") && !help.is_empty(), "{line}");
        assert!(families.insert(family), "{family} is there twice");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} ")));
        let kind = kind.unwrap_or_else(|| panic!("no TYPE of {family}"));
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{family} {kind}");
        assert_eq!(family.ends_with("_total"), kind == "counter", "{family} {kind}");
        let before = series.len();
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (id, value) = sample.rsplit_once(' ').expect("a value");
            assert!(series.insert(id), "{id} is there twice");
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{e} in {sample}"));
            assert!(kind != "counter" || value >= 0.0, "{sample}");
            let (name, labels) = id.split_once('{').unwrap_or((id, ""));
            match name.strip_prefix(family) {
                Some("") if kind != "histogram" => {}
                Some("_bucket") if kind == "histogram" => {
                    let (labels, bound) = labels.rsplit_once("le=\"").expect("buckets have bounds");
                    let bound = bound.trim_end_matches("\"}").replace("+Inf", "inf").parse().expect("a bound");
                    buckets
                        .entry(format!("{family}{{{}", labels.trim_end_matches(',')))
                        .or_default()
                        .push((bound, value));
                }
                Some("_count") if kind == "histogram" => {
                    counts.insert(format!("{family}{{{}", labels.trim_end_matches('}')), value);
                }
                Some("_sum") if kind == "histogram" => {}
                _ => panic!("{sample} under {family}, a {kind}"),
            }
        }
        assert!(series.len() > before, "{family} has no series");
    }
    for (id, buckets) in &buckets {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{id}: {buckets:?}");
        assert_eq!(buckets.last().map(|last| (last.0, Some(&last.1))), Some((f64::INFINITY, counts.get(id))), "{id}");
    }
    assert_eq!(buckets.len(), counts.len());
}

#[tokio::test]
async fn every_metric_is_there_in_due_form() {
    let upstream = Upstream::start().await;
    let (_held, refusing) = RawUpstream::refusing();
    let routes = format!(
        "routes: [{{host: '*.localhost', target: '{}'}}, {{host: refused.test, target: '{refusing}'}}]",
        upstream.address
    );
    let edd = Edd::gateway(routes).start().await;
    // From before the first request on.
    check_exposition(edd.admin("/metrics").await.text());
    assert_eq!(edd.get("refused.test", "/x").await.status, 502);
    let client = Client::trusting(&edd.local_authority()).alpn(&["h2"]);
    let (connection, _) = client.connect(edd.https, "a.localhost").await.expect("a handshake");
    let h2 = H2Client::over(connection).await;
    assert_eq!(h2.get("https://a.localhost/x").await.status, 200);
    let count = [("listener", "https"), ("route", "*.localhost/"), ("method", "GET"), ("code", "200")];
    edd.wait_metrics("the request", |m| m.value("edd_http_requests_total", &count) == Some(1.0)).await;
    let page = edd.admin("/metrics").await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4");
    check_exposition(page.text());
    let metrics = edd.metrics().await;
    let known = [
        ("edd_accept_errors_total", &[][..]),
        ("edd_access_log_dropped_total", &[]),
        ("edd_build_info", &["version"]),
        ("edd_config_reloads_total", &["result"]),
        ("edd_config_last_reload_successful", &[]),
        ("edd_routes", &["source"]),
        ("edd_http_requests_total", &["code", "listener", "method", "route"]),
        ("edd_http_request_duration_seconds_count", &["listener", "route"]),
        ("edd_http_upstream_duration_seconds_count", &["route"]),
        ("edd_http_requests_in_flight", &["listener"]),
        ("edd_http_errors_total", &["reason", "route"]),
        ("edd_upstream_up", &["upstream"]),
        ("edd_connections_open", &["listener", "protocol"]),
        ("edd_tls_handshakes_total", &["result", "version"]),
        ("edd_tls_certificate_not_after_seconds", &["name"]),
        ("edd_tls_certificate_reloads_total", &["result"]),
        ("edd_process_start_time_seconds", &[]),
    ];
    for (name, labels) in known {
        assert_eq!(metrics.label_names(name), Some(labels.to_vec()), "{name}");
    }
    let others = metrics.names().into_iter().filter(|name| !name.ends_with("_bucket") && !name.ends_with("_sum"));
    assert!(others.eq(known.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>()), "{:#?}", metrics.names());
    for (name, labels, value) in [
        ("edd_http_request_duration_seconds_count", &[("route", "*.localhost/"), ("listener", "https")][..], 1.0),
        ("edd_http_upstream_duration_seconds_count", &[("route", "*.localhost/")], 1.0),
        ("edd_http_errors_total", &[("route", "refused.test/"), ("reason", "upstream_refused")], 1.0),
        ("edd_http_requests_total", &[("route", "refused.test/"), ("code", "502"), ("listener", "http")], 1.0),
        ("edd_connections_open", &[("listener", "https"), ("protocol", "h2")], 1.0),
        ("edd_http_requests_in_flight", &[], 0.0),
        ("edd_routes", &[("source", "file")], 2.0),
    ] {
        assert_eq!(metrics.value(name, labels), Some(value), "{name} {labels:?}");
    }
    // Without a single certificate too.
    let edd = Edd::gateway("routes: []").env("EDD_LOCAL_CA", "false").start().await;
    check_exposition(edd.admin("/metrics").await.text());
}

/// While a request waits for its answer, and until its connection closes.
#[tokio::test]
async fn gauges_go_up_and_down() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let gauges = |flying: f64, open: f64| {
        edd.wait_metrics("the gauges", move |metrics| {
            metrics.value("edd_http_requests_in_flight", &[("listener", "http")]) == Some(flying)
                && metrics.value("edd_connections_open", &[("listener", "http"), ("protocol", "h1")]) == Some(open)
        })
    };
    let mut clients = Vec::new();
    for number in 1..=3 {
        let mut client = edd.connect().await;
        client.send("GET /gate/all HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        clients.push(client);
        gauges(f64::from(number), f64::from(number)).await;
    }
    upstream.open("all");
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    gauges(0.0, 3.0).await;
    drop(clients);
    gauges(0.0, 0.0).await;
}

/// The names and labels of everything that is told.
async fn series(edd: &Edd) -> BTreeSet<String> {
    let page = edd.admin("/metrics").await;
    let samples = page.text().lines().filter_map(|line| line.rsplit_once(' ').filter(|_| !line.starts_with('#')));
    samples.map(|(id, _)| id.to_owned()).collect()
}

/// A number like no other, the same in every run.
fn hash(number: u64) -> u64 {
    number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// Ten thousand hosts, paths and names in handshakes, and two thousand methods: clients choose them all.
#[tokio::test]
async fn strangers_add_no_series() {
    let edd = Edd::gateway("routes: [{host: '*.wild.test', redirect: {to: 'https://a.test'}}]")
        .env("EDD_ACCESS_LOG", "off")
        .start()
        .await;
    let client = Client::trusting(&edd.local_authority());
    let round = async |names: std::ops::Range<u64>| {
        let mut clear = edd.connect().await;
        for number in names.clone().step_by(50) {
            let batch: Vec<u64> = (number..(number + 50).min(names.end)).collect();
            // Every second one meets a route, every fifth has a method of its own.
            let host = |n: u64| format!("{:x}.{}test", hash(n), if n.is_multiple_of(2) { "wild." } else { "" });
            let method = |n: u64| if n.is_multiple_of(5) { format!("M{:X}", hash(n)) } else { "GET".to_owned() };
            let request = |&n: &u64| format!("{} /{:x}?{n} HTTP/1.1\r\nHost: {}\r\n\r\n", method(n), hash(n), host(n));
            clear.send(batch.iter().map(request).collect::<String>()).await;
            for n in batch {
                assert_eq!(clear.response().await.status, if n.is_multiple_of(2) { 301 } else { 404 });
            }
            let known = format!("{:x}.localhost", hash(number));
            client.connect(edd.https, &known).await.expect("a handshake");
            let stranger = format!("{:x}.test", hash(number));
            assert!(client.connect(edd.https, &stranger).await.is_err());
        }
    };
    let answered = |count: f64| {
        edd.wait_metrics("every request and connection to be told", move |metrics| {
            let open = metrics.value("edd_connections_open", &[("listener", "https"), ("protocol", "h1")]);
            (metrics.value("edd_http_requests_total", &[]), open) == (Some(count), Some(0.0))
        })
    };
    // One of each kind makes the series that all the others share.
    round(0..50).await;
    answered(50.0).await;
    let before = series(&edd).await;
    tokio::join!(round(50..5_000), round(5_000..10_000));
    answered(10_000.0).await;
    let new: Vec<_> = series(&edd).await.into_iter().filter(|id| !before.contains(id)).collect();
    assert!(new.is_empty(), "{new:#?}");
    let after = edd.metrics().await;
    for label in [("route", "unmatched"), ("route", "*.wild.test/")] {
        assert_eq!(after.value("edd_http_requests_total", &[label]), Some(5_000.0), "{label:?}");
    }
    assert_eq!(after.value("edd_http_requests_total", &[("method", "_OTHER")]), Some(2_000.0));
    let mut cases = Cases::default();
    for (label, values) in [
        ("route", &["*.wild.test/", "unmatched"][..]),
        ("method", &["GET", "_OTHER"]),
        ("reason", &["no_route"]),
        ("code", &["301", "404"]),
        ("listener", &["dynamic", "http", "https"]),
        ("name", &["localhost"]),
    ] {
        cases.case(label, async { assert!(after.label_values(label).iter().eq(values)) }).await;
    }
    cases.finish();
}

#[tokio::test]
async fn the_series_of_a_removed_route_go_with_it() {
    let upstream = Upstream::start().await;
    let (_held, refusing) = RawUpstream::refusing();
    let kept = format!("routes:\n- {{host: kept.test, target: '{}'}}\n", upstream.address);
    let both = format!("{kept}- {{host: gone.test, target: '{refusing}'}}\n");
    let edd = Edd::gateway(&kept).env("EDD_DRAIN_SECONDS", "0").start().await;
    assert_eq!(edd.get("kept.test", "/x").await.status, 200);
    let counted = [("route", "kept.test/")];
    edd.wait_metrics("the request", |m| m.value("edd_http_requests_total", &counted) == Some(1.0)).await;
    let at_first = edd.metrics().await.series();
    edd.write_routes(&both);
    let has = |metrics: &Metrics, label: &str, text: &str| {
        metrics.label_values(label).iter().any(|value| value.contains(text))
    };
    edd.wait_metrics("the new route", |metrics| metrics.value("edd_routes", &[("source", "file")]) == Some(2.0)).await;
    let answer = edd.get("gone.test", "/x").await;
    edd.check_refusal(&answer, 502, "upstream_refused").await;
    assert!(has(&edd.metrics().await, "reason", "upstream_refused"));
    let target = refusing.to_string();
    assert!(has(&edd.metrics().await, "upstream", &target));
    edd.write_routes(&kept);
    edd.wait_metrics("its end", |metrics| !has(metrics, "route", "gone.test")).await;
    // Targets that no route names are let go of when names are looked up the next time.
    edd.write_routes(&format!("{kept}# again\n"));
    edd.wait_metrics("the target's end", |metrics| !has(metrics, "upstream", &target)).await;
    let last = edd.metrics().await;
    assert_eq!((last.series(), last.value("edd_http_errors_total", &[])), (at_first, None));
    assert_eq!(last.value("edd_http_requests_total", &counted), Some(1.0));
}
