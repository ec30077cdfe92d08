//! Why a request did not get its answer from an upstream. Every error that the gateway makes
//! itself has one; logs, metrics and error pages name it.

use http::StatusCode;
use serde::Serialize;

macro_rules! reasons {
    ($($variant:ident $name:literal $status:literal $explanation:literal;)+) => {
        /// A bounded vocabulary: each variant is one value of the metric label `reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($variant),+ }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in logs, metrics and error bodies.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The status a client gets, if it can still be told one.
            pub const fn status(self) -> StatusCode {
                // The literals below are valid status codes; 499 and the like have no constant.
                match StatusCode::from_u16(match self { $(Self::$variant => $status),+ }) {
                    Ok(status) => status,
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
                }
            }

            /// One sentence for the person who sees the error page.
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$variant => $explanation),+ }
            }
        }
    };
}

reasons! {
    BadFraming "bad_framing" 400 "The request's head is malformed or says in two ways where the request ends.";
    BadTarget "bad_target" 400 "The request's target is not one that a server can answer.";
    BadPath "bad_path" 400 "The request's path is malformed or ambiguous.";
    BadHost "bad_host" 400 "The request's host is missing or malformed.";
    BadBody "bad_body" 400 "The request's body is malformed.";
    PlainOnTls "plain_http_on_https" 400 "This port speaks HTTPS, and the request came as plain HTTP.";
    NoRoute "no_route" 404 "No route is configured for this address.";
    NoContainer "no_container" 404 "There is no such container.";
    HttpsDisabled "https_disabled" 403 "This container does not answer over HTTPS.";
    ContainersUnknown "containers_unknown" 503 "The gateway does not know its containers yet.";
    ContainerStarting "container_starting" 503 "This container is being started.";
    ContainerStopped "container_stopped" 503 "This container is stopped.";
    ContainerFailed "container_failed" 503 "This container could not be started, or died.";
    ContainerWaking "container_waking" 503 "This container was asleep and is waking up.";
    WakeQueueFull "wake_queue_full" 503 "Too many requests wait for this container to wake up.";
    WakeFailed "wake_failed" 503 "This container could not be woken.";
    WakeTimeout "wake_timeout" 504 "This container did not wake up in time.";
    MethodNotAllowed "method_not_allowed" 405 "The gateway does not forward this method.";
    HeaderTimeout "header_timeout" 408 "The request's head did not arrive in time.";
    BodyTimeout "body_timeout" 408 "The request's body stopped arriving.";
    BodyTooLarge "body_too_large" 413 "The request's body is larger than this route takes.";
    Misdirected "misdirected" 421 "This host must be asked over a connection of its own, with TLS.";
    NoPortRule "no_port_rule" 421 "This port leads to other hosts.";
    HeadersTooLarge "headers_too_large" 431 "The request's head is larger than the gateway takes.";
    ClientCertificate "client_certificate_required" 403 "This host asks its clients for a certificate.";
    ClientClosed "client_closed" 499 "The client left before the answer was complete.";
    BadVersion "bad_version" 505 "The gateway speaks HTTP/1.0, HTTP/1.1 and HTTP/2.";
    Redirected "redirected" 301 "The address has another, canonical form.";
    UpstreamRefused "upstream_refused" 502 "The service behind this address refused the connection.";
    UpstreamUnreachable "upstream_unreachable" 502 "The service behind this address cannot be reached.";
    UpstreamDns "upstream_dns" 502 "The name of the service behind this address does not resolve.";
    UpstreamTls "upstream_tls" 502 "The service behind this address failed the TLS handshake.";
    UpstreamClosed "upstream_closed" 502 "The service behind this address closed the connection before it answered.";
    UpstreamInvalidResponse "upstream_invalid_response" 502 "The service behind this address answered with something that is not HTTP.";
    UpstreamH2 "upstream_h2" 502 "The service behind this address broke the HTTP/2 protocol.";
    NoTarget "no_target" 503 "No service behind this address is in rotation.";
    Overloaded "overloaded" 503 "The gateway is at its limit; try again in a moment.";
    UpstreamConnectTimeout "upstream_connect_timeout" 504 "The service behind this address did not accept the connection in time.";
    UpstreamTimeout "upstream_timeout" 504 "The service behind this address did not answer in time.";
    StreamIdle "stream_idle" 504 "Nothing moved on the stream for longer than its idle timeout.";
    RouteRemoved "route_removed" 503 "The route was removed while the exchange was running.";
    ShuttingDown "shutting_down" 503 "The gateway is shutting down.";
    Internal "internal" 500 "The gateway failed; its log has the request id.";
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_statuses_are_real() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        let internal: Vec<_> = Reason::ALL.iter().filter(|r| r.status() == StatusCode::INTERNAL_SERVER_ERROR).collect();
        assert_eq!(internal, [&Reason::Internal]);
    }
}
