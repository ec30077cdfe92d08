//! Which file certificate a client gets: built once per reload, read once per handshake.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::certificate::{CertName, Certificate};

/// The file certificates by name. Of several for one name, the one that is valid longest is chosen.
#[derive(Default)]
pub(super) struct SniIndex {
    exact: HashMap<Box<str>, Arc<Certificate>>,
    /// By the part behind `*.`.
    wildcard: HashMap<Box<str>, Arc<Certificate>>,
    ip: HashMap<IpAddr, Arc<Certificate>>,
    /// For clients that send no name, which are those that went to an address. Which address it was is not in
    /// their hello, and behind a load balancer the socket does not tell either.
    any_ip: Option<Arc<Certificate>>,
}

impl SniIndex {
    pub fn build<'a>(certificates: impl Iterator<Item = &'a Arc<Certificate>>) -> Self {
        let mut index = Self::default();
        for certificate in certificates {
            for name in &certificate.facts.names {
                match name {
                    CertName::Exact(name) => keep_longest_valid(&mut index.exact, name.as_str().into(), certificate),
                    CertName::Wildcard(parent) => {
                        keep_longest_valid(&mut index.wildcard, parent.as_str().into(), certificate);
                    }
                    CertName::Ip(ip) => keep_longest_valid(&mut index.ip, *ip, certificate),
                }
            }
        }
        index.any_ip = index.ip.values().max_by_key(|c| (c.facts.not_after, &c.facts.sha256)).cloned();
        index
    }

    /// The certificate for a lower-case name without a trailing dot.
    pub fn name(&self, name: &str) -> Option<&Arc<Certificate>> {
        self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }

    pub fn ip(&self, ip: IpAddr) -> Option<&Arc<Certificate>> {
        self.ip.get(&ip)
    }

    /// The certificate for a client that sent no name.
    pub fn no_name(&self) -> Option<&Arc<Certificate>> {
        self.any_ip.as_ref()
    }
}

fn keep_longest_valid<K: Hash + Eq>(map: &mut HashMap<K, Arc<Certificate>>, key: K, certificate: &Arc<Certificate>) {
    match map.entry(key) {
        Entry::Vacant(free) => {
            free.insert(certificate.clone());
        }
        Entry::Occupied(mut held) => {
            if held.get().facts.not_after < certificate.facts.not_after {
                held.insert(certificate.clone());
            }
        }
    }
}
