//! One certificate file with its key file, read from disk.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::CertsError;
use super::certificate::{Certificate, Facts, sha256};

/// Longest PEM file that is read, in bytes; a chain with its key has a few thousand.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Both files of a pair, as they stand on disk.
pub(super) struct PairText {
    cert_path: PathBuf,
    key_path: PathBuf,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl PairText {
    pub fn read(cert_path: &Path, key_path: &Path) -> Result<Self, CertsError> {
        Ok(Self {
            cert: read_pem(cert_path)?,
            key: read_pem(key_path)?,
            cert_path: cert_path.to_owned(),
            key_path: key_path.to_owned(),
        })
    }

    /// Tells one version of the pair from another.
    pub fn digest(&self) -> [u8; 32] {
        sha256([sha256(&self.cert), sha256(&self.key)].as_flattened())
    }

    /// Parses the pair and checks that it can be served.
    pub fn certificate(&self) -> Result<Certificate, CertsError> {
        let chain = certificates(&self.cert_path, &self.cert)?;
        let facts = Facts::parse(&chain[0])
            .map_err(|problem| CertsError::file(&self.cert_path, problem, "put a PEM certificate in its place"))?;
        if facts.names.is_empty() {
            return Err(CertsError::file(
                &self.cert_path,
                "it names no host (clients look at the subject alternative names, never at the common name)",
                "have it issued again with a subjectAltName",
            ));
        }
        let key = CertifiedKey::from_der(chain, self.private_key()?, &ring::default_provider());
        Ok(Certificate { key: Arc::new(key.map_err(|error| self.mismatch(error))?), facts })
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, CertsError> {
        PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            let encrypted = self.key.windows(21).any(|text| text == b"ENCRYPTED PRIVATE KEY");
            match error {
                pem::Error::NoItemsFound if encrypted => CertsError::file(
                    &self.key_path,
                    "the private key is encrypted",
                    "decrypt it with `openssl pkey -in FILE -out FILE`",
                ),
                pem::Error::NoItemsFound => {
                    CertsError::file(&self.key_path, "it holds no private key", "put the PEM private key there")
                }
                error => CertsError::file(
                    &self.key_path,
                    format!("it is not well-formed PEM ({error})"),
                    "copy the file again, whole",
                ),
            }
        })
    }

    fn mismatch(&self, error: TlsError) -> CertsError {
        match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => CertsError::file(
                &self.key_path,
                format!("it is not the key of the first certificate in `{}`", self.cert_path.display()),
                "replace the one that is out of date, and let the server's own certificate stand first in the chain",
            ),
            TlsError::General(problem) => {
                CertsError::file(&self.key_path, problem, "use an RSA, ECDSA (P-256, P-384) or Ed25519 key")
            }
            error => CertsError::file(&self.cert_path, error.to_string(), "have the certificate issued again"),
        }
    }
}

/// Every certificate of a PEM text, at least one.
pub(super) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertsError> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let list = list.map_err(|error| {
        CertsError::file(path, format!("it is not well-formed PEM ({error})"), "copy the file again, whole")
    })?;
    if list.is_empty() {
        let hint = "put PEM there, which begins with -----BEGIN CERTIFICATE-----";
        return Err(CertsError::file(path, "it holds no certificate", hint));
    }
    Ok(list)
}

/// Reads a PEM file of bounded size; refuses what is no regular file, on which a read might never end.
pub(super) fn read_pem(path: &Path) -> Result<Vec<u8>, CertsError> {
    if !fs::metadata(path).map_err(CertsError::io("read", path))?.is_file() {
        return Err(CertsError::file(path, "it is not a file", "put a PEM file in its place"));
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(CertsError::io("read", path))?;
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut text).map_err(CertsError::io("read", path))?;
    if text.len() as u64 > MAX_PEM_BYTES {
        let problem = format!("it is larger than {MAX_PEM_BYTES} bytes");
        return Err(CertsError::file(path, problem, "leave only the certificate chain or the key in it"));
    }
    Ok(text)
}
