//! The handle that everything else holds.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::ClientHello;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::client_auth::ClientAuthTable;
use super::files::FileSet;
use super::local_ca::LocalCa;
use super::report::ReloadReport;
use super::server_config::{OpenToAll, Refusal, Resolver, server_name};
use super::sni_index::SniIndex;
use super::{CertInfo, CertsError};
use crate::route::{ClientAuth, HostName, HostPattern};

/// Where certificates come from.
#[derive(Clone, Debug, Default)]
pub struct CertsConfig {
    /// The operator's directory; it may be absent, and appear later.
    pub certs_dir: Option<PathBuf>,
    /// The authority that signs for local names; none leaves it off.
    pub local_ca: Option<LocalCaConfig>,
}

/// The local authority.
#[derive(Clone, Debug)]
pub struct LocalCaConfig {
    /// Holds `root.pem` and `root.key`; created on first use.
    pub dir: PathBuf,
    /// The domains to sign for, with all below them. `localhost` is always one.
    pub names: Vec<HostName>,
}

/// All certificates of the gateway, and the TLS settings that go with them. Clones share everything.
#[derive(Clone)]
pub struct CertStore {
    inner: Arc<Inner>,
}

struct Inner {
    certs_dir: Option<PathBuf>,
    resolver: Arc<Resolver>,
    /// For every host that asks its clients for no certificate, so that they share their resumption state.
    open_to_all: OpenToAll,
    client_auth: ArcSwap<ClientAuthTable>,
    /// Whoever writes `resolver.files` or `client_auth` holds this.
    files: Mutex<FileSet>,
    reports: watch::Sender<Arc<ReloadReport>>,
}

impl CertStore {
    /// Reads all certificates. Pairs of files that are no good are in [`CertStore::reports`], they keep nobody from
    /// starting.
    ///
    /// # Errors
    /// When the directory is there and cannot be read, or when the local authority can be neither loaded nor made.
    pub fn open(config: CertsConfig) -> Result<Self, CertsError> {
        let local_ca = config.local_ca.map(|ca| LocalCa::open(&ca, OffsetDateTime::now_utc())).transpose()?;
        let resolver = Arc::new(Resolver { files: ArcSwap::default(), local_ca });
        let certs_dir = match config.certs_dir {
            // A watch outlives a change of the working directory, should there be one.
            Some(dir) => Some(std::path::absolute(&dir).map_err(CertsError::io("find", &dir))?),
            None => None,
        };
        if let Some(dir) = &certs_dir {
            match std::fs::read_dir(dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(CertsError::io("read", dir)(error)),
                _ => {}
            }
        }
        let store = Self {
            inner: Arc::new(Inner {
                certs_dir,
                open_to_all: OpenToAll::new(&resolver)?,
                resolver,
                client_auth: ArcSwap::default(),
                files: Mutex::default(),
                reports: watch::Sender::default(),
            }),
        };
        store.reload();
        Ok(store)
    }

    /// The TLS settings for a client, by the name in its hello.
    ///
    /// For [`tokio_rustls::LazyConfigAcceptor`]. Takes no lock; a first client of a local name has its certificate
    /// signed while the handshake goes on.
    ///
    /// # Errors
    /// A [`Refusal`] is to be answered with [`Refusal::alert`].
    pub fn server_config(&self, hello: &ClientHello<'_>) -> Result<Arc<ServerConfig>, Refusal> {
        let name = server_name(hello);
        self.inner.resolver.check(name)?;
        Ok(self.inner.client_auth.load().get(name).unwrap_or_else(|| self.inner.open_to_all.choose(hello)).clone())
    }

    /// Replaces the hosts and what they ask of their clients; none asks for nothing. Matched exact, then longest
    /// wildcard, then any; hosts whose settings stay the same keep their sessions.
    ///
    /// # Errors
    /// When an authority's file is no good, or a host is there twice with different settings; nothing changes then.
    pub fn set_client_auth(&self, hosts: Vec<(HostPattern, Option<ClientAuth>)>) -> Result<(), CertsError> {
        let _writing = self.files();
        let table = ClientAuthTable::build(hosts, &self.inner.client_auth.load(), &self.inner.resolver)?;
        self.inner.client_auth.store(Arc::new(table));
        Ok(())
    }

    /// Whether a request for `host` may be served over a connection that was opened for `server_name`: both must ask
    /// for the same client certificates. If not, answer 421, or a client slips past the question by naming a host that
    /// does not ask. Clients do not name an address, so an address that asks is never served.
    pub fn shares_client_auth(&self, server_name: Option<&str>, host: &HostName) -> bool {
        let table = self.inner.client_auth.load();
        table.get(server_name).map(Arc::as_ptr) == table.get(Some(host.as_str())).map(Arc::as_ptr)
    }

    /// Whether a client gets a certificate for this name or address.
    pub fn covers(&self, name: &str) -> bool {
        let Inner { resolver, .. } = &*self.inner;
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return resolver.files.load().ip(ip).is_some() || (resolver.local_ca.is_some() && LocalCa::covers_ip(ip));
        }
        HostName::parse(name).is_ok_and(|name| resolver.check(Some(name.as_str())).is_ok())
    }

    /// Every certificate: files by path, the local root, then what it has signed and still remembers.
    pub fn list(&self) -> Vec<CertInfo> {
        let now = OffsetDateTime::now_utc();
        let files = self.files();
        let local_ca = self.inner.resolver.local_ca.as_ref();
        files.list(now).chain(local_ca.into_iter().flat_map(|ca| ca.list(now))).collect()
    }

    /// Reads all files again, the clients' authorities among them. What went bad stays in service as it was.
    pub fn reload(&self) -> Arc<ReloadReport> {
        let Inner { certs_dir, resolver, client_auth, reports, .. } = &*self.inner;
        let mut files = self.files();
        let mut report = ReloadReport::default();
        if let Some(dir) = certs_dir {
            let new = FileSet::read(dir, &files);
            new.report(&files, OffsetDateTime::now_utc(), &mut report);
            if report.changes_service() {
                resolver.files.store(Arc::new(SniIndex::build(new.certificates())));
            }
            *files = new;
        }
        client_auth.store(Arc::new(client_auth.load().reread(resolver, &mut report)));
        let last = reports.borrow().clone();
        report.count(&last);
        report.log(&last);
        let report = Arc::new(report);
        reports.send_replace(report.clone());
        report
    }

    /// The latest report, and a way to wait for the next: for metrics, readiness and tests.
    pub fn reports(&self) -> watch::Receiver<Arc<ReloadReport>> {
        self.inner.reports.subscribe()
    }

    /// The directory that is watched.
    pub(super) fn certs_dir(&self) -> Option<&PathBuf> {
        self.inner.certs_dir.as_ref()
    }

    fn files(&self) -> MutexGuard<'_, FileSet> {
        // The set is replaced as a whole, so a panic elsewhere left a good one.
        self.inner.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
