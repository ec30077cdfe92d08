//! The way into containers by SSH: its settings, and what the gateway library needs for it of the rest of the process.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use edd_control::compute::platform::sshd::UserAuthorities;
use edd_events::clock::Clock;
use edd_gateway::access_log::AccessLog;
use edd_gateway::containers::Containers;
use edd_gateway::ssh::audit::Audit;
use edd_gateway::ssh::authority::Authority;
use edd_gateway::ssh::directory::Directory;
use edd_gateway::ssh::exec::Programs;
use edd_gateway::ssh::keys::Keys;
use edd_gateway::ssh::metrics::Metrics;
use edd_gateway::ssh::patience::Patience;
use edd_gateway::ssh::penalties::{self, Penalties};
use edd_gateway::ssh::recording::{self, MAX_FILE_BYTES, Recorded, Recorder};
use edd_gateway::ssh::sessions::{self, MAX_PER_USER, Sessions};
use edd_gateway::ssh::{self, Config};
use edd_proto::ContainerId;
use prometheus::Registry;

use crate::exit::Failure;

/// Where SSH is served if nothing else is said.
pub const PORT: u16 = 2222;

/// How tenants get into their containers by SSH.
#[derive(Clone, Debug, Args)]
pub struct SshArgs {
    /// SSH listener [default: port 2222].
    #[arg(long, value_name = "ADDR", env = "EDD_SSH_LISTEN")]
    ssh_listen: Option<SocketAddr>,
    /// The gateway's SSH keys, which replicas share; those that are missing are made [default: `ssh` in the data
    /// directory].
    #[arg(long, value_name = "DIR", env = "EDD_SSH_KEYS_DIR")]
    ssh_keys_dir: Option<PathBuf>,
    /// From the first byte of an SSH connection to its login.
    #[arg(long, value_name = "TIME", env = "EDD_SSH_LOGIN_GRACE", default_value = "30s", value_parser = humantime::parse_duration)]
    ssh_login_grace: Duration,
    /// Show the ECDSA host key beside the ed25519 and the RSA one. It is on a NIST curve, which audits call a failure, and
    /// every client that knows it knows RSA: for those that were told to take nothing else.
    #[arg(long, value_name = "BOOL", env = "EDD_SSH_ECDSA_HOST_KEY", default_value_t = false, action = clap::ArgAction::Set)]
    ssh_ecdsa_host_key: bool,
    /// An end of a session that says nothing for this long is asked whether it is there, and given up on after three
    /// questions and four times as long.
    #[arg(long, value_name = "TIME", env = "EDD_SSH_KEEPALIVE", default_value = "30s", value_parser = parse_keepalive)]
    ssh_keepalive: Duration,
    /// Sessions over SSH that one user may have at once.
    #[arg(long, value_name = "COUNT", env = "EDD_SSH_MAX_SESSIONS", default_value_t = MAX_PER_USER)]
    ssh_max_sessions: usize,
    /// Record what terminals of SSH sessions show (asciicast) in this directory.
    #[arg(long, value_name = "DIR", env = "EDD_SSH_RECORD_DIR")]
    ssh_record_dir: Option<PathBuf>,
    /// Whose sessions are recorded: containers, separated by commas, or `all`.
    #[arg(long, value_name = "IDS", env = "EDD_SSH_RECORD", default_value = "all", value_parser = parse_recorded)]
    ssh_record: Recorded,
}

fn parse_keepalive(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it has to be longer than nothing".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

fn parse_recorded(text: &str) -> Result<Recorded, String> {
    if text == "all" {
        return Ok(Recorded::All);
    }
    let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
    let ids: Result<BTreeSet<ContainerId>, _> = ids.map(str::parse).collect();
    ids.map(Recorded::Containers).map_err(|error| error.to_string())
}

impl SshArgs {
    /// The gateway's keys, from their directory. Those that are missing are made.
    ///
    /// # Errors
    /// The directory cannot be read or written, or what is in it is not what it should be.
    pub async fn keys(&self, data_dir: &Path) -> Result<Keys, Failure> {
        let dir = self.ssh_keys_dir.clone().unwrap_or_else(|| data_dir.join("ssh"));
        let opening = tokio::task::spawn_blocking(move || Keys::open(&dir)).await.map_err(std::io::Error::other)?;
        opening.map_err(|error| Failure::config(error.to_string()))
    }
}

/// Whom the containers of this process let in, which is who comes by this gateway.
///
/// # Errors
/// The key is none that sshd takes, which keys of a directory never are.
pub fn user_authorities(keys: &Keys) -> Result<UserAuthorities, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::config(format!("the user CA of the gateway: {error}"));
    let line = keys.user_ca.public_key().to_openssh().map_err(|error| wrong(&error))?;
    line.parse().map_err(|error| wrong(&error))
}

/// What SSH is served with, before the gateway is there.
#[derive(Debug)]
pub struct Entry {
    pub keys: Keys,
    pub containers: Containers,
    pub programs: Arc<dyn Programs>,
    pub clock: Arc<dyn Clock>,
}

impl Entry {
    /// What the gateway takes: where it listens, and what with.
    ///
    /// # Errors
    /// Recordings cannot be written.
    pub fn serve(
        self,
        args: &SshArgs,
        bind: IpAddr,
        access_log: &AccessLog,
        registry: &Registry,
    ) -> Result<(SocketAddr, Config), Failure> {
        let Self { keys, containers, programs, clock } = self;
        let metrics = Metrics::on(registry)?;
        let recorder = match &args.ssh_record_dir {
            None => None,
            Some(dir) => Some(Recorder::start(recording::Config {
                dir: dir.clone(),
                recorded: args.ssh_record.clone(),
                max_file_bytes: MAX_FILE_BYTES,
                clock: Arc::clone(&clock),
                lost: metrics.recording_lost.clone(),
            })?),
        };
        let sessions = Sessions::new(sessions::Config {
            watches: containers.watches().clone(),
            audit: Audit::new(access_log.clone()),
            recorder,
            metrics,
            clock: Arc::clone(&clock),
            max_per_user: args.ssh_max_sessions,
        });
        let penalties = Penalties::new(penalties::Config::default(), Arc::clone(&clock));
        let config = ssh::Config {
            host_keys: keys.hosts,
            shows_nist_keys: args.ssh_ecdsa_host_key,
            admitter: Arc::new(Directory::new(containers.router().clone(), penalties)),
            authority: Authority::new(keys.user_ca, clock),
            events: Arc::new(sessions.clone()),
            sessions: Some(sessions),
            programs,
            wakes: Some(containers.wakes().clone()),
            presence: Some(containers.presence().clone()),
            login_grace: args.ssh_login_grace,
            patience: Patience { ask_every: args.ssh_keepalive },
            rekey_after_bytes: ssh::REKEY_AFTER_BYTES,
        };
        Ok((args.ssh_listen.unwrap_or(SocketAddr::new(bind, PORT)), config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_are_all_or_those_that_are_named() {
        assert_eq!(parse_recorded("all"), Ok(Recorded::All));
        let ids = ["abcdefghij", "klmnopqrst"].map(|id| id.parse().unwrap());
        assert_eq!(parse_recorded("abcdefghij, klmnopqrst,"), Ok(Recorded::Containers(ids.into())));
        assert!(parse_recorded("abc").is_err());
    }
}
