//! What the local platform is told.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::tier::Tier;
use crate::compute::platform::sshd::Sshd;

/// Settings of the local platform.
#[derive(Clone, Debug)]
pub struct Config {
    /// Containers are kept in `containers/` below it, images in `images/`.
    pub data_dir: PathBuf,
    /// What is started beside each container.
    pub program: Program,
    /// The containers' own network where they have one; none: a free one of 10.64.0.0/10 and 10.128.0.0/10.
    pub network: Option<Ipv4Net>,
    /// The one to use; none: the best that works.
    pub tier: Option<Tier>,
    /// How SSH servers of containers are set up; none: they are not, and sessions are the way in.
    pub sshd: Option<Sshd>,
    /// How long a container may take until it answers.
    pub ready_timeout: Duration,
    /// The most that an image may hold when it is unpacked.
    pub max_image_bytes: u64,
}

impl Config {
    /// The defaults: the best tier, no SSH servers, half a minute until a container answers, images up to 16 GiB.
    pub fn new(data_dir: impl Into<PathBuf>, program: Program) -> Self {
        Self {
            data_dir: data_dir.into(),
            program,
            network: None,
            tier: None,
            sshd: None,
            ready_timeout: Duration::from_secs(30),
            max_image_bytes: 16 << 30,
        }
    }
}

/// A program that calls [`super::role::play`] when it is run with these arguments: edd itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute.
    pub path: PathBuf,
    pub arguments: Vec<String>,
}
