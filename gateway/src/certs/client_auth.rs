//! Which hosts ask their clients for a certificate (mutual TLS).

use std::collections::HashMap;
use std::iter;
use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::CertsError;
use super::certificate::sha256;
use super::pair::{certificates, read_pem};
use super::report::{Problem, ReloadReport};
use super::server_config::{Resolver, build, provider};
use crate::route::{ClientAuth, HostPattern};

/// The hosts with settings of their own; all others ask for nothing.
#[derive(Default)]
pub(super) struct ClientAuthTable {
    hosts: Vec<Host>,
    /// Hosts that ask for nothing although a less exact one asks.
    open: Vec<HostPattern>,
    exact: HashMap<Box<str>, Option<Arc<ServerConfig>>>,
    /// By the part behind `*.`.
    wildcard: HashMap<Box<str>, Option<Arc<ServerConfig>>>,
    any: Option<Arc<ServerConfig>>,
}

#[derive(Clone)]
struct Host {
    pattern: HostPattern,
    auth: ClientAuth,
    setting: Setting,
    config: Arc<ServerConfig>,
}

/// What tells one way of asking from another: the authorities themselves, so that a new version of their file makes
/// for a new setting, and two files of the same content for one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Setting {
    authorities_sha256: [u8; 32],
    required: bool,
}

impl ClientAuthTable {
    /// Builds the table for `hosts`; what is unchanged keeps the sessions that it has in `last`.
    pub fn build(
        hosts: Vec<(HostPattern, Option<ClientAuth>)>,
        last: &Self,
        resolver: &Arc<Resolver>,
    ) -> Result<Self, CertsError> {
        let (mut built, mut open): (Vec<Host>, _) = (Vec::new(), Vec::new());
        for (pattern, auth) in hosts {
            let Some(auth) = auth else {
                open.push(pattern);
                continue;
            };
            match built.iter().find(|host| host.pattern == pattern) {
                Some(host) if host.auth == auth => {}
                Some(_) => return Err(CertsError::ClientAuthConflict(pattern)),
                None => {
                    let (setting, config) = configure(&auth, last.hosts.iter().chain(&built), resolver)?;
                    built.push(Host { pattern, auth, setting, config });
                }
            }
        }
        let asking = Self::index(built, Vec::new());
        // Of the others, which may be many, only those matter that would be asked by mistake.
        open.retain(|pattern| match pattern {
            HostPattern::Exact(name) => asking.get(Some(name.as_str())).is_some(),
            HostPattern::Wildcard(suffix) => asking.get(Some(&format!("*.{suffix}"))).is_some(),
            HostPattern::Any => false,
        });
        Ok(Self::index(asking.hosts, open))
    }

    /// Builds the table again, with the authorities as their files are now. A file that went bad leaves its hosts as
    /// they are.
    pub fn reread(&self, resolver: &Arc<Resolver>, report: &mut ReloadReport) -> Self {
        let mut hosts: Vec<Host> = Vec::new();
        for host in &self.hosts {
            let mut host = host.clone();
            match configure(&host.auth, self.hosts.iter().chain(&hosts), resolver) {
                Ok((setting, _)) if setting == host.setting => {}
                Ok((setting, config)) => {
                    (host.setting, host.config) = (setting, config);
                    report.loaded.push(host.auth.ca_file.clone());
                }
                Err(error) => {
                    let path = host.auth.ca_file.clone();
                    report.problems.push(Problem { path, message: error.to_string(), in_service: true });
                }
            }
            hosts.push(host);
        }
        // Many hosts may share one file.
        report.loaded.dedup();
        report.problems.dedup();
        Self::index(hosts, self.open.clone())
    }

    fn index(hosts: Vec<Host>, open: Vec<HostPattern>) -> Self {
        let mut table = Self::default();
        let asking = hosts.iter().map(|host| (&host.pattern, Some(host.config.clone())));
        for (pattern, config) in asking.chain(open.iter().map(|pattern| (pattern, None))) {
            match pattern {
                HostPattern::Exact(name) => drop(table.exact.insert(name.as_str().into(), config)),
                HostPattern::Wildcard(suffix) => drop(table.wildcard.insert(suffix.as_str().into(), config)),
                HostPattern::Any => table.any = config,
            }
        }
        Self { hosts, open, ..table }
    }

    /// The settings for a lower-case name: exact, then the longest wildcard, then any. A client that sent no name
    /// goes by `any` alone.
    pub fn get(&self, name: Option<&str>) -> Option<&Arc<ServerConfig>> {
        let own = name.and_then(|name| {
            let mut parents = iter::successors(parent(name), |name| parent(name));
            self.exact.get(name).or_else(|| parents.find_map(|suffix| self.wildcard.get(suffix)))
        });
        own.unwrap_or(&self.any).as_ref()
    }
}

/// The name without its first label.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

/// Reads a setting's authorities, and takes what is `built` for the like, or builds it.
fn configure<'a>(
    auth: &ClientAuth,
    mut built: impl Iterator<Item = &'a Host>,
    resolver: &Arc<Resolver>,
) -> Result<(Setting, Arc<ServerConfig>), CertsError> {
    let text = read_pem(&auth.ca_file)?;
    let setting = Setting { authorities_sha256: sha256(&text), required: auth.required };
    let config = match built.find(|host| host.setting == setting) {
        Some(host) => host.config.clone(),
        None => Arc::new(server_config(&auth.ca_file, &text, auth.required, resolver)?),
    };
    Ok((setting, config))
}

fn server_config(
    ca_file: &Path,
    text: &[u8],
    required: bool,
    resolver: &Arc<Resolver>,
) -> Result<ServerConfig, CertsError> {
    let hint = "put the PEM certificates of the clients' authorities there";
    let bad = |problem: String| CertsError::file(ca_file, problem, hint);
    let mut roots = RootCertStore::empty();
    for (number, der) in (1..).zip(certificates(ca_file, text)?) {
        roots.add(der).map_err(|error| bad(format!("its certificate number {number} is no authority ({error})")))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
    build(resolver, verifier.build().map_err(|error| bad(error.to_string()))?)
}
