//! Redirects: to HTTPS, or to wherever a route says.

use http::StatusCode;

use crate::decision::{Answer, Peer, RequestHead};
use crate::reason::Reason;
use crate::route::{Action, Route};

/// The redirect that `route` answers with, if it does, as an error.
pub fn check(route: &Route, head: &RequestHead<'_>, peer: &Peer<'_>, host: &str, path: &str) -> Result<(), Answer> {
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    if route.https_only && super::forwarding::scheme(head.headers, peer) == "http" {
        let port = https_port(head, peer).map(|port| format!(":{port}")).unwrap_or_default();
        return Err(to(301, format!("https://{host}{port}{path}{query}")));
    }
    match &route.action {
        Action::Redirect(redirect) if redirect.exact => Err(to(redirect.status, redirect.to.to_string())),
        Action::Redirect(redirect) => {
            let kept = crate::table::upstream_path(route, path);
            Err(to(redirect.status, format!("{}{}{query}", redirect.to, kept.as_deref().unwrap_or(path))))
        }
        Action::Proxy { .. } => Ok(()),
    }
}

/// The port to name: a client that named one reached the listener itself, one that named none came
/// through whatever maps 80 and 443 to the listeners.
fn https_port(head: &RequestHead<'_>, peer: &Peer<'_>) -> Option<u16> {
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
