//! A certificate that is ready to serve, and what it says about itself.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ring::digest;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::route::HostName;

/// A chain with its key, and the facts of its first certificate.
pub(super) struct Certificate {
    pub key: Arc<CertifiedKey>,
    pub facts: Facts,
}

/// A name that a certificate is valid for. The common name is never one (RFC 9525 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CertName {
    Exact(HostName),
    /// `*.parent`: exactly one label before the parent (RFC 6125 §6.4.3).
    Wildcard(HostName),
    Ip(IpAddr),
}

impl CertName {
    fn dns(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(parent) => HostName::parse(parent).ok().map(Self::Wildcard),
            None => HostName::parse(text).ok().map(Self::Exact),
        }
    }

    fn ip(bytes: &[u8]) -> Option<Self> {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(Self::Ip)
    }
}

impl fmt::Display for CertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// What a certificate says about itself.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The subject alternative names; one that no host can have is left out.
    pub names: Vec<CertName>,
    pub issuer: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// Such as `ECDSA P-256` or `RSA 2048`.
    pub key_type: String,
    /// SHA-256 of the DER, in lower-case hex.
    pub sha256: String,
}

impl Facts {
    /// Reads a certificate in DER; the error says what is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| format!("it is no X.509 certificate ({e})"))?;
        let san = cert.subject_alternative_name().map_err(|e| format!("its subject alternative names: {e}"))?;
        let names = san.map(|san| san.value.general_names.as_slice()).unwrap_or_default();
        Ok(Self {
            names: names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(text) => CertName::dns(text),
                    GeneralName::IPAddress(bytes) => CertName::ip(bytes),
                    _ => None,
                })
                .collect(),
            issuer: cert.issuer().to_string(),
            not_before: cert.validity().not_before.to_datetime(),
            not_after: cert.validity().not_after.to_datetime(),
            key_type: key_type(&cert),
            sha256: hex(&sha256(der)),
        })
    }
}

fn key_type(cert: &X509Certificate<'_>) -> String {
    match cert.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        // Ed25519 (RFC 8410), which the parser knows by its identifier alone.
        _ if cert.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => cert.public_key().algorithm.algorithm.to_id_string(),
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
