//! Certificates for tests, and connections over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, ServerConfig};
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

/// A TLS client that trusts one authority and nobody else.
pub struct Client(ClientConfig);

/// What the handshake agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub version: Option<ProtocolVersion>,
    /// `h2`, `http/1.1`, or empty.
    pub alpn: String,
    /// The server's own certificate, DER.
    pub certificate: Vec<u8>,
}

impl Client {
    pub fn trusting(authority_pem: &str) -> Self {
        Self(ClientConfig::builder().with_root_certificates(roots(authority_pem)).with_no_client_auth())
    }

    /// With a certificate of its own.
    pub fn with_identity(authority_pem: &str, identity: &Identity) -> Self {
        let config = ClientConfig::builder().with_root_certificates(roots(authority_pem));
        let config = config.with_client_auth_cert(identity.chain(), identity.private_key());
        Self(config.expect("the key fits the certificate"))
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.0.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Shakes hands with `name` as SNI.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<(Connection, Agreed)> {
        let tcp = within("a TCP connection", TcpStream::connect(address)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).expect("a host name");
        let connector = TlsConnector::from(Arc::new(self.0.clone()));
        let stream = within("a TLS handshake", connector.connect(name, tcp)).await?;
        let session = stream.get_ref().1;
        let agreed = Agreed {
            version: session.protocol_version(),
            alpn: String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned(),
            certificate: session.peer_certificates().map(|c| c[0].to_vec()).unwrap_or_default(),
        };
        Ok((Connection::over(stream), agreed))
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
