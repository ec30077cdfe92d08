//! The local authority: signs for local names when a client asks for one.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use imbl::HashMap;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use super::certificate::{Certificate, Facts};
use super::info::{CertInfo, CertSource};
use super::root::Root;
use super::{CertsError, LocalCaConfig};
use crate::route::HostName;

/// Clocks that run behind, in containers and on phones, still find a new certificate valid.
pub(super) const BACKDATED: Duration = Duration::hours(1);
const LEAF_LIFETIME: Duration = Duration::days(7);
/// A leaf is signed anew when less than this is left of it.
const RENEWED_BEFORE_END: Duration = Duration::hours(7 * 24 / 3);
/// Clients choose the names: this bounds what they can make us remember. The oldest goes first.
const MAX_LEAFS: usize = 1024;
const LOCALHOST: &str = "localhost";

/// Signs leafs on demand and remembers them.
pub(super) struct LocalCa {
    root: Root,
    /// Lower-case suffixes, `localhost` among them.
    names: Vec<HostName>,
    /// By zone; replaced on writing so that reading takes no lock.
    leafs: ArcSwap<HashMap<Box<str>, Arc<Certificate>>>,
    /// The zones in the order of their signing. Held while signing, so that a rush on one zone signs once.
    oldest_first: Mutex<VecDeque<Box<str>>>,
}

impl LocalCa {
    /// Opens the authority of `config.dir`, and creates it on first use.
    pub fn open(config: &LocalCaConfig, now: OffsetDateTime) -> Result<Self, CertsError> {
        let names = suffixes(&config.names)?;
        Ok(Self {
            root: Root::open(&config.dir, &names, now)?,
            names,
            leafs: ArcSwap::default(),
            oldest_first: Mutex::default(),
        })
    }

    /// Whether the authority signs for a lower-case name.
    pub fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|suffix| within(name, suffix.as_str()))
    }

    /// Whether the authority signs for an address: those of this machine to itself that the `localhost` leaf holds.
    pub fn covers_ip(ip: IpAddr) -> bool {
        ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
    }

    /// The leaf for a lower-case name, or for a client that sent none because it went to an address.
    ///
    /// None when the name is not ours, or, logged, when signing failed.
    pub fn leaf(&self, name: Option<&str>, now: OffsetDateTime) -> Option<Arc<Certificate>> {
        let zone = self.zone(name.unwrap_or(LOCALHOST))?;
        if let Some(leaf) = self.leafs.load().get(zone).filter(|leaf| is_fresh(&leaf.facts, now)) {
            return Some(leaf.clone());
        }
        let mut oldest_first = self.oldest_first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = self.leafs.load().get(zone).filter(|leaf| is_fresh(&leaf.facts, now)) {
            return Some(leaf.clone());
        }
        let leaf = match self.sign(zone, now) {
            Ok(leaf) => Arc::new(leaf),
            Err(error) => {
                tracing::error!("the local authority cannot sign for `{zone}`: {error}");
                return None;
            }
        };
        let mut leafs = HashMap::clone(&self.leafs.load());
        if leafs.insert(zone.into(), leaf.clone()).is_some() {
            oldest_first.retain(|other| **other != *zone);
        } else if leafs.len() > MAX_LEAFS
            && let Some(oldest) = oldest_first.pop_front()
        {
            leafs.remove(&oldest);
        }
        oldest_first.push_back(zone.into());
        self.leafs.store(Arc::new(leafs));
        Some(leaf)
    }

    /// The root, then the leafs by name.
    pub fn list(&self, now: OffsetDateTime) -> Vec<CertInfo> {
        let root = CertInfo::of(&self.root.facts, CertSource::LocalRoot(self.root.path.clone()), now);
        let leafs = HashMap::clone(&self.leafs.load());
        let mut list: Vec<_> =
            leafs.values().map(|leaf| CertInfo::of(&leaf.facts, CertSource::LocalLeaf, now)).collect();
        list.sort_by(|a, b| a.names.cmp(&b.names));
        list.insert(0, CertInfo { names: self.names.iter().map(ToString::to_string).collect(), ..root });
        list
    }

    /// What a leaf is signed and remembered for: a domain and the names one label below it.
    ///
    /// A name shares its parent's leaf, so thousands of containers need one, and none shows another's name. A parent
    /// of a single label, `localhost`, shares nothing: clients take no `*.localhost`.
    fn zone<'a>(&self, name: &'a str) -> Option<&'a str> {
        if !self.covers(name) {
            return None;
        }
        let parent = name.split_once('.').map(|(_, parent)| parent);
        Some(parent.filter(|parent| parent.contains('.') && self.covers(parent)).unwrap_or(name))
    }

    fn sign(&self, zone: &str, now: OffsetDateTime) -> Result<Certificate, SignError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let leaf = leaf_params(zone, now)?.signed_by(&key, &self.root.issuer)?;
        let facts = Facts::parse(leaf.der()).map_err(SignError::Malformed)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // The root is not sent along: whoever does not have it gains nothing from it.
        let key = CertifiedKey::from_der(vec![leaf.into()], key, &ring::default_provider())?;
        Ok(Certificate { key: Arc::new(key), facts })
    }
}

#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error(transparent)]
    Sign(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error("{0}")]
    Malformed(String),
}

fn leaf_params(zone: &str, now: OffsetDateTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATED;
    params.not_after = params.not_before + LEAF_LIFETIME;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "edd local certificate");
    params.subject_alt_names.push(SanType::DnsName(zone.try_into()?));
    if zone == LOCALHOST {
        let ips = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        params.subject_alt_names.extend(ips.map(SanType::IpAddress));
    }
    if zone.contains('.') {
        params.subject_alt_names.push(SanType::DnsName(format!("*.{zone}").try_into()?));
    }
    Ok(params)
}

/// The names to sign for, without those that lie below another of them.
fn suffixes(names: &[HostName]) -> Result<Vec<HostName>, CertsError> {
    let localhost = HostName::parse(LOCALHOST).expect("`localhost` is a host name");
    let mut suffixes = vec![localhost];
    for name in names {
        if name.as_str().starts_with('[') || name.as_str().parse::<IpAddr>().is_ok() {
            return Err(CertsError::LocalName(name.clone()));
        }
        if !suffixes.iter().any(|suffix| within(name.as_str(), suffix.as_str())) {
            suffixes.retain(|suffix| !within(suffix.as_str(), name.as_str()));
            suffixes.push(name.clone());
        }
    }
    Ok(suffixes)
}

/// Whether `name` is `suffix` or lies below it, by whole labels.
pub(super) fn within(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A leaf from the future, after the clock was set back, is as useless as one from the past.
fn is_fresh(facts: &Facts, now: OffsetDateTime) -> bool {
    facts.not_before <= now && now + RENEWED_BEFORE_END <= facts.not_after
}
