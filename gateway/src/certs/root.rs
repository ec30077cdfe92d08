//! The local authority's own certificate and key, on disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PublicKeyData,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CertsError;
use super::certificate::{Facts, hex, sha256};
use super::local_ca::{BACKDATED, within};
use super::pair::{certificates, read_pem};
use crate::route::HostName;

pub(super) const ROOT_FILE: &str = "root.pem";
const KEY_FILE: &str = "root.key";
const ROOT_LIFETIME: Duration = Duration::days(3652);

/// The authority: what signs, and what it says about itself.
pub(super) struct Root {
    pub path: PathBuf,
    pub facts: Facts,
    pub issuer: Issuer<'static, KeyPair>,
}

impl Root {
    /// Loads the authority of `dir`, and creates it where there is none yet.
    ///
    /// # Errors
    /// Files that are there and no good are an error, never replaced: clients may trust what they once held.
    pub fn open(dir: &Path, names: &[HostName], now: OffsetDateTime) -> Result<Self, CertsError> {
        let missing = |file: &str| fs::symlink_metadata(dir.join(file)).is_err_and(|e| e.kind() == ErrorKind::NotFound);
        if missing(ROOT_FILE) && missing(KEY_FILE) {
            create(dir, names, now)?;
        }
        Self::load(dir, names, now)
    }

    fn load(dir: &Path, names: &[HostName], now: OffsetDateTime) -> Result<Self, CertsError> {
        let path = dir.join(ROOT_FILE);
        let bad = |file: &Path, problem: String| CertsError::file(file, problem, start_over(dir));
        let text = |file: &Path| {
            read_pem(file).map_err(|error| match error {
                CertsError::Io { source, .. } => bad(file, format!("it cannot be read ({source})")),
                error => error,
            })
        };
        let der = certificates(&path, &text(&path)?).map_err(|_| bad(&path, "it is no PEM certificate".into()))?;
        let der = der.into_iter().next().expect("certificates() yields at least one");
        let facts = Facts::parse(&der).map_err(|problem| bad(&path, problem))?;
        let key_path = dir.join(KEY_FILE);
        let key = String::from_utf8(text(&key_path)?).ok().and_then(|text| KeyPair::from_pem(&text).ok());
        let key = key.ok_or_else(|| bad(&key_path, "it is no PEM private key".into()))?;
        check(&der, &key, names).map_err(|problem| bad(&path, problem))?;
        if facts.not_after <= now {
            return Err(bad(&path, format!("it expired on {}", facts.not_after)));
        }
        warn_of_open_key(&key_path)?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| bad(&path, error.to_string()))?;
        Ok(Self { path, facts, issuer })
    }
}

fn start_over(dir: &Path) -> String {
    format!(
        "restore it from a backup, or move `{}` away to have a new authority made, and run `edd certs trust` again",
        dir.display()
    )
}

/// Whether certificate and key make an authority that may sign for all of `names`; the error says what is wrong.
fn check(der: &CertificateDer<'_>, key: &KeyPair, names: &[HostName]) -> Result<(), String> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    if !cert.is_ca() {
        return Err("it is no certificate authority".to_owned());
    }
    if cert.public_key().raw != key.subject_public_key_info() {
        return Err(format!("`{KEY_FILE}` is not its key"));
    }
    let constraints = cert.name_constraints().map_err(|error| error.to_string())?;
    let Some(permitted) = constraints.and_then(|constraints| constraints.value.permitted_subtrees.as_ref()) else {
        return Ok(());
    };
    let permitted = permitted.iter().filter_map(|subtree| match subtree.base {
        GeneralName::DNSName(name) => Some(name),
        _ => None,
    });
    match names.iter().find(|name| !permitted.clone().any(|root| within(name.as_str(), root))) {
        None => Ok(()),
        Some(name) => {
            let list: Vec<_> = permitted.collect();
            Err(format!("it may sign for {} only, not for `{name}`", list.join(", ")))
        }
    }
}

fn warn_of_open_key(key_path: &Path) -> Result<(), CertsError> {
    let mode = fs::metadata(key_path).map_err(CertsError::io("read", key_path))?.permissions().mode();
    if mode & 0o077 != 0 {
        let path = key_path.display();
        tracing::warn!("other users may read `{path}`, with which they can pass for any local site: chmod 600 it");
    }
    Ok(())
}

/// Makes a new authority. It appears as a whole, so that a crash leaves nothing half done, and of two processes that
/// start at once one wins and the other loads what the winner made.
fn create(dir: &Path, names: &[HostName], now: OffsetDateTime) -> Result<(), CertsError> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(CertsError::io("create", parent))?;
    let draft = parent.join(format!(".new-ca-{}", hex(&random_bytes::<8>()?)));
    DirBuilder::new().mode(0o700).create(&draft).map_err(CertsError::io("create", &draft))?;
    let moved = write(&draft, names, now).and_then(|()| {
        fs::rename(&draft, dir).or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => Ok(()),
            _ => Err(CertsError::io("create", dir)(error)),
        })
    });
    // Still there when writing failed, or when another process was faster.
    if let Err(error) = fs::remove_dir_all(&draft)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!("cannot remove `{}`: {error}; it holds an unused key, delete it", draft.display());
    }
    moved?;
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(CertsError::io("save", parent))
}

fn write(dir: &Path, names: &[HostName], now: OffsetDateTime) -> Result<(), CertsError> {
    let failed = |error: rcgen::Error| CertsError::file(dir, error.to_string(), "no local authority could be made");
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let root = params(&key, names, now).self_signed(&key).map_err(failed)?;
    for (file, mode, text) in [(ROOT_FILE, 0o644, root.pem()), (KEY_FILE, 0o600, key.serialize_pem())] {
        let path = dir.join(file);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(CertsError::io("create", &path))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(CertsError::io("write", &path))?;
    }
    Ok(())
}

fn params(key: &KeyPair, names: &[HostName], now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATED;
    params.not_after = now + ROOT_LIFETIME;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Two authorities of one name confuse clients that trusted an earlier one.
    let id = hex(&sha256(&key.subject_public_key_info())[..4]);
    params.distinguished_name.push(DnType::CommonName, format!("edd local CA {id}"));
    // Whoever steals the key of a constrained root gains these names and no others.
    let loopback = [(IpAddr::from(Ipv4Addr::new(127, 0, 0, 0)), 8), (IpAddr::from(Ipv6Addr::LOCALHOST), 128)];
    let ips = loopback.map(|(ip, prefix)| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, prefix)));
    let names = names.iter().map(|name| GeneralSubtree::DnsName(name.to_string()));
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: names.chain(ips).collect(), excluded_subtrees: Vec::new() });
    params
}

fn random_bytes<const N: usize>() -> Result<[u8; N], CertsError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    Ok(bytes)
}
