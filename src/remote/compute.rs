//! The compute service: what gateways keep of it, and what they ask of it.

use async_trait::async_trait;
use edd_control::compute::remote_session;
use edd_events::projection::{Digest, Owner, OwnerError, Page, Shape};
use edd_gateway::containers::keeper::{Keeper, KeeperError};
use edd_gateway::ssh::exec::{ExecError, Program, Programs, Running};
use edd_proto::ContainerId;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Remote;
use crate::exit::Failure;
use crate::programs;
use crate::secret::Secret;

/// A client of the compute service; clones share its connections.
#[derive(Clone, Debug)]
pub struct RemoteCompute(Remote);

impl RemoteCompute {
    pub fn new(base: &str, key: Secret) -> Result<Self, Failure> {
        Ok(Self(Remote::new("compute", base, key)?))
    }

    /// The rows of `shape`, which the service has at `path`.
    pub fn rows(&self, shape: &'static Shape, path: &'static str) -> RemoteRows {
        RemoteRows { remote: self.0.clone(), shape, path }
    }
}

#[async_trait]
impl Keeper for RemoteCompute {
    async fn wake(&self, id: ContainerId) -> Result<(), KeeperError> {
        let path = format!("/api/containers/{id}/wake");
        match self.0.ask(Method::POST, &path, Bytes::new()).await.map_err(away)? {
            (status, _) if status.is_success() => Ok(()),
            (StatusCode::NOT_FOUND | StatusCode::CONFLICT, body) => {
                Err(KeeperError::Refused(String::from_utf8_lossy(&body).into_owned()))
            }
            (status, body) => Err(away(self.0.refused(&path, status, &body))),
        }
    }

    async fn active(&self, ids: &[ContainerId]) -> Result<Vec<ContainerId>, KeeperError> {
        const PATH: &str = "/api/containers/activity";
        let json = json!({ "container_ids": ids }).to_string();
        match self.0.ask(Method::POST, PATH, json.into()).await.map_err(away)? {
            (status, body) if status.is_success() => {
                let noted: Noted = serde_json::from_slice(&body)
                    .map_err(|error| KeeperError::Unavailable(format!("{PATH}: {error}")))?;
                Ok(noted.woken)
            }
            (status, body) => Err(away(self.0.refused(PATH, status, &body))),
        }
    }
}

/// What compute answers to a report of use.
#[derive(Deserialize)]
struct Noted {
    #[serde(default)]
    woken: Vec<ContainerId>,
}

#[async_trait]
impl Programs for RemoteCompute {
    async fn start(&self, container: ContainerId, program: Program) -> Result<Running, ExecError> {
        let socket = self.0.socket(&format!("/api/containers/{container}/session")).await;
        let socket = socket.map_err(|error| ExecError::Unavailable(error.to_string()))?;
        programs::started(remote_session::ask(socket, programs::exec(program)).await)
    }
}

fn away(error: OwnerError) -> KeeperError {
    KeeperError::Unavailable(error.to_string())
}

/// One of the tables that gateways copy.
#[derive(Clone, Debug)]
pub struct RemoteRows {
    remote: Remote,
    shape: &'static Shape,
    path: &'static str,
}

#[derive(Deserialize)]
struct TableDigest {
    digest: String,
}

#[async_trait]
impl Owner for RemoteRows {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        // A key is a container's id, a number, or the two with a slash between them.
        let after = after.map_or_else(String::new, |after| format!("&after={}", after.replace('/', "%2F")));
        let body = self.remote.fetch(&format!("{}?limit={most}{after}", self.path)).await?;
        Page::from_json(self.shape, &body)
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        let path = format!("{}/digest", self.path);
        let answer: TableDigest = self.remote.get(&path).await?;
        answer.digest.parse().map_err(|error| OwnerError::Invalid(format!("{path}: {error}")))
    }
}
