//! What a rule must fulfil, without the database: the checks that need nothing but the request, and the words in which a
//! tenant reads of a refusal.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use edd_events::compute_cache::ingress_requests::IngressRequest;
use edd_proto::compute::IngressProtocol;
use edd_proto::gateway::IngressRejection;

use crate::table::ports::{PortProtocol, PortRule};

/// The ports that tenants may ask for, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

/// Text that is no range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write two ports from 1 to 65535, the lower one first: 8000-8100")]
pub struct InvalidRange;

impl PortRange {
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// Both ends included.
    pub fn bounds(&self) -> RangeInclusive<u16> {
        self.0.clone()
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self(8000..=8100)
    }
}

impl FromStr for PortRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let (first, last) = text.trim().split_once('-').ok_or(InvalidRange)?;
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or(InvalidRange);
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(Self(first..=last)) } else { Err(InvalidRange) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

/// What a gateway lets tenants have.
#[derive(Clone, Debug, Default)]
pub struct PortPolicy {
    pub range: PortRange,
    /// The ports of the gateway's own listeners.
    pub reserved: BTreeSet<u16>,
}

/// Why a request is refused: for programs, and in words for the container's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: IngressRejection,
    pub message: String,
}

impl PortPolicy {
    /// The rule that `request` asks for, if it could be one whatever else there is.
    ///
    /// # Errors
    /// The refusal to answer it with.
    pub fn check(&self, request: &IngressRequest) -> Result<PortRule, Refusal> {
        let refuse = |reason, message| Err(Refusal { reason, message });
        let IngressRequest { port, target_port, container, .. } = *request;
        let Some(port) = u16::try_from(port).ok().filter(|port| self.range.contains(*port)) else {
            let message =
                format!("port {port} is none of the ports that containers may have, ask for one of {}", self.range);
            return refuse(IngressRejection::PortOutOfRange, message);
        };
        if self.reserved.contains(&port) {
            let message = format!("port {port} is the gateway's own, ask for another one of {}", self.range);
            return refuse(IngressRejection::PortReserved, message);
        }
        let Some(target_port) = u16::try_from(target_port).ok().filter(|port| *port > 0) else {
            let message = format!("{target_port} is no port that a container has, name one from 1 to 65535");
            return refuse(IngressRejection::TargetPortInvalid, message);
        };
        Ok(PortRule { container, port, target_port, protocol: protocol(request.protocol) })
    }

    /// The refusal of a port that another container has.
    pub fn taken(&self, wanted: &PortRule) -> Refusal {
        let PortRule { port, protocol, .. } = wanted;
        let message = match protocol {
            PortProtocol::Tcp => format!(
                "other containers share port {port}, and raw TCP needs a port for itself; \
                 ask for another one of {}, or for HTTP or TLS",
                self.range
            ),
            _ => format!(
                "another container has port {port} for raw TCP, which leaves no room beside it; \
                 ask for another one of {}",
                self.range
            ),
        };
        Refusal { reason: IngressRejection::PortTaken, message }
    }

    /// The refusal of a port that the machine does not give.
    pub fn unavailable(&self, wanted: &PortRule, error: &std::io::Error) -> Refusal {
        let message = format!(
            "the gateway's machine does not give port {} ({}), something else may hold it; ask for another one of {}",
            wanted.port,
            error.kind(),
            self.range
        );
        Refusal { reason: IngressRejection::PortUnavailable, message }
    }
}

/// How the gateway understands what compute's event says.
pub fn protocol(asked: IngressProtocol) -> PortProtocol {
    match asked {
        IngressProtocol::Unspecified => PortProtocol::Sniff,
        IngressProtocol::Http => PortProtocol::Http,
        IngressProtocol::Tls => PortProtocol::Tls,
        IngressProtocol::Tcp => PortProtocol::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(port: i32, target_port: i32) -> IngressRequest {
        let container = "abcdefghij".parse().unwrap();
        IngressRequest { container, port, target_port, protocol: IngressProtocol::Unspecified, request_id: 1 }
    }

    #[test]
    fn ranges_are_two_ports_in_order() {
        assert_eq!("8000-8100".parse::<PortRange>().unwrap(), PortRange::default());
        assert_eq!(" 1 - 65535 ".parse::<PortRange>().unwrap().to_string(), "1-65535");
        assert!("9000-9000".parse::<PortRange>().unwrap().contains(9000));
        for bad in ["", "8000", "8100-8000", "0-80", "80-65536", "-80", "80-", "a-b", "1-2-3"] {
            assert_eq!(bad.parse::<PortRange>(), Err(InvalidRange), "{bad}");
        }
    }

    #[test]
    fn a_request_is_checked_by_itself() {
        let policy = PortPolicy { reserved: [8080].into(), ..PortPolicy::default() };
        let reason = |port, target| policy.check(&request(port, target)).map_err(|refusal| refusal.reason);
        for port in [-1, 0, 7999, 8101, 65536, i32::MIN, i32::MAX, 65536 + 8000] {
            assert_eq!(reason(port, 80), Err(IngressRejection::PortOutOfRange), "{port}");
        }
        for target in [-1, 0, 65536, i32::MIN, i32::MAX] {
            assert_eq!(reason(8000, target), Err(IngressRejection::TargetPortInvalid), "{target}");
        }
        assert_eq!(reason(8080, 80), Err(IngressRejection::PortReserved));
        let rule = policy.check(&request(8100, 65535)).unwrap();
        assert_eq!((rule.port, rule.target_port, rule.protocol), (8100, 65535, PortProtocol::Sniff));
    }
}
