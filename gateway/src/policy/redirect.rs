//! Redirects: to HTTPS, or to wherever a route says.

use http::StatusCode;

use crate::decision::{Answer, Peer, RequestHead};
use crate::reason::Reason;
use crate::route::{Action, Route};

/// The redirect to HTTPS that `route` asks for, as an error. It tells nothing but the address, so that
/// it comes before any check of who asks.
pub fn to_https(route: &Route, head: &RequestHead<'_>, peer: &Peer<'_>, host: &str, path: &str) -> Result<(), Answer> {
    if !route.https_only || super::forwarding::scheme(head.headers, peer) != "http" {
        return Ok(());
    }
    let port = https_port(head, peer).map(|port| format!(":{port}")).unwrap_or_default();
    Err(to(301, format!("https://{host}{port}{path}{}", query(head))))
}

/// The redirect that `route` consists of, if it does, as an error.
pub fn elsewhere(route: &Route, head: &RequestHead<'_>, path: &str) -> Result<(), Answer> {
    match &route.action {
        Action::Redirect(redirect) if redirect.exact => Err(to(redirect.status, redirect.to.to_string())),
        Action::Redirect(redirect) => {
            let kept = crate::table::upstream_path(route, path);
            let kept = kept.as_deref().unwrap_or(path);
            Err(to(redirect.status, format!("{}{kept}{}", redirect.to, query(head))))
        }
        Action::Proxy { .. } => Ok(()),
    }
}

fn query(head: &RequestHead<'_>) -> String {
    head.query.map(|query| format!("?{query}")).unwrap_or_default()
}

/// The port to name: a client that named one reached the listener itself, one that named none came
/// through whatever maps 80 and 443 to the listeners.
fn https_port(head: &RequestHead<'_>, peer: &Peer<'_>) -> Option<u16> {
    if let Some(port) = peer.dynamic_port {
        // It speaks both, and another port is another service of the container.
        return Some(port);
    }
    let (_, port) = head.authority?.rsplit_once(':')?;
    port.parse::<u16>().ok().map(|_| peer.https_port).filter(|port| *port != 443)
}

fn to(status: u16, location: String) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let mut answer = Answer::new(Reason::Redirected, format!("see {location}"));
    answer.status = status;
    answer.location = Some(location);
    answer
}
