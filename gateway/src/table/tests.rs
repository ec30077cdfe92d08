//! The table against its definition: the most specific host, then the longest prefix.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::path::normalize;
use crate::route::{Action, Authority, PathPrefix, Protocol, Source, Target};

fn route(host: &str, path: &str) -> Route {
    let target = Target { authority: Authority::parse("a:80").unwrap(), weight: 1 };
    Route::new(
        HostPattern::parse(host).unwrap(),
        PathPrefix::parse(path).unwrap(),
        Action::Proxy { targets: vec![target], protocol: Protocol::H1 },
        Source::File,
    )
}

fn table(routes: &[(&str, &str)]) -> RouteTable<Route> {
    RouteTable::build(routes.iter().map(|(host, path)| Arc::new(route(host, path))))
}

/// The id of the route that takes `url`, a host and a path.
fn winner(table: &RouteTable<Route>, url: &str) -> Option<String> {
    let (host, path) = url.split_at(url.find('/').unwrap());
    let host = normalize_host(host).unwrap();
    table.match_http(&host, path).map(|route| route.id.to_string())
}

#[track_caller]
fn check(routes: &[(&str, &str)], cases: &[(&str, Option<&str>)]) {
    let table = table(routes);
    for (url, want) in cases {
        assert_eq!(winner(&table, url).as_deref(), *want, "{url}");
    }
}

#[test]
fn the_most_specific_host_wins() {
    check(
        &[("*", "/"), ("*.example.com", "/"), ("*.b.example.com", "/"), ("a.b.example.com", "/")],
        &[
            ("a.b.example.com/", Some("a.b.example.com/")),
            ("A.B.EXAMPLE.COM.:8443/", Some("a.b.example.com/")),
            ("x.b.example.com/", Some("*.b.example.com/")),
            ("x.y.b.example.com/", Some("*.b.example.com/")),
            ("b.example.com/", Some("*.example.com/")),
            ("example.com/", Some("*/")),
            ("badexample.com/", Some("*/")),
            ("[::1]:80/", Some("*/")),
        ],
    );
}

#[test]
fn prefixes_end_on_segments() {
    check(
        &[("a", "/compute"), ("a", "/compute/x/y"), ("a", "/{id}"), ("b", "/")],
        &[
            ("a/compute", Some("a/compute")),
            ("a/compute/", Some("a/compute")),
            ("a/compute/x", Some("a/compute")),
            ("a/compute//x", Some("a/compute")),
            ("a/compute/x/y", Some("a/compute/x/y")),
            ("a/compute/x/yz", Some("a/compute")),
            ("a/compute/x/y/z", Some("a/compute/x/y")),
            ("a/computex", None),
            ("a/Compute", None),
            ("a/{id}/x", Some("a/{id}")),
            ("a/7", None),
            ("b//compute", Some("b/")),
        ],
    );
}

#[test]
fn a_host_without_the_path_does_not_fall_through() {
    check(&[("a", "/x"), ("*", "/")], &[("a/y", None), ("b/y", Some("*/"))]);
}

#[test]
fn the_first_of_equals_wins() {
    let mut late = route("a", "/");
    late.id = crate::route::RouteId::new("late");
    let table = RouteTable::build([Arc::new(route("a", "/")), Arc::new(late)]);
    assert_eq!(winner(&table, "a/").as_deref(), Some("a/"));
    let explanation = table.explain("a", "/");
    assert_eq!(explanation.losers[0].why, WhyNot::Duplicate);
}

#[test]
fn explains_every_kind_of_loser() {
    let table = table(&[("a.b", "/x/y"), ("a.b", "/x"), ("a.b", "/z"), ("*.b", "/x/y"), ("c", "/")]);
    let explanation = table.explain("a.b", "/x/y/1");
    assert_eq!(explanation.winner.unwrap().route, "a.b/x/y");
    let why: Vec<_> = explanation.losers.iter().map(|loser| (loser.route.as_str(), loser.why)).collect();
    assert_eq!(
        why,
        [("a.b/x", WhyNot::ShorterPrefix), ("*.b/x/y", WhyNot::HostLessSpecific), ("a.b/z", WhyNot::PathDiffers),]
    );
    assert_eq!(explanation.other_hosts, 1);
}

#[test]
fn one_host_changes_and_the_others_are_shared() {
    let before = table(&[("a", "/"), ("b", "/"), ("*.c", "/")]);
    let mut after = before.clone();
    after.set_host(&HostPattern::parse("a").unwrap(), vec![Arc::new(route("a", "/new"))]);
    after.set_host(&HostPattern::parse("*.c").unwrap(), Vec::new());
    assert_eq!((before.len(), after.len()), (3, 2));
    assert_eq!(winner(&before, "a/").as_deref(), Some("a/"));
    assert_eq!(winner(&after, "a/").as_deref(), None);
    assert_eq!(winner(&after, "a/new").as_deref(), Some("a/new"));
    assert_eq!(winner(&after, "x.c/"), None);
    let (old, new) = (before.match_http("b", "/").unwrap(), after.match_http("b", "/").unwrap());
    assert!(Arc::ptr_eq(old, new));
}

