//! Ports that lead to a container. What becomes of a rule is the gateway's to say.

use edd_events::clock::Micros;
use edd_proto::ContainerId;
use edd_proto::compute::IngressProtocol;

use super::Invalid;

/// A rule to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedRule {
    /// The gateway's.
    pub port: u16,
    /// The container's.
    pub target_port: u16,
    pub protocol: IngressProtocol,
}

impl WantedRule {
    /// # Errors
    /// A number is no port, or the gateway does not open that one for containers; the protocol is not known. Without a
    /// target, the container's port is the gateway's.
    pub fn parse(
        port: i64,
        target_port: Option<i64>,
        protocol: Option<&str>,
        allowed: &std::ops::RangeInclusive<u16>,
    ) -> Result<Self, Invalid> {
        let number = |number: i64| u16::try_from(number).ok().filter(|number| *number > 0);
        let in_range = number(port).filter(|port| allowed.contains(port));
        let port = in_range.ok_or_else(|| Invalid::new("port", format!("{} to {}", allowed.start(), allowed.end())))?;
        let target_port = number(target_port.unwrap_or_else(|| port.into()));
        let target_port = target_port.ok_or_else(|| Invalid::new("target_port", "1 to 65535"))?;
        let protocol = match protocol {
            None | Some("auto") => IngressProtocol::Unspecified,
            Some("http") => IngressProtocol::Http,
            Some("tls") => IngressProtocol::Tls,
            Some("tcp") => IngressProtocol::Tcp,
            Some(_) => return Err(Invalid::new("protocol", "auto, http, tls or tcp")),
        };
        Ok(Self { port, target_port, protocol })
    }
}

/// What the gateway said of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleState {
    /// Nothing yet.
    Pending,
    /// The port leads to the container.
    Active,
    Rejected,
}

impl RuleState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Rejected => "rejected",
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Rejected].into_iter().find(|state| state.as_str() == text)
    }
}

/// A rule that the database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The number of the request that made it, which the gateway's answer repeats.
    pub number: i64,
    pub container: ContainerId,
    pub port: u16,
    pub target_port: u16,
    pub protocol: IngressProtocol,
    pub state: RuleState,
    /// Why it was rejected, in the gateway's words.
    pub reason: String,
    /// Of its last event.
    pub version: i64,
    pub created_at: Micros,
    pub deleted_at: Option<Micros>,
}

/// The key that gateways have for a rule: a container has one for a port.
pub fn place(container: ContainerId, port: u16) -> String {
    format!("{container}/{port}")
}

/// The word for `protocol`.
pub(crate) fn protocol_word(protocol: IngressProtocol) -> &'static str {
    match protocol {
        IngressProtocol::Unspecified => "auto",
        IngressProtocol::Http => "http",
        IngressProtocol::Tls => "tls",
        IngressProtocol::Tcp => "tcp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(port: i64, target: Option<i64>, protocol: Option<&str>) -> Result<WantedRule, String> {
        WantedRule::parse(port, target, protocol, &(8000..=8100)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_is_for_a_port_that_the_gateway_opens() {
        for (port, target) in [(8000, None), (8100, Some(1)), (8050, Some(65_535))] {
            let rule = parse(port, target, None).expect("a rule");
            assert_eq!((i64::from(rule.port), i64::from(rule.target_port)), (port, target.unwrap_or(port)));
        }
        for port in [7999, 8101, 0, -8000, 80, 73_536, i64::MAX, i64::MIN] {
            assert_eq!(parse(port, None, None), Err("port: 8000 to 8100".to_owned()), "{port}");
        }
        for target in [0, -1, 65_536, 1 << 40] {
            assert_eq!(parse(8000, Some(target), None), Err("target_port: 1 to 65535".to_owned()), "{target}");
        }
    }

    #[test]
    fn protocols_are_words() {
        for (word, protocol) in [
            (None, IngressProtocol::Unspecified),
            (Some("auto"), IngressProtocol::Unspecified),
            (Some("http"), IngressProtocol::Http),
            (Some("tls"), IngressProtocol::Tls),
            (Some("tcp"), IngressProtocol::Tcp),
        ] {
            assert_eq!(parse(8000, None, word).expect("a rule").protocol, protocol);
            assert_eq!(word.unwrap_or("auto"), protocol_word(protocol));
        }
        assert!(parse(8000, None, Some("udp")).expect_err("no such").contains("auto, http, tls or tcp"));
    }
}
