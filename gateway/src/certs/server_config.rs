//! What the gateway says in a TLS handshake, and what it says when it will not have one.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, ServerConfig, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedCipherSuite};
use time::OffsetDateTime;

use super::CertsError;
use super::certificate::Certificate;
use super::local_ca::LocalCa;
use super::sni_index::SniIndex;

/// Plaintext in a TLS record, with the 5 bytes of its head: 4 KiB once it is sealed. A client can use a small
/// record sooner, and blocks of this size are reused while they are in the cache: a quarter less CPU for large
/// bodies than with records of 16 KiB.
const MAX_RECORD_BYTES: usize = 4096 - 17;
/// Sessions of TLS 1.2 clients that take no tickets, remembered per set of settings.
const MAX_TLS12_SESSIONS: usize = 4096;

/// Tickets after a TLS 1.3 handshake. Each connection brings the next one, and a second at a time is 2 % of a handshake.
const TLS13_TICKETS: usize = 1;

/// Why a client gets no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no certificate covers the name that the client asked for")]
    UnknownName,
    #[error("the client named no host, and no certificate holds an address")]
    NoName,
}

impl Refusal {
    /// The bytes to write to the socket before closing it: a fatal `unrecognized_name` alert (RFC 6066 §3).
    ///
    /// rustls has no way to send it: its own answer to a missing certificate is `access_denied`. Nothing is encrypted
    /// before the server's hello, so a whole record is these seven bytes in TLS 1.2 and 1.3 alike. With
    /// [`tokio_rustls::LazyConfigAcceptor`], write them to [`tokio_rustls::StartHandshake::io`].
    pub const fn alert(self) -> &'static [u8; 7] {
        const ALERT: u8 = 21;
        const FATAL: u8 = 2;
        const UNRECOGNIZED_NAME: u8 = 112;
        &[ALERT, 3, 3, 0, 2, FATAL, UNRECOGNIZED_NAME]
    }
}

/// Finds the certificate for a client: the operator's files first, then the local authority.
pub(super) struct Resolver {
    pub files: ArcSwap<SniIndex>,
    pub local_ca: Option<LocalCa>,
}

impl Resolver {
    /// Whether a client that sent this name, or none, gets a certificate. Signs nothing.
    pub fn check(&self, name: Option<&str>) -> Result<(), Refusal> {
        let files = self.files.load();
        let Some(name) = name else {
            return if files.no_name().is_some() || self.local_ca.is_some() { Ok(()) } else { Err(Refusal::NoName) };
        };
        let known = files.name(name).is_some() || self.local_ca.as_ref().is_some_and(|ca| ca.covers(name));
        if known { Ok(()) } else { Err(Refusal::UnknownName) }
    }

    fn find(&self, name: Option<&str>, now: OffsetDateTime) -> Option<Arc<Certificate>> {
        let files = self.files.load();
        let file = match name {
            Some(name) => files.name(name),
            None => files.no_name(),
        };
        file.cloned().or_else(|| self.local_ca.as_ref()?.leaf(name, now))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(server_name(&hello), OffsetDateTime::now_utc()).map(|certificate| certificate.key.clone())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The name of a client's hello in the form that certificates are indexed by; rustls has lowered its case.
pub(super) fn server_name<'a>(hello: &'a ClientHello<'_>) -> Option<&'a str> {
    hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name))
}

/// The settings for hosts that ask their clients for no certificate; sessions of the one resume with the other.
#[derive(Debug)]
pub(super) struct OpenToAll {
    /// The cipher is ours to choose.
    by_our_order: Arc<ServerConfig>,
    by_theirs: Arc<ServerConfig>,
}

impl OpenToAll {
    pub fn new(resolver: &Arc<Resolver>) -> Result<Self, CertsError> {
        let by_theirs = build(resolver, Arc::new(NoClientAuth))?;
        let mut by_our_order = by_theirs.clone();
        by_our_order.ignore_client_order = true;
        Ok(Self { by_our_order: Arc::new(by_our_order), by_theirs: Arc::new(by_theirs) })
    }

    /// Those for one client. Most name AES-256 first and lose nothing with AES-128; one that names ChaCha20 first has
    /// no hardware for AES, and gets what it asks for.
    pub fn choose(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        let has_aes = |suite: &CipherSuite| match suite {
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(false),
            _ => our_order().any(|ours| ours.suite() == *suite).then_some(true),
        };
        match hello.cipher_suites().iter().find_map(has_aes) {
            Some(false) => &self.by_theirs,
            _ => &self.by_our_order,
        }
    }
}

/// The ciphers, in the order in which they are preferred: AES-128 has ten rounds where AES-256 has fourteen, and the
/// hash that goes with it makes a handshake cheaper, too (by 6 % of its instructions).
fn our_order() -> impl Iterator<Item = SupportedCipherSuite> {
    use ring::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
    };
    let first =
        [TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let others = ring::DEFAULT_CIPHER_SUITES.iter().copied().filter(move |suite| !first.contains(suite));
    first.into_iter().chain(others)
}

/// The settings for one way of asking. Each has tickets and a session cache of its own: a session from a host that
/// asks for no certificate must not be resumed where one is required.
pub(super) fn build(
    resolver: &Arc<Resolver>,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, CertsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = TLS13_TICKETS;
    config.session_storage = ServerSessionMemoryCache::new(MAX_TLS12_SESSIONS);
    // What arrives as early data can be replayed (RFC 8446 §8).
    config.max_early_data_size = 0;
    config.max_fragment_size = Some(MAX_RECORD_BYTES);
    Ok(config)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: our_order().collect(), ..ring::default_provider() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_stateless_and_no_early_data_is_taken() {
        let resolver = Arc::new(Resolver { files: ArcSwap::default(), local_ca: None });
        let OpenToAll { by_our_order, by_theirs } = OpenToAll::new(&resolver).unwrap();
        for config in [by_our_order, by_theirs] {
            assert!(config.ticketer.enabled());
            assert_eq!(config.max_early_data_size, 0);
        }
    }
}
