//! The dynamic ports: port and container → route. Immutable like the table of hosts, and changed like it: one rule's
//! change copies a path of its maps and shares the rest.
//!
//! HTTP and TLS share a port among containers, told apart by Host and server name; raw TCP has a port for itself. That
//! rules fit together is decided before they come here; two that do not are both kept, and the later one of raw TCP
//! answers.

use std::sync::Arc;

use edd_proto::ContainerId;
use imbl::shared_ptr::DefaultSharedPtr;

type OrdMap<K, V> = imbl::GenericOrdMap<K, V, DefaultSharedPtr>;

/// How the connections of a port are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortProtocol {
    /// HTTP or TLS, told by a connection's first bytes.
    Sniff,
    Http,
    Tls,
    /// Bytes, whatever they mean.
    Tcp,
}

impl PortProtocol {
    pub const ALL: [Self; 4] = [Self::Sniff, Self::Http, Self::Tls, Self::Tcp];

    /// The name in lists and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sniff => "auto",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }

    /// Whether connections in plain HTTP are for its container.
    pub const fn takes_http(self) -> bool {
        matches!(self, Self::Sniff | Self::Http)
    }

    /// Whether connections over TLS are for its container.
    pub const fn takes_tls(self) -> bool {
        matches!(self, Self::Sniff | Self::Tls)
    }

    /// Whether rules of different containers with these protocols may hold one port.
    pub const fn shares_with(self, other: Self) -> bool {
        !matches!(self, Self::Tcp) && !matches!(other, Self::Tcp)
    }
}

/// A port of the gateway that leads to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRule {
    pub container: ContainerId,
    /// The gateway's.
    pub port: u16,
    /// The container's.
    pub target_port: u16,
    pub protocol: PortProtocol,
}

/// An immutable set of rules, each with what a match yields: a route to the container's port, for one.
#[derive(Debug)]
pub struct PortTable<T> {
    ports: OrdMap<u16, Port<T>>,
    len: usize,
}

/// The rules of one port.
#[derive(Debug)]
struct Port<T> {
    http: Rules<T>,
    tls: Rules<T>,
    tcp: Option<(PortRule, Arc<T>)>,
}

type Rules<T> = OrdMap<ContainerId, (PortRule, Arc<T>)>;

impl<T> Clone for PortTable<T> {
    /// Shares everything with the original.
    fn clone(&self) -> Self {
        Self { ports: self.ports.clone(), len: self.len }
    }
}

impl<T> Default for PortTable<T> {
    fn default() -> Self {
        Self { ports: OrdMap::default(), len: 0 }
    }
}

impl<T> Clone for Port<T> {
    fn clone(&self) -> Self {
        Self { http: self.http.clone(), tls: self.tls.clone(), tcp: self.tcp.clone() }
    }
}

impl<T> Default for Port<T> {
    fn default() -> Self {
        Self { http: Rules::default(), tls: Rules::default(), tcp: None }
    }
}

impl<T> Port<T> {
    /// Takes the rule of `container` away; whether there was one.
    fn remove(&mut self, container: ContainerId) -> bool {
        let tcp = self.tcp.take_if(|(rule, _)| rule.container == container).is_some();
        let http = self.http.remove(&container).is_some();
        let tls = self.tls.remove(&container).is_some();
        tcp || http || tls
    }

    fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tls.is_empty() && self.tcp.is_none()
    }

    /// Every rule once, with what it yields.
    fn rules(&self) -> impl Iterator<Item = &(PortRule, Arc<T>)> {
        // One that takes both stands in both maps.
        let tls_alone = self.tls.values().filter(|(rule, _)| !rule.protocol.takes_http());
        self.http.values().chain(tls_alone).chain(&self.tcp)
    }
}

