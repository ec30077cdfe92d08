//! Which route takes a request for a host and a path.

use std::sync::Arc;

use crate::decision::Answer;
use crate::live::LiveRoute;
use crate::reason::Reason;
use crate::router::Snapshot;
use crate::table::containers::ContainerMatch;

/// The route that takes a request.
///
/// The most specific host wins, whoever declared it: a static route for the very host, then the container of that
/// name. For hosts below the containers' zone that are neither, wildcards count that lie in the zone too, and no
/// others: who asks for a container that is gone is not to see another site.
///
/// # Errors
/// None takes it; the answer says why.
pub fn find<'s>(snapshot: &'s Snapshot, host: &str, path: &str) -> Result<&'s Arc<LiveRoute>, Box<Answer>> {
    let fixed = || {
        let route = snapshot.table.match_http(host, path);
        route.ok_or_else(|| refuse(Reason::NoRoute, "no route takes this host and path"))
    };
    match snapshot.containers.match_host(host) {
        ContainerMatch::Elsewhere => fixed(),
        _ if snapshot.table.has_host(host) => fixed(),
        ContainerMatch::Container(live) => Ok(live),
        _ if snapshot
            .containers
            .zone()
            .is_some_and(|zone| snapshot.table.has_wildcard_within(host, zone.name().as_str())) =>
        {
            fixed()
        }
        ContainerMatch::Unknown => {
            Err(refuse(Reason::NoContainer, "no container of this name exists, or it was deleted"))
        }
        ContainerMatch::NotYetKnown => {
            Err(refuse(Reason::ContainersUnknown, "compute has not told yet which containers there are"))
        }
    }
}

fn refuse(reason: Reason, detail: &'static str) -> Box<Answer> {
    Box::new(Answer::new(reason, detail))
}
