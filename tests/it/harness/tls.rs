//! Certificates for tests, and connections over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use tokio_rustls::rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::connection::Connection;
use super::record::within;

/// An authority that signs whatever a test needs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("ring makes keys");
        Self(CertifiedIssuer::self_signed(params, key).expect("valid parameters"))
    }

    /// Its own certificate, to be trusted.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for these host names and addresses.
    pub fn sign(&self, names: &[&str]) -> Identity {
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        let params = CertificateParams::new(names).expect("valid names");
        let key = KeyPair::generate().expect("ring makes keys");
        let certificate = params.signed_by(&key, &self.0).expect("valid parameters");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Identity {
    /// The certificate as it is sent.
    pub fn der(&self) -> Vec<u8> {
        self.chain()[0].to_vec()
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.certificate)
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a PEM key")
    }

    /// A TLS server with this identity, for every client.
    pub fn server(&self, alpn: &[&str]) -> TlsAcceptor {
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config =
            config.with_single_cert(self.chain(), self.private_key()).expect("the key fits the certificate");
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A TLS server with this identity, for clients that `clients` has signed.
    pub fn acceptor(&self, clients: &Authority, alpn: &[&str]) -> TlsAcceptor {
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots(&clients.pem()))).build().expect("an authority");
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        let mut config =
            config.with_single_cert(self.chain(), self.private_key()).expect("the key fits the certificate");
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A TLS client that trusts one authority and nobody else. It resumes sessions where the server lets it.
pub struct Client {
    authority_pem: String,
    config: ClientConfig,
}

/// What the handshake agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub version: Option<ProtocolVersion>,
    /// `h2`, `http/1.1`, or empty.
    pub alpn: String,
    /// The server's own certificate, DER.
    pub certificate: Vec<u8>,
    /// Whether the session is that of an earlier handshake.
    pub resumed: bool,
}

impl Client {
    pub fn trusting(authority_pem: &str) -> Self {
        let config = ClientConfig::builder().with_root_certificates(roots(authority_pem)).with_no_client_auth();
        Self { authority_pem: authority_pem.to_owned(), config }
    }

    /// With a certificate of its own.
    pub fn with_identity(authority_pem: &str, identity: &Identity) -> Self {
        let config = ClientConfig::builder().with_root_certificates(roots(authority_pem));
        let config = config.with_client_auth_cert(identity.chain(), identity.private_key());
        Self { authority_pem: authority_pem.to_owned(), config: config.expect("the key fits the certificate") }
    }

    /// Of this version of TLS alone.
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        let config = ClientConfig::builder_with_protocol_versions(&[version]);
        let config = config.with_root_certificates(roots(&self.authority_pem));
        let mut config = config.with_client_cert_resolver(self.config.client_auth_cert_resolver.clone());
        config.alpn_protocols = std::mem::take(&mut self.config.alpn_protocols);
        Self { config, ..self }
    }

    /// Offers the session of whatever host it was at last to every other host.
    pub fn careless(mut self) -> Self {
        self.config.resumption = Resumption::store(Arc::new(OneDrawer(ClientSessionMemoryCache::new(16))));
        self
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Shakes hands with `name` as SNI.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<(Connection, Agreed)> {
        let tcp = within("a TCP connection", TcpStream::connect(address)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).expect("a host name");
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let stream = within("a TLS handshake", connector.connect(name, tcp)).await?;
        let session = stream.get_ref().1;
        let agreed = Agreed {
            version: session.protocol_version(),
            alpn: String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned(),
            certificate: session.peer_certificates().map(|c| c[0].to_vec()).unwrap_or_default(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        Ok((Connection::over(stream), agreed))
    }
}

/// Keeps the sessions of all hosts as if they were of one.
#[derive(Debug)]
struct OneDrawer(ClientSessionMemoryCache);

fn drawer() -> ServerName<'static> {
    ServerName::try_from("drawer").expect("a host name")
}

impl ClientSessionStore for OneDrawer {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(drawer(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&drawer())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(drawer(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&drawer())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&drawer());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(drawer(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&drawer())
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("PEM certificates")
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem) {
        roots.add(certificate).expect("a certificate that can be trusted");
    }
    roots
}
