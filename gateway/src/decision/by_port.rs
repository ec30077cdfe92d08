//! Which route takes a request that came by a port of containers.

use std::sync::Arc;

use edd_proto::ContainerId;

use crate::decision::Answer;
use crate::live::LiveRoute;
use crate::reason::Reason;
use crate::router::Snapshot;

/// The route that takes a request on `port` for `host`, normalized.
///
/// A container's host name means that container and no other. Any other host, such as an address, means whoever is
/// alone on the port: with one rule there is nobody else whom the client could want.
///
/// # Errors
/// None takes it; the answer says what to ask for instead, and names nobody else's container.
pub fn find<'s>(
    snapshot: &'s Snapshot,
    port: u16,
    host: &str,
    is_tls: bool,
) -> Result<&'s Arc<LiveRoute>, Box<Answer>> {
    let ports = &snapshot.ports;
    let zone = snapshot.containers.zone();
    let Some(label) = zone.and_then(|zone| zone.label(host)) else {
        let only = if is_tls { ports.only_tls(port) } else { ports.only_http(port) };
        return only.map(|(_, live)| live).ok_or_else(|| {
            let names = zone.map_or_else(String::new, |zone| format!(", <container id>.{}", zone.name()));
            refuse(Reason::NoPortRule, format!("ask port {port} by the host name of a container{names}"))
        });
    };
    let id = label.parse::<ContainerId>().ok();
    let (http, tls) = (id.and_then(|id| ports.match_http(port, id)), id.and_then(|id| ports.match_tls(port, id)));
    match (is_tls, http, tls) {
        (true, _, Some(live)) | (false, Some(live), _) => Ok(live),
        (true, Some(_), None) => Err(refuse(
            Reason::NoPortRule,
            format!("this container takes plain HTTP on port {port}: use http://{host}:{port}"),
        )),
        (false, None, Some(_)) => Err(refuse(Reason::PlainOnTls, format!("use https://{host}:{port}"))),
        (_, None, None) => Err(refuse(
            Reason::NoPortRule,
            format!("no rule leads port {port} to {host}: ask it without a port, or have its owner add the rule"),
        )),
    }
}

fn refuse(reason: Reason, detail: String) -> Box<Answer> {
    Box::new(Answer::new(reason, detail))
}
