//! Hosts that ask their clients for a certificate are reached only through a handshake for that host.

use crate::decision::{Answer, Peer};
use crate::reason::Reason;
use crate::route::Route;

/// TLS asks for the certificate before the request names its host, so a connection opened for
/// another name, or without TLS, must not reach a protected host (RFC 9110 §7.4).
pub fn check(route: &Route, peer: &Peer<'_>, host: &str) -> Result<(), Answer> {
    let Some(auth) = &route.client_auth else { return Ok(()) };
    let Some(tls) = peer.tls else {
        return Err(Answer::new(Reason::Misdirected, "this host is served over HTTPS with a client certificate only"));
    };
    if tls.server_name.as_deref() != Some(host) {
        return Err(Answer::new(Reason::Misdirected, "the TLS connection was opened for another host name"));
    }
    if auth.required && !tls.client_certificate {
        return Err(Answer::new(Reason::ClientCertificate, "the client sent no certificate"));
    }
    Ok(())
}
