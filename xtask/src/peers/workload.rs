//! The kinds of work that are measured, and one measurement.

use std::time::Instant;

use super::load::{Done, Load};
use super::server::Server;
use crate::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    H1,
    H1Tls,
    H2,
    TlsNew,
    Body,
    BodyTls,
}

impl Workload {
    pub const ALL: [Self; 6] = [Self::H1, Self::H1Tls, Self::H2, Self::TlsNew, Self::Body, Self::BodyTls];

    /// As the JSON has it.
    pub fn id(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H1Tls => "h1tls",
            Self::H2 => "h2",
            Self::TlsNew => "tls-new",
            Self::Body => "body",
            Self::BodyTls => "body-tls",
        }
    }

    /// As the command line has it: both large bodies go together.
    pub fn group(self) -> &'static str {
        match self {
            Self::BodyTls => Self::Body.id(),
            other => other.id(),
        }
    }

    /// How many operations the table's figure is for, and how many of its units are a second.
    fn scale(self) -> (f64, f64) {
        match self {
            Self::H1 | Self::H1Tls | Self::H2 => (1e5, 1.0),
            Self::TlsNew => (1.0, 1e3),
            Self::Body | Self::BodyTls => ((1_u64 << 30) as f64, 1.0),
        }
    }

    fn load(self, server: &Server, load: &Load) -> Result<Done, Failure> {
        let (http, https) = (server.http, server.https);
        match self {
            Self::H1 => load.wrk(&format!("http://localhost:{http}/1k")),
            Self::H1Tls => load.wrk(&format!("https://localhost:{https}/1k")),
            Self::H2 => load.h2load(&format!("https://localhost:{https}/1k")),
            Self::TlsNew => load.handshakes(https),
            Self::Body => load.curl(&format!("http://localhost:{http}/100m")),
            Self::BodyTls => load.curl(&format!("https://localhost:{https}/100m")),
        }
    }

    pub fn measure(self, server: &Server, load: &Load) -> Result<Sample, Failure> {
        let start = Instant::now();
        let (own, core) = (server.cpu_seconds(), server.core_seconds());
        let done = self.load(server, load)?;
        let cpu_seconds = server.cpu_seconds() - own;
        let others_seconds = (server.core_seconds() - core - cpu_seconds).max(0.0);
        Ok(Sample { workload: self, done, cpu_seconds, others_seconds, wall_seconds: start.elapsed().as_secs_f64() })
    }
}

/// What one run cost the server.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub workload: Workload,
    pub done: Done,
    /// User and system time of the server.
    pub cpu_seconds: f64,
    /// What others used of the server's core meanwhile.
    pub others_seconds: f64,
    pub wall_seconds: f64,
}

impl Sample {
    /// Processor time per unit of work: seconds per 100,000 requests, milliseconds per handshake, seconds per GiB.
    pub fn cost(&self) -> f64 {
        let (operations, units) = self.workload.scale();
        self.cpu_seconds * units * operations / self.done.operations as f64
    }

    /// The share of its core that the server used.
    pub fn busy(&self) -> f64 {
        self.cpu_seconds / self.wall_seconds
    }

    /// The share of its core that was taken from it.
    pub fn disturbed(&self) -> f64 {
        self.others_seconds / self.wall_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_in_the_unit_of_its_workload() {
        let sample = |workload, operations| Sample {
            workload,
            done: Done { operations, ..Done::default() },
            cpu_seconds: 0.5,
            others_seconds: 0.0,
            wall_seconds: 2.0,
        };
        assert_eq!(sample(Workload::H1, 50_000).cost(), 1.0);
        assert_eq!(sample(Workload::TlsNew, 1_000).cost(), 0.5);
        assert_eq!(sample(Workload::Body, 100 << 20).cost(), 5.12);
        assert_eq!(sample(Workload::H2, 1).busy(), 0.25);
    }
}
