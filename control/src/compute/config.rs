//! What an operator decides about the compute service.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::service_key::ServiceKey;

/// Everything about it. `Default` is what `edd up` runs with, but for names and ports of the gateway.
#[derive(Clone, Debug)]
pub struct ComputeConfig {
    /// The dashboard's host, without a port; containers live under `compute.` of it.
    pub base_domain: String,
    pub ssh_port: SshPort,
    /// The ports that the gateway opens for containers.
    pub ingress_ports: RangeInclusive<u16>,
    /// What other services show. None: nobody may ask as one, over HTTP.
    pub service_key: Option<ServiceKey>,
    pub quotas: Quotas,
    pub sizes: Sizes,
    pub sleep: Sleep,
    pub reconcile: Reconcile,
}

impl Default for ComputeConfig {
    fn default() -> Self {
        Self {
            base_domain: "cloud.localhost".to_owned(),
            ssh_port: SshPort::new(2222),
            ingress_ports: 8000..=8100,
            service_key: None,
            quotas: Quotas::default(),
            sizes: Sizes::default(),
            sleep: Sleep::default(),
            reconcile: Reconcile::default(),
        }
    }
}

impl ComputeConfig {
    /// Where a container answers.
    pub fn hostname(&self, id: &str) -> String {
        format!("{id}.compute.{}", self.base_domain)
    }

    /// What logs in to a container. glibc knows no name under `localhost`.
    pub fn ssh_command(&self, id: &str) -> String {
        let is_local = self.base_domain == "localhost" || self.base_domain.ends_with(".localhost");
        let host = if is_local { "127.0.0.1".to_owned() } else { format!("compute.{}", self.base_domain) };
        match self.ssh_port.get() {
            22 => format!("ssh {id}@{host}"),
            port => format!("ssh -p {port} {id}@{host}"),
        }
    }
}

/// Where SSH clients reach the gateway. Clones share it: a gateway of the same process knows only later than this service
/// starts which port it got.
#[derive(Clone, Debug)]
pub struct SshPort(Arc<AtomicU16>);

impl SshPort {
    pub fn new(port: u16) -> Self {
        Self(Arc::new(port.into()))
    }

    pub fn tell(&self, port: u16) {
        self.0.store(port, Ordering::Relaxed);
    }

    pub fn get(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one user may have.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    pub containers: u32,
    pub ssh_keys: u32,
    /// Of one container.
    pub ingress_rules: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { containers: 3, ssh_keys: 10, ingress_rules: 32 }
    }
}

/// How small and how large a container may be.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub memory_mb: RangeInclusive<u32>,
    pub storage_gb: RangeInclusive<u32>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { memory_mb: 64..=8192, storage_gb: 1..=100 }
    }
}

/// When containers sleep.
#[derive(Clone, Copy, Debug)]
pub struct Sleep {
    /// Time without requests after which a container sleeps, until its owner says otherwise; zero: never.
    pub idle_timeout: Duration,
    /// How long it sleeps with its memory kept, where the platform can do that, before it is stopped.
    pub stop_after: Duration,
    /// How long a report of use holds, however short the idle timeout: gateways report every 10 s what is in use, and
    /// one report may be lost.
    pub report_holds: Duration,
}

impl Default for Sleep {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(3600),
            stop_after: Duration::from_secs(1800),
            report_holds: Duration::from_secs(30),
        }
    }
}

/// How the platform is driven.
#[derive(Clone, Copy, Debug)]
pub struct Reconcile {
    /// Containers that are seen to at one time.
    pub concurrent: usize,
    /// Between two comparisons of all containers with what the platform has.
    pub repair_every: Duration,
    /// Between two looks for containers that nobody uses.
    pub idle_every: Duration,
    /// What a container gets between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Longest that one call to the platform may take; an image is fetched in it.
    pub call_timeout: Duration,
    /// Pause after a failure, doubled with each further one up to the longest.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self {
            concurrent: 8,
            repair_every: Duration::from_secs(60),
            idle_every: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            call_timeout: Duration::from_secs(600),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_how_they_are_reached() {
        let local = ComputeConfig::default();
        assert_eq!(local.hostname("abcdefgh12"), "abcdefgh12.compute.cloud.localhost");
        assert_eq!(local.ssh_command("abcdefgh12"), "ssh -p 2222 abcdefgh12@127.0.0.1");
        local.clone().ssh_port.tell(40022);
        assert_eq!(local.ssh_command("abcdefgh12"), "ssh -p 40022 abcdefgh12@127.0.0.1");
        let public = ComputeConfig { base_domain: "cloud.example.org".to_owned(), ssh_port: SshPort::new(22), ..local };
        assert_eq!(public.ssh_command("abcdefgh12"), "ssh abcdefgh12@compute.cloud.example.org");
    }
}
