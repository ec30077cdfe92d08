//! What changes between two sets of routes, in words.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;

use humantime::format_duration;
use serde::Serialize;

use crate::route::{Action, ClientAuth, HeaderEdits, HostPattern, PathPrefix, Protocol, Route, Timeouts};

/// One route that differs. A route is known by its host and path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    Added { host: HostPattern, path: PathPrefix, action: String },
    Removed { host: HostPattern, path: PathPrefix, action: String },
    Changed { host: HostPattern, path: PathPrefix, fields: Vec<FieldChange> },
}

/// One property of a route, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    pub field: &'static str,
    pub old: String,
    pub new: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { host, path, action } => write!(f, "+ {host}{path}  {action}"),
            Self::Removed { host, path, action } => write!(f, "- {host}{path}  {action}"),
            Self::Changed { host, path, fields } => {
                write!(f, "~ {host}{path}")?;
                for FieldChange { field, old, new } in fields {
                    write!(f, "\n    {field}: {old} → {new}")?;
                }
                Ok(())
            }
        }
    }
}

/// The changes that lead from `old` to `new`, ordered by host and path.
pub fn diff(old: &[Route], new: &[Route]) -> Vec<Change> {
    let (old, new) = (by_key(old), by_key(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    let change = |key: Key<'_>| {
        let (host, path) = (key.0.clone(), key.1.clone());
        match (old.get(&key), new.get(&key)) {
            (None, Some(route)) => Some(Change::Added { host, path, action: route.describe_action() }),
            (Some(route), None) => Some(Change::Removed { host, path, action: route.describe_action() }),
            (Some(old), Some(new)) => {
                let fields = fields(old, new);
                (!fields.is_empty()).then_some(Change::Changed { host, path, fields })
            }
            (None, None) => None,
        }
    };
    keys.into_iter().filter_map(change).collect()
}

type Key<'r> = (&'r HostPattern, &'r PathPrefix);

/// Of two routes with one key the first is the one that matches.
fn by_key(routes: &[Route]) -> BTreeMap<Key<'_>, &Route> {
    let mut map = BTreeMap::new();
    for route in routes {
        if let btree_map::Entry::Vacant(free) = map.entry((&route.host, &route.path)) {
            free.insert(route);
        }
    }
    map
}

fn fields(old: &Route, new: &Route) -> Vec<FieldChange> {
    let (old, new) = (describe(old), describe(new));
    let differ = |((field, old), (_, new)): ((&'static str, String), (&'static str, String))| {
        (old != new).then_some(FieldChange { field, old, new })
    };
    old.into_iter().zip(new).filter_map(differ).collect()
}

/// Every property of a route that can change, in the words of the file. The source is no property:
/// it says where the route was read.
fn describe(route: &Route) -> [(&'static str, String); 15] {
    let Route {
        id,
        source: _,
        host: _,
        path: _,
        action,
        strip_prefix,
        https_only,
        websocket,
        max_body_bytes,
        timeouts: Timeouts { connect, read, write, stream_idle },
        request_headers,
        response_headers,
        client_auth,
    } = route;
    [
        ("name", id.to_string()),
        ("target", route.describe_action()),
        ("exact", matches!(action, Action::Redirect(redirect) if redirect.exact).to_string()),
        ("tls", describe_tls(action)),
        ("strip_prefix", strip_prefix.to_string()),
        ("https_only", https_only.to_string()),
        ("websocket", websocket.to_string()),
        ("body_limit", max_body_bytes.map_or("none".to_owned(), |bytes| format!("{bytes} bytes"))),
        ("timeouts.connect", format_duration(*connect).to_string()),
        ("timeouts.read", format_duration(*read).to_string()),
        ("timeouts.write", format_duration(*write).to_string()),
        ("timeouts.stream_idle", format_duration(*stream_idle).to_string()),
        ("request_headers", describe_headers(request_headers)),
        ("response_headers", describe_headers(response_headers)),
        ("client_cert", describe_client_auth(client_auth.as_ref())),
    ]
}

fn describe_tls(action: &Action) -> String {
    let Action::Proxy { protocol: Protocol::Https(tls), .. } = action else { return "none".to_owned() };
    let mut words = vec![if tls.verify { "verified" } else { "not verified" }.to_owned()];
    words.extend(tls.server_name.as_ref().map(|name| format!("as {name}")));
    words.extend(tls.ca_file.as_ref().map(|file| format!("by {}", file.display())));
    words.join(" ")
}

fn describe_headers(edits: &HeaderEdits) -> String {
    if edits.is_empty() {
        return "none".to_owned();
    }
    let removed = edits.remove.iter().map(|name| format!("remove {name}"));
    let pair = |verb: &'static str| {
        move |(name, value): &(http::HeaderName, http::HeaderValue)| {
            format!("{verb} {name}: {}", String::from_utf8_lossy(value.as_bytes()))
        }
    };
    removed
        .chain(edits.set.iter().map(pair("set")))
        .chain(edits.add.iter().map(pair("add")))
        .collect::<Vec<_>>()
        .join(", ")
}

