//! A TLS client, and the server half that a listener would be.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use super::authority::Pem;
use crate::certs::CertStore;

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// What a client saw of a handshake that worked.
pub struct Seen {
    pub cert: CertificateDer<'static>,
    pub version: ProtocolVersion,
    pub resumed: bool,
    pub alpn: Option<Vec<u8>>,
    pub cipher: CipherSuite,
    /// Whether the server saw a certificate of the client.
    pub client_known: bool,
}

#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    pub fn new(roots: RootCertStore, versions: &[&'static SupportedProtocolVersion], identity: Option<&Pem>) -> Self {
        Self::of(ring::default_provider(), roots, versions, identity)
    }

    /// One that knows these ciphers, in this order.
    pub fn with_ciphers(roots: RootCertStore, ciphers: &[SupportedCipherSuite]) -> Self {
        let provider = CryptoProvider { cipher_suites: ciphers.to_vec(), ..ring::default_provider() };
        Self::of(provider, roots, &[&TLS13], None)
    }

    fn of(
        provider: CryptoProvider,
        roots: RootCertStore,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Pem>,
    ) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some(pem) => builder.with_client_auth_cert(vec![pem.der.clone()], pem.key_der()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        Self(Arc::new(config))
    }

    pub fn with_alpn(mut self, protocol: &[u8]) -> Self {
        Arc::make_mut(&mut self.0).alpn_protocols = vec![protocol.to_vec()];
        self
    }

    /// Resumes TLS 1.2 by session id instead of by ticket.
    pub fn by_session_id(mut self) -> Self {
        let sessions = Resumption::in_memory_sessions(16).tls12_resumption(Tls12Resumption::SessionIdOnly);
        Arc::make_mut(&mut self.0).resumption = sessions;
        self
    }

    /// Opens a connection for `name`, moves a byte each way, and closes it.
    pub async fn connect(&self, store: &CertStore, name: &str) -> Result<Seen, rustls::Error> {
        let (client_io, server_io) = tokio::io::duplex(64 * 1024);
        let (client, server) = tokio::join!(self.talk(client_io, name), serve(store, server_io));
        let seen = client.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            cause.cloned().unwrap_or_else(|| panic!("no TLS error: {error}"))
        })?;
        Ok(Seen { client_known: server.unwrap(), ..seen })
    }

    async fn talk(&self, io: DuplexStream, name: &str) -> io::Result<Seen> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(self.0.clone()).connect(name, io).await?;
        stream.write_all(b"?").await?;
        stream.read_u8().await?;
        let tls = stream.get_ref().1;
        Ok(Seen {
            cert: tls.peer_certificates().unwrap()[0].clone().into_owned(),
            version: tls.protocol_version().unwrap(),
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
            cipher: tls.negotiated_cipher_suite().unwrap().suite(),
            client_known: false,
        })
    }
}

async fn serve(store: &CertStore, io: DuplexStream) -> io::Result<bool> {
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let config = match store.server_config(&hello.client_hello()) {
        Ok(config) => config,
        Err(refusal) => {
            hello.io.write_all(refusal.alert()).await?;
            return Err(io::Error::other(refusal));
        }
    };
    let mut stream = hello.into_stream(config).await?;
    stream.read_u8().await?;
    stream.write_all(b"!").await?;
    stream.shutdown().await?;
    Ok(stream.get_ref().1.peer_certificates().is_some())
}
