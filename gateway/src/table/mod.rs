//! The routing table: built whole, immutable, read without locks or allocation.
//!
//! Hosts live in persistent maps, so that one host's change copies a path of the map and shares the
//! rest. A host's paths live in a [`matchit`] tree.
//!
//! The host is chosen first: exact name, then the longest wildcard suffix, then `*`. Within it the
//! longest prefix wins. A host without a matching path does not fall through to a less specific one.

pub mod containers;
mod explain;
pub mod fingerprint;
pub mod ports;
pub mod ssh_keys;

use std::borrow::{Borrow, Cow};
use std::sync::Arc;

pub use explain::{Explanation, Loser, WhyNot, Winner};
use imbl::shared_ptr::DefaultSharedPtr;

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

    /// Whether routes name exactly this host.
    pub fn has_host(&self, host: &str) -> bool {
        self.exact.contains_key(host)
    }

    /// Whether a wildcard that takes `host` is as long as `zone` or longer.
    pub fn has_wildcard_within(&self, host: &str, zone: &str) -> bool {
        let suffixes = std::iter::successors(host.split_once('.'), |(_, rest)| rest.split_once('.'));
        let within = suffixes.map(|(_, suffix)| suffix).take_while(|suffix| suffix.len() >= zone.len());
        !self.wildcards.is_empty() && within.into_iter().any(|suffix| self.wildcards.contains_key(suffix))
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

#[cfg(test)]
mod tests;
