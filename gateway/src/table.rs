//! The routing table: built whole, immutable, read without locks or allocation.
//!
//! Hosts live in persistent maps, so that one host's change copies a path of the map and shares the
//! rest. A host's paths live in a [`matchit`] tree.
//!
//! The host is chosen first: exact name, then the longest wildcard suffix, then `*`. Within it the
//! longest prefix wins. A host without a matching path does not fall through to a less specific one.

use std::borrow::{Borrow, Cow};
use std::sync::Arc;

use imbl::shared_ptr::DefaultSharedPtr;
use serde::Serialize;

use crate::route::{HostName, HostPattern, MAX_HOST_BYTES, Route};

type HostMap<T> = imbl::GenericHashMap<HostName, HostRoutes<T>, foldhash::fast::RandomState, DefaultSharedPtr>;

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// An immutable set of routes, ready to match. `T` is what a match yields: a [`Route`] with
/// whatever the gateway resolved for it.
#[derive(Debug)]
pub struct RouteTable<T> {
    exact: HostMap<T>,
    wildcards: HostMap<T>,
    any: Option<HostRoutes<T>>,
    len: usize,
}

impl<T> Clone for RouteTable<T> {
    /// Shares everything with the original.
    fn clone(&self) -> Self {
        Self { exact: self.exact.clone(), wildcards: self.wildcards.clone(), any: self.any.clone(), len: self.len }
    }
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { exact: HostMap::default(), wildcards: HostMap::default(), any: None, len: 0 }
    }
}

/// The routes of one host.
#[derive(Debug)]
enum HostRoutes<T> {
    /// A single route at `/`: what most container hosts are; it needs no tree.
    Root(Arc<T>),
    Paths(Arc<PathTree<T>>),
}

impl<T> Clone for HostRoutes<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Root(route) => Self::Root(Arc::clone(route)),
            Self::Paths(tree) => Self::Paths(Arc::clone(tree)),
        }
    }
}

#[derive(Debug)]
struct PathTree<T> {
    tree: matchit::Router<usize>,
    /// Every route of the host; the tree points into it. Routes that lost a tie are here alone.
    routes: Vec<Arc<T>>,
}

impl<T: Borrow<Route>> HostRoutes<T> {
    /// `routes` in order of precedence; none for an empty list.
    fn build(mut routes: Vec<Arc<T>>) -> Option<Self> {
        routes.sort_by_key(|route| (*route).as_ref().borrow().source);
        match routes.as_slice() {
            [] => return None,
            [only] if borrow(only).path.trimmed().is_empty() => return routes.pop().map(Self::Root),
            _ => {}
        }
        let mut tree = matchit::Router::new();
        for (index, route) in routes.iter().enumerate() {
            let prefix = borrow(route).path.trimmed().replace('{', "{{").replace('}', "}}");
            // The three shapes on which a prefix ends: itself, a slash, a further segment. The
            // only conflict that can arise is an equal prefix, and there the first one stays.
            if !prefix.is_empty() && tree.insert(prefix.clone(), index).is_err() {
                continue;
            }
            let slash = tree.insert(format!("{prefix}/"), index);
            let below = tree.insert(format!("{prefix}/{{*rest}}"), index);
            debug_assert!(prefix.is_empty() || (slash.is_ok() && below.is_ok()), "{prefix}");
        }
        Some(Self::Paths(Arc::new(PathTree { tree, routes })))
    }

    fn find(&self, path: &str) -> Option<&Arc<T>> {
        match self {
            Self::Root(route) => Some(route),
            Self::Paths(paths) => paths.tree.at(path).ok().map(|found| &paths.routes[*found.value]),
        }
    }

    fn routes(&self) -> &[Arc<T>] {
        match self {
            Self::Root(route) => std::slice::from_ref(route),
            Self::Paths(paths) => &paths.routes,
        }
    }
}

fn borrow<T: Borrow<Route>>(route: &Arc<T>) -> &Route {
    (**route).borrow()
}

