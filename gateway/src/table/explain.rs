//! Which route takes a URL, and why the others do not.

use std::borrow::{Borrow, Cow};
use std::sync::Arc;

use serde::Serialize;

use super::{RouteTable, borrow, upstream_path};
use crate::route::{HostPattern, Route};

impl<T: Borrow<Route>> RouteTable<T> {
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