#[test]
fn stripping_never_makes_an_authority() {
    let mut stripped = route("a", "/compute");
    stripped.strip_prefix = true;
    for (path, want) in [
        ("/compute", "/"),
        ("/compute/", "/"),
        ("/compute/x", "/x"),
        ("/compute//evil.example/x", "/evil.example/x"),
        ("/compute/x//y", "/x//y"),
    ] {
        assert_eq!(upstream_path(&stripped, path).as_deref(), Some(want), "{path}");
    }
    assert_eq!(upstream_path(&route("a", "/compute"), "/compute/x"), None);
}

#[test]
fn hosts_are_normalized_or_refused() {
    for (authority, want) in [
        ("a", "a"),
        ("A.Example.:80", "a.example"),
        ("[::1]", "[::1]"),
        ("[::1]:443", "[::1]"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("a:", "a"),
    ] {
        assert_eq!(normalize_host(authority).as_deref(), Ok(want), "{authority}");
    }
    for bad in [
        "", ".", ":80", "a b", "a/b", "a@b", "a:b", "a:80:80", "::1", "[::1", "[x]", "a..b", ".a", "a%2e", "ä",
        "a:999999",
    ] {
        assert_eq!(normalize_host(bad), Err(BadHost), "{bad}");
    }
}

/// The definition, without maps and trees.
fn naive<'a>(routes: &'a [Route], host: &str, path: &str) -> Option<&'a Route> {
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(name) => (name.as_str() == host).then_some(usize::MAX),
        HostPattern::Wildcard(suffix) => host.ends_with(&format!(".{suffix}")).then_some(suffix.as_str().len()),
        HostPattern::Any => Some(0),
    };
    let best = routes.iter().filter_map(|route| rank(&route.host)).max()?;
    let mut found: Option<&Route> = None;
    for route in routes.iter().filter(|route| rank(&route.host) == Some(best) && route.path.contains(path)) {
        if found.is_none_or(|found| route.path.as_str().len() > found.path.as_str().len()) {
            found = Some(route);
        }
    }
    found
}

fn host() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,2}", 1..4).prop_map(|labels| labels.join("."))
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![host(), host().prop_map(|host| format!("*.{host}")), Just("*".to_owned())]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec("[ab{}:*]{0,2}", 0..4).prop_map(|segments| format!("/{}", segments.join("/"))),
        Just("/".to_owned())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_definition(
        declared in prop::collection::vec((pattern(), path()), 0..12),
        requests in prop::collection::vec((host(), path()), 1..8),
    ) {
        let routes: Vec<Route> = declared
            .iter()
            .filter(|(_, path)| PathPrefix::parse(path).is_ok())
            .enumerate()
            .map(|(index, (host, path))| {
                let mut route = route(host, path);
                route.id = crate::route::RouteId::new(index.to_string());
                route
            })
            .collect();
        let table = RouteTable::build(routes.iter().cloned().map(Arc::new));
        prop_assert_eq!(table.len(), routes.len());
        for (host, path) in &requests {
            let Ok(path) = normalize(path) else { continue };
            let found = table.match_http(host, &path).map(|route| &route.id);
            prop_assert_eq!(found, naive(&routes, host, &path).map(|route| &route.id), "{} {}", host, path);
            let explained = table.explain(host, &path).winner.map(|winner| winner.route);
            prop_assert_eq!(explained.as_deref(), found.map(|id| id.as_str()));
        }
    }

    #[test]
    fn changing_hosts_one_by_one_equals_building_anew(
        steps in prop::collection::vec((pattern(), prop::collection::vec(path(), 0..3)), 0..10),
        requests in prop::collection::vec((host(), path()), 1..8),
    ) {
        let mut stepwise = RouteTable::default();
        let mut hosts = std::collections::BTreeMap::new();
        for (host, paths) in &steps {
            let routes: Vec<Arc<Route>> = paths
                .iter()
                .filter(|path| PathPrefix::parse(path).is_ok())
                .map(|path| Arc::new(route(host, path)))
                .collect();
            stepwise.set_host(&HostPattern::parse(host).unwrap(), routes.clone());
            hosts.insert(host.clone(), routes);
        }
        let whole = RouteTable::build(hosts.into_values().flatten());
        prop_assert_eq!(stepwise.len(), whole.len());
        for (host, path) in &requests {
            let id = |table: &RouteTable<Route>| table.match_http(host, path).map(|route| route.id.clone());
            prop_assert_eq!(id(&stepwise), id(&whole));
        }
    }
}