impl<T: Borrow<Route>> RouteTable<T> {
    /// Builds a table from routes in order of declaration.
    pub fn build(routes: impl IntoIterator<Item = Arc<T>>) -> Self {
        let mut hosts: std::collections::HashMap<HostPattern, Vec<Arc<T>>, foldhash::fast::RandomState> =
            std::collections::HashMap::default();
        for route in routes {
            hosts.entry(borrow(&route).host.clone()).or_default().push(route);
        }
        let mut table = Self::default();
        for (host, routes) in hosts {
            table.set_host(&host, routes);
        }
        table
    }

    /// Replaces the routes of one host pattern; an empty list removes it. Costs O(log hosts).
    ///
    /// Every route's host must be `host`.
    pub fn set_host(&mut self, host: &HostPattern, routes: Vec<Arc<T>>) {
        debug_assert!(routes.iter().all(|route| borrow(route).host == *host));
        self.len += routes.len();
        let built = HostRoutes::build(routes);
        let old = match (host, built) {
            (HostPattern::Exact(name), Some(built)) => self.exact.insert(name.clone(), built),
            (HostPattern::Exact(name), None) => self.exact.remove(name),
            (HostPattern::Wildcard(suffix), Some(built)) => self.wildcards.insert(suffix.clone(), built),
            (HostPattern::Wildcard(suffix), None) => self.wildcards.remove(suffix),
            (HostPattern::Any, built) => std::mem::replace(&mut self.any, built),
        };
        self.len -= old.map_or(0, |old| old.routes().len());
    }

    /// Number of routes, those that lost a tie included.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The route that takes a request.
    ///
    /// `host` as [`normalize_host`] returns it, `path` as [`crate::path::normalize`] does.
    pub fn match_http(&self, host: &str, path: &str) -> Option<&Arc<T>> {
        self.host_routes(host)?.find(path)
    }

    fn host_routes(&self, host: &str) -> Option<&HostRoutes<T>> {
        if let Some(routes) = self.exact.get(host) {
            return Some(routes);
        }
        if !self.wildcards.is_empty() {
            let mut rest = host;
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(routes) = self.wildcards.get(suffix) {
                    return Some(routes);
                }
                rest = suffix;
            }
        }
        self.any.as_ref()
    }

    /// Every route, hosts in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.exact.values().chain(self.wildcards.values()).chain(&self.any).flat_map(|host| host.routes())
    }

    /// Says which route takes a request and why the others of the matching hosts do not.
    pub fn explain(&self, host: &str, path: &str) -> Explanation {
        let winner = self.match_http(host, path);
        let mut losers = Vec::new();
        let mut elsewhere = 0;
        for route in self.iter() {
            if winner.is_some_and(|winner| Arc::ptr_eq(winner, route)) {
                continue;
            }
            let route = borrow(route);
            match why_not(route, winner.map(borrow), host, path, self.host_routes(host).is_some()) {
                Some(why) if losers.len() < Explanation::MAX_LOSERS => losers.push(Loser::new(route, why)),
                _ => elsewhere += 1,
            }
        }
        losers.sort_by(|a, b| a.why.cmp(&b.why).then_with(|| a.path.len().cmp(&b.path.len()).reverse()));
        Explanation {
            host: host.to_owned(),
            path: path.to_owned(),
            winner: winner.map(|route| Winner::new(borrow(route), path)),
            losers,
            other_hosts: elsewhere,
        }
    }
}