impl<T> PortTable<T> {
    /// Sets what `container` has on `port`; none takes it away. Costs O(log n).
    ///
    /// The rule's port and container must be `port` and `container`.
    pub fn set(&mut self, port: u16, container: ContainerId, rule: Option<(PortRule, Arc<T>)>) {
        debug_assert!(rule.as_ref().is_none_or(|(rule, _)| (rule.port, rule.container) == (port, container)));
        let mut changed = self.ports.get(&port).cloned().unwrap_or_default();
        self.len -= usize::from(changed.remove(container));
        if let Some((rule, route)) = rule {
            // One raw rule has the port; whose place it takes is gone from the table.
            self.len += 1;
            if rule.protocol.takes_http() {
                changed.http.insert(container, (rule, Arc::clone(&route)));
            }
            if rule.protocol.takes_tls() {
                changed.tls.insert(container, (rule, Arc::clone(&route)));
            }
            if rule.protocol == PortProtocol::Tcp {
                self.len -= usize::from(changed.tcp.replace((rule, route)).is_some());
            }
        }
        if changed.is_empty() {
            self.ports.remove(&port);
        } else {
            self.ports.insert(port, changed);
        }
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What takes plain HTTP for `container` on `port`.
    pub fn match_http(&self, port: u16, container: ContainerId) -> Option<&Arc<T>> {
        self.ports.get(&port)?.http.get(&container).map(|(_, route)| route)
    }

    /// What takes TLS for `container` on `port`.
    pub fn match_tls(&self, port: u16, container: ContainerId) -> Option<&Arc<T>> {
        self.ports.get(&port)?.tls.get(&container).map(|(_, route)| route)
    }

    /// What takes every connection to `port`, whatever it says.
    pub fn match_tcp(&self, port: u16) -> Option<&(PortRule, Arc<T>)> {
        self.ports.get(&port)?.tcp.as_ref()
    }

    /// The rule that takes plain HTTP on `port`, if it is the only one: who names no container can mean no other.
    pub fn only_http(&self, port: u16) -> Option<&(PortRule, Arc<T>)> {
        let rules = &self.ports.get(&port)?.http;
        if rules.len() == 1 { rules.values().next() } else { None }
    }

    /// The same for TLS.
    pub fn only_tls(&self, port: u16) -> Option<&(PortRule, Arc<T>)> {
        let rules = &self.ports.get(&port)?.tls;
        if rules.len() == 1 { rules.values().next() } else { None }
    }

    /// The ports that lead somewhere, in order.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// The rules of one port with what they yield; those that take plain HTTP first.
    pub fn rules(&self, port: u16) -> impl Iterator<Item = &(PortRule, Arc<T>)> {
        self.ports.get(&port).into_iter().flat_map(Port::rules)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const PROTOCOLS: [PortProtocol; 4] =
        [PortProtocol::Sniff, PortProtocol::Http, PortProtocol::Tls, PortProtocol::Tcp];

    fn container(number: usize) -> ContainerId {
        format!("abcdefghi{number}").parse().unwrap()
    }

    /// What the table says, by looking at every rule there is.
    #[derive(Default)]
    struct Model {
        rules: BTreeMap<(u16, ContainerId), (PortRule, usize)>,
    }

    impl Model {
        fn set(&mut self, port: u16, container: ContainerId, rule: Option<(PortRule, usize)>) {
            self.rules.remove(&(port, container));
            let Some((rule, value)) = rule else { return };
            if rule.protocol == PortProtocol::Tcp {
                self.rules.retain(|(at, _), (rule, _)| *at != port || rule.protocol != PortProtocol::Tcp);
            }
            self.rules.insert((port, container), (rule, value));
        }

        fn on(&self, port: u16, takes: impl Fn(PortProtocol) -> bool) -> Vec<(ContainerId, usize)> {
            let of_port = self.rules.iter().filter(|((at, _), (rule, _))| *at == port && takes(rule.protocol));
            of_port.map(|((_, container), (_, value))| (*container, *value)).collect()
        }
    }

    fn agree(table: &PortTable<usize>, model: &Model) {
        assert_eq!(table.len(), model.rules.len());
        let ports: BTreeSet<u16> = model.rules.keys().map(|(port, _)| *port).collect();
        assert_eq!(table.ports().collect::<Vec<_>>(), Vec::from_iter(ports));
        for port in 8000..8004 {
            let http = model.on(port, PortProtocol::takes_http);
            let tls = model.on(port, PortProtocol::takes_tls);
            let tcp = model.on(port, |protocol| protocol == PortProtocol::Tcp);
            let of =
                |rules: &[(ContainerId, usize)], id| rules.iter().find(|(it, _)| *it == id).map(|(_, value)| *value);
            for id in (0..5).map(container) {
                assert_eq!(table.match_http(port, id).map(|value| **value), of(&http, id));
                assert_eq!(table.match_tls(port, id).map(|value| **value), of(&tls, id));
            }
            let named = |(rule, value): &(PortRule, Arc<usize>)| (rule.container, **value);
            assert_eq!(table.match_tcp(port).map(named), tcp.first().copied());
            assert_eq!(table.only_http(port).map(named), if http.len() == 1 { Some(http[0]) } else { None });
            assert_eq!(table.only_tls(port).map(named), if tls.len() == 1 { Some(tls[0]) } else { None });
            let rules: BTreeSet<_> = table.rules(port).map(named).collect();
            assert_eq!(table.rules(port).count(), rules.len(), "each rule once");
            assert_eq!(rules, BTreeSet::from_iter(model.on(port, |_| true)));
        }
    }

    proptest! {
        #[test]
        fn it_says_what_a_look_at_every_rule_says(
            changes in proptest::collection::vec((8000u16..8004, 0usize..5, proptest::option::of(0usize..4)), 0..60)
        ) {
            let (mut table, mut model) = (PortTable::default(), Model::default());
            for (value, (port, id, protocol)) in changes.into_iter().enumerate() {
                let id = container(id);
                let rule = protocol.map(|it| PortRule { container: id, port, target_port: 80, protocol: PROTOCOLS[it] });
                let before = table.clone();
                let old: Vec<_> = before.rules(port).map(|(rule, _)| *rule).collect();
                table.set(port, id, rule.map(|rule| (rule, Arc::new(value))));
                prop_assert_eq!(before.rules(port).map(|(rule, _)| *rule).collect::<Vec<_>>(), old, "a copy stays as it was");
                model.set(port, id, rule.map(|rule| (rule, value)));
                agree(&table, &model);
            }
        }
    }

    #[test]
    fn only_raw_tcp_wants_a_port_for_itself() {
        for one in PROTOCOLS {
            for other in PROTOCOLS {
                let raw = [one, other].contains(&PortProtocol::Tcp);
                assert_eq!(one.shares_with(other), !raw);
            }
        }
    }
}
