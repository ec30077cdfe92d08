//! What Prometheus learns of SSH: sums, never a user, container or address by name.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::ssh::session_events::{ChannelKind, Direction};

/// From a signature by an agent to a person who confirms it on a security key.
const LOGIN_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Handles on all of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub open: IntGauge,
    pub admitted: IntCounter,
    pub refused: IntCounter,
    pub login_duration: Histogram,
    channels: IntCounterVec,
    failures: IntCounterVec,
    to_container: IntCounter,
    to_client: IntCounter,
    pub recording_lost: IntCounter,
}

impl Metrics {
    /// Fails only for a programming error: two metrics of one name.
    pub fn on(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |name: &str, help: &str, label| register(registry, IntCounterVec::new(Opts::new(name, help), &[label])?);
        let sessions = counters("edd_ssh_sessions_total", "Logins over SSH, by result.", "result")?;
        let bytes = counters("edd_ssh_bytes_total", "Bytes in channels of SSH, by direction.", "direction")?;
        let login = HistogramOpts::new("edd_ssh_login_duration_seconds", "From the first byte to the login.");
        Ok(Self {
            open: register(registry, IntGauge::new("edd_ssh_sessions_open", "Sessions over SSH that go on.")?)?,
            admitted: sessions.with_label_values(&["admitted"]),
            refused: sessions.with_label_values(&["refused"]),
            login_duration: register(registry, Histogram::with_opts(login.buckets(LOGIN_BUCKETS.to_vec()))?)?,
            channels: counters("edd_ssh_channels_total", "Channels of SSH sessions, by kind.", "kind")?,
            failures: counters(
                "edd_ssh_auth_failures_total",
                "Logins over SSH that were refused, by reason.",
                "reason",
            )?,
            to_container: bytes.with_label_values(&["to_container"]),
            to_client: bytes.with_label_values(&["to_client"]),
            recording_lost: register(
                registry,
                IntCounter::new(
                    "edd_ssh_recording_lost_bytes_total",
                    "Bytes that recordings of sessions lack because the disk was too slow.",
                )?,
            )?,
        })
    }

    pub fn channel(&self, kind: &ChannelKind) {
        self.channels.with_label_values(&[kind.as_str()]).inc();
    }

    /// `reason` is one of a bounded set of words.
    pub fn failure(&self, reason: &'static str) {
        self.failures.with_label_values(&[reason]).inc();
    }

    pub fn passed(&self, direction: Direction, bytes: u64) {
        match direction {
            Direction::ToContainer => self.to_container.inc_by(bytes),
            Direction::ToClient { .. } => self.to_client.inc_by(bytes),
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