/// Why `route` did not take the request; none when its host has nothing to do with it.
fn why_not(route: &Route, winner: Option<&Route>, host: &str, path: &str, host_known: bool) -> Option<WhyNot> {
    let host_matches = match &route.host {
        HostPattern::Exact(name) => name.as_str() == host,
        HostPattern::Wildcard(suffix) => {
            host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        }
        HostPattern::Any => true,
    };
    if !host_matches {
        return None;
    }
    let chosen_host = winner.map(|winner| &winner.host);
    if chosen_host.is_some_and(|chosen| *chosen != route.host) {
        return Some(WhyNot::HostLessSpecific);
    }
    if !route.path.contains(path) {
        return Some(WhyNot::PathDiffers);
    }
    match winner {
        Some(winner) if winner.path == route.path => Some(WhyNot::Duplicate),
        Some(_) => Some(WhyNot::ShorterPrefix),
        None => host_known.then_some(WhyNot::HostLessSpecific),
    }
}

/// The answer to "which route takes this URL, and why".
#[derive(Debug, Serialize)]
pub struct Explanation {
    pub host: String,
    /// The path as it is compared.
    pub path: String,
    pub winner: Option<Winner>,
    /// Routes whose host matches too, at most [`Explanation::MAX_LOSERS`].
    pub losers: Vec<Loser>,
    /// How many further routes there are, for other hosts or beyond the limit.
    pub other_hosts: usize,
}

impl Explanation {
    pub const MAX_LOSERS: usize = 100;
}

#[derive(Debug, Serialize)]
pub struct Winner {
    pub route: String,
    pub host: String,
    pub path: String,
    pub action: String,
    /// The path that the upstream sees.
    pub upstream_path: String,
}

impl Winner {
    fn new(route: &Route, path: &str) -> Self {
        Self {
            route: route.id.to_string(),
            host: route.host.to_string(),
            path: route.path.to_string(),
            action: route.describe_action(),
            upstream_path: upstream_path(route, path).unwrap_or(Cow::Borrowed(path)).into_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Loser {
    pub route: String,
    pub host: String,
    pub path: String,
    pub why: WhyNot,
}

impl Loser {
    fn new(route: &Route, why: WhyNot) -> Self {
        Self { route: route.id.to_string(), host: route.host.to_string(), path: route.path.to_string(), why }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyNot {
    /// Same host and path; the other was declared first.
    Duplicate,
    /// A longer prefix of the same host matches.
    ShorterPrefix,
    /// A more specific host was chosen, and the path is looked up in that host alone.
    HostLessSpecific,
    /// Its prefix does not contain the path.
    PathDiffers,
}

impl WhyNot {
    pub fn explain(self) -> &'static str {
        match self {
            Self::Duplicate => "same host and path, declared later",
            Self::ShorterPrefix => "a longer prefix matches",
            Self::HostLessSpecific => "a more specific host was chosen",
            Self::PathDiffers => "its prefix does not contain the path",
        }
    }
}

/// The path that the upstream sees; none when it is `path` itself.
pub fn upstream_path<'a>(route: &Route, path: &'a str) -> Option<Cow<'a, str>> {
    if !route.strip_prefix || route.path.trimmed().is_empty() {
        return None;
    }
    let rest = &path[route.path.trimmed().len().min(path.len())..];
    // `/compute//evil` must not become `//evil`, which readers take for an authority.
    Some(match rest.trim_start_matches('/') {
        "" => Cow::Borrowed("/"),
        tail if rest.len() == tail.len() + 1 => Cow::Borrowed(rest),
        tail => Cow::Owned(format!("/{tail}")),
    })
}

/// Why an authority was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHost;

/// The host of an authority (`Host` header or `:authority`) as the table compares it: no port, no
/// trailing dot, lower case. Allocates only for upper case.
pub fn normalize_host(authority: &str) -> Result<Cow<'_, str>, BadHost> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port_is_valid = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
            if !port_is_valid || (host.contains(':') && !host.ends_with(']')) {
                return Err(BadHost);
            }
            host
        }
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > MAX_HOST_BYTES {
        return Err(BadHost);
    }
    let valid = if let Some(inner) = host.strip_prefix('[') {
        inner.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
    } else {
        host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
            && !host.starts_with('.')
            && !host.contains("..")
    };
    if !valid {
        return Err(BadHost);
    }
    Ok(if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}
