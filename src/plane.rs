//! The settings of the event plane, which every role with a database shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use edd_events::bus::Bus;
use edd_events::bus::jetstream::{JetStreamBus, JetStreamConfig};
use edd_events::bus::local::LocalBus;
use edd_events::clock::{Clock, SystemClock};
use edd_proto::Encoding;

use crate::exit::Failure;
use crate::secret::{self, Secret};

#[derive(Clone, Debug, Args)]
pub struct PlaneArgs {
    /// NATS servers, separated by commas [default: none; `edd up` then keeps a log of its own].
    #[arg(long, value_name = "URLS", env = "NATS_URL", default_value = "", hide_default_value = true)]
    nats_url: String,
    /// The user that NATS knows this role by.
    #[arg(long, value_name = "NAME", env = "NATS_USER")]
    nats_user: Option<String>,
    #[arg(long, value_name = "PASSWORD", env = "NATS_PASSWORD", hide_env_values = true, hide = true)]
    nats_password: Option<Secret>,
    /// File with the password of `--nats-user`.
    #[arg(long, value_name = "FILE", env = "NATS_PASSWORD_FILE")]
    nats_password_file: Option<PathBuf>,
    /// Credentials file for NATS: a JWT and its key.
    #[arg(long, value_name = "FILE", env = "NATS_CREDS")]
    nats_creds: Option<PathBuf>,
    /// Authorities, as PEM, that NATS' certificate is checked against [default: the system's].
    #[arg(long, value_name = "FILE", env = "NATS_TLS_CA")]
    nats_tls_ca: Option<PathBuf>,
    /// How events are written: `protobuf` or `json`. Both are read.
    #[arg(long, value_name = "ENCODING", env = "EDD_EVENT_ENCODING", default_value = "protobuf")]
    event_encoding: Encoding,
    #[arg(long, value_name = "KEY", env = "SERVICE_API_KEY", hide_env_values = true, hide = true)]
    service_api_key: Option<Secret>,
    /// File with the key by which services know each other.
    #[arg(long, value_name = "FILE", env = "SERVICE_API_KEY_FILE")]
    service_api_key_file: Option<PathBuf>,
}

/// What the services of one process share.
#[derive(Clone, Debug)]
pub struct Plane {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub encoding: Encoding,
    /// The key by which services know each other.
    pub service_key: Option<Secret>,
}

impl PlaneArgs {
    /// The plane of services on `bus`.
    pub fn plane(&self, bus: Arc<dyn Bus>) -> Result<Plane, Failure> {
        let key = secret::resolve("SERVICE_API_KEY", self.service_api_key.clone(), self.service_api_key_file.clone())?;
        Ok(Plane { bus, clock: Arc::new(SystemClock), encoding: self.event_encoding, service_key: key })
    }

    /// The bus of a role that runs with others; none without NATS_URL.
    ///
    /// NATS need not be there yet: it is connected to as soon as it is.
    pub async fn jetstream(&self, role: &str) -> Result<Option<Arc<dyn Bus>>, Failure> {
        if self.nats_url.is_empty() {
            return Ok(None);
        }
        let password = secret::resolve("NATS_PASSWORD", self.nats_password.clone(), self.nats_password_file.clone())?;
        let config = JetStreamConfig {
            urls: self.nats_url.clone(),
            user: self.nats_user.clone(),
            password: password.map(|secret| secret.reveal().to_owned()),
            credentials_file: self.nats_creds.clone(),
            tls_ca_file: self.nats_tls_ca.clone(),
            inbox_prefix: None,
            name: format!("edd {role}"),
        };
        let bus = JetStreamBus::connect(&config).await;
        let bus = bus.map_err(|error| Failure::config(format!("NATS_URL {}: {error}", self.nats_url)))?;
        Ok(Some(Arc::new(bus)))
    }

    /// The bus of `edd up`: NATS if it is named, else a log in the data directory.
    pub async fn bus(&self, data_dir: &Path) -> Result<Arc<dyn Bus>, Failure> {
        if let Some(bus) = self.jetstream("up").await? {
            return Ok(bus);
        }
        let file = data_dir.join("bus.db");
        let bus = LocalBus::open(&file, Arc::new(SystemClock)).await;
        let bus = bus.map_err(|error| Failure::config(format!("{}: {error}", file.display())))?;
        Ok(Arc::new(bus))
    }
}