fn describe_client_auth(auth: Option<&ClientAuth>) -> String {
    auth.map_or("none".to_owned(), |auth| {
        format!("{} by {}", if auth.required { "required" } else { "optional" }, auth.ca_file.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::parse;

    fn routes(yaml: &str) -> Vec<Route> {
        parse(yaml, "routes.yaml").expect("the test's routes are right").routes
    }

    fn check(old: &str, new: &str, want: &[&str]) {
        let list = |items: &str| routes(&format!("routes: [{items}]"));
        let changes: Vec<_> = diff(&list(old), &list(new)).iter().map(ToString::to_string).collect();
        assert_eq!(changes, want);
    }

    #[test]
    fn tells_added_removed_and_changed() {
        check("", "{host: a, target: 'x:80'}", &["+ a/  x:80"]);
        check("{host: a, target: 'x:80'}", "", &["- a/  x:80"]);
        check("{host: a, target: 'x:80'}", "{host: A., target: 'http://x:80', path: /}", &[]);
        check(
            "{host: a, target: 'x:80'}, {host: b, target: 'x:80'}",
            "{host: b, path: /b, target: 'x:80'}, {host: a, target: 'y:80', strip_prefix: true}",
            &["~ a/\n    target: x:80 → y:80\n    strip_prefix: false → true", "- b/  x:80", "+ b/b  x:80"],
        );
    }

    #[test]
    fn ignores_order_and_routes_that_never_match() {
        check("{host: a, target: 'x:80'}, {target: 'y:80'}", "{target: 'y:80'}, {host: a, target: 'x:80'}", &[]);
        check("{target: 'x:80'}", "{target: 'x:80'}, {target: 'y:80'}", &[]);
    }

    /// Two routes that differ in one key must never be told to be equal.
    #[test]
    fn sees_every_key() {
        for key in [
            "name: n",
            "protocol: h2c",
            "targets: [{target: 'x:80'}, {target: 'y:80'}]",
            "protocol: https, tls: {verify: false}",
            "protocol: https, tls: {server_name: a}",
            "protocol: https, tls: {ca_file: a}",
            "timeouts: {connect: 1s}",
            "timeouts: {read: 1s}",
            "timeouts: {write: 1s}",
            "timeouts: {stream_idle: 1s}",
            "request_headers: {set: {a: b}}",
            "request_headers: {add: {a: b}}",
            "response_headers: {remove: [a]}",
            "redirect: https",
            "redirect: {to: 'https://a'}",
            "body_limit: 1",
            "websocket: false",
            "client_cert: {ca_file: a}",
            "client_cert: {ca_file: a, required: false}",
            "strip_prefix: true",
        ] {
            let target = if key.contains("targets") || key.contains("to:") { "" } else { "target: 'x:80', " };
            let changed = routes(&format!("routes: [{{{target}{key}}}]"));
            let changes = diff(&routes("routes: [{target: 'x:80'}]"), &changed);
            assert!(matches!(changes.as_slice(), [Change::Changed { .. }]), "{key}: {changes:?}");
        }
    }

    #[test]
    fn serializes_for_scripts() {
        let changes = diff(&routes("routes: [{target: 'a:80'}]"), &routes("routes: [{target: 'b:80'}]"));
        let want = serde_json::json!([{
            "change": "changed", "host": "*", "path": "/",
            "fields": [{ "field": "target", "old": "a:80", "new": "b:80" }],
        }]);
        assert_eq!(serde_json::to_value(changes).expect("changes are plain data"), want);
    }
}
