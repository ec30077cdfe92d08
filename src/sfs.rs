//! The file share as a part of this process: its settings, its store, its start, its API.

pub mod check;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::{Args, ValueEnum};
use edd_control::cors::{self, Dashboard};
use edd_control::request::{self, TrustedProxies};
use edd_control::service_key::ServiceKey;
use edd_control::sfs::config::{Leases, OnUserDelete, Quotas, SfsConfig};
use edd_control::sfs::service::{Departures, Foundation};
use edd_control::sfs::storage::{BlobStore, S3Settings, StorageError};
use edd_control::sfs::{STEPS, Sfs};
use edd_events::service::Running;
use edd_gateway::route::HostName;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_listener::ApiListener;
use crate::exit::Failure;
use crate::follower::{Besides, Follower, Place, SFS};
use crate::report::Report;
use crate::secret::{self, Secret};

/// Where the bytes of files are, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSetting {
    /// `file:<dir>`
    Folder(PathBuf),
    /// `s3://bucket/prefix`
    Bucket { bucket: String, prefix: String },
}

impl FromStr for StoreSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(folder) = text.strip_prefix("file:").filter(|folder| !folder.is_empty()) {
            return Ok(Self::Folder(folder.strip_prefix("//").unwrap_or(folder).into()));
        }
        let (bucket, prefix) = match text.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
            Some((bucket, prefix)) if !bucket.is_empty() => (bucket, prefix.trim_matches('/')),
            _ => return Err("write file:/path/to/a/folder or s3://bucket/prefix".to_owned()),
        };
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// What becomes of a deleted user's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnUserDeleteSetting {
    /// They stay, for an administrator to give to somebody or to delete.
    Orphan,
    /// They are deleted.
    Delete,
}

impl From<OnUserDeleteSetting> for OnUserDelete {
    fn from(setting: OnUserDeleteSetting) -> Self {
        match setting {
            OnUserDeleteSetting::Orphan => Self::Orphan,
            OnUserDeleteSetting::Delete => Self::Delete,
        }
    }
}

/// Where the bytes are, and who we are there. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and what else AWS's
/// tools read is read from the environment for a bucket.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Files")]
pub struct StoreArgs {
    /// Where the bytes of files are: file:DIR, or s3://BUCKET/PREFIX with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
    /// AWS_REGION in the environment [default: the folder blobs in the data directory].
    #[arg(long = "sfs-store", value_name = "PLACE", env = "EDD_SFS_STORE")]
    store: Option<StoreSetting>,
    /// URL of the S3 server, where it is not Amazon's.
    #[arg(long = "sfs-s3-endpoint", value_name = "URL", env = "EDD_SFS_S3_ENDPOINT")]
    s3_endpoint: Option<String>,
    /// A file with what AWS_SECRET_ACCESS_KEY would be.
    #[arg(long = "sfs-s3-secret-key-file", value_name = "FILE", env = "AWS_SECRET_ACCESS_KEY_FILE")]
    s3_secret_key_file: Option<PathBuf>,
}

impl StoreArgs {
    /// The store; a folder is made if it is not there.
    pub fn open(&self, data_dir: &Path) -> Result<BlobStore, Failure> {
        let wrong = |error: StorageError| Failure::config(format!("EDD_SFS_STORE: {error}"));
        let (bucket, prefix) = match &self.store {
            None => return BlobStore::local(&data_dir.join("blobs")).map_err(wrong),
            Some(StoreSetting::Folder(folder)) => return BlobStore::local(folder).map_err(wrong),
            Some(StoreSetting::Bucket { bucket, prefix }) => (bucket.clone(), prefix.clone()),
        };
        let endpoint = self.s3_endpoint.clone().filter(|endpoint| !endpoint.is_empty());
        BlobStore::s3(&S3Settings { bucket, prefix, endpoint, variables: self.variables()? }).map_err(wrong)
    }

    /// What AWS's tools would read.
    fn variables(&self) -> Result<Vec<(String, String)>, Failure> {
        const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
        let given =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut variables: Vec<_> = given.filter(|(name, _)| name.starts_with("AWS_") && name != SECRET).collect();
        let secret = std::env::var(SECRET).ok().map(Secret::from);
        if let Some(secret) = secret::resolve(SECRET, secret, self.s3_secret_key_file.clone())? {
            variables.push((SECRET.to_owned(), secret.reveal().to_owned()));
        }
        Ok(variables)
    }
}

/// What users may have here.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Files")]
pub struct SfsArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Bytes that one user may have, in all namespaces of theirs.
    #[arg(long = "sfs-user-quota-bytes", value_name = "BYTES", env = "EDD_SFS_USER_QUOTA_BYTES", default_value_t = Quotas::default().user_bytes)]
    user_quota_bytes: u64,
    /// Files and folders that one user may have.
    #[arg(long = "sfs-user-max-files", value_name = "N", env = "EDD_SFS_USER_MAX_FILES", default_value_t = Quotas::default().user_entries)]
    user_max_files: u64,
    /// Bytes that one file may have [default: as many as its owner].
    #[arg(long = "sfs-max-file-bytes", value_name = "BYTES", env = "EDD_SFS_MAX_FILE_BYTES")]
    max_file_bytes: Option<u64>,
    /// Namespaces that one user may have.
    #[arg(long = "sfs-max-namespaces", value_name = "N", env = "EDD_SFS_MAX_NAMESPACES", default_value_t = Quotas::default().namespaces)]
    max_namespaces: u32,
    /// How long a resumable upload is kept since its last byte.
    #[arg(long = "sfs-upload-expiry-seconds", value_name = "SECONDS", env = "EDD_SFS_UPLOAD_EXPIRY_SECONDS", default_value_t = Leases::default().upload.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    upload_expiry_seconds: u64,
    /// What becomes of the namespaces of a user who is deleted.
    #[arg(long = "sfs-on-user-delete", value_name = "WHAT", env = "SFS_ON_USER_DELETE", default_value = "orphan")]
    on_user_delete: OnUserDeleteSetting,
}

impl SfsArgs {
    fn config(&self, place: &Place<'_>) -> SfsConfig {
        let defaults = SfsConfig::default();
        SfsConfig {
            quotas: Quotas {
                user_bytes: self.user_quota_bytes,
                user_entries: self.user_max_files,
                file_bytes: self.max_file_bytes,
                namespaces: self.max_namespaces,
                ..defaults.quotas
            },
            leases: Leases { upload: Duration::from_secs(self.upload_expiry_seconds), ..defaults.leases },
            on_user_delete: self.on_user_delete.into(),
            service_key: place.plane.service_key.as_ref().map(|key| ServiceKey::new(key.reveal())),
            ..defaults
        }
    }
}

/// The service, running.
#[derive(Debug)]
pub struct SfsRole {
    pub sfs: Sfs,
    pub running: Running,
    pub report: Arc<Report>,
    dashboard: HostName,
}

impl SfsRole {
    /// Opens the store and the database, brings that up to date, follows the auth service, and keeps the house.
    pub async fn start(args: &SfsArgs, place: Place<'_>, data_dir: &Path, domain: &HostName) -> Result<Self, Failure> {
        let (store, config) = (args.store.open(data_dir)?, args.config(&place));
        let (clock, publisher) = (place.plane.clock.clone(), SFS.publisher(place.plane));
        let departures = Departures::new(publisher, clock.clone(), config.on_user_delete);
        let besides = Besides {
            steps: STEPS.to_vec(),
            on_users: vec![(Departures::SUBJECTS, Arc::new(departures))],
            ..Besides::default()
        };
        let (follower, verifier) = SFS.start_verifying(place, besides).await?;
        let Follower { mut running, report, database, publisher } = follower;
        let foundation = Foundation { database, publisher, clock, store };
        let sfs = Sfs::new(config, foundation, verifier).map_err(|error| Failure::config(error.to_string()))?;
        running.spawn(|stop| sfs.clone().run(stop));
        Ok(Self { sfs, running, report, dashboard: domain.clone() })
    }

    /// Serves the API on `listener` until `stop`; `trusted` are the proxies whose word counts.
    pub fn serve(
        &self,
        listener: ApiListener,
        trusted: TrustedProxies,
        stop: CancellationToken,
        drain: Duration,
    ) -> JoinHandle<()> {
        tokio::spawn(listener.serve(self.router(trusted), stop, drain))
    }

    fn router(&self, trusted: TrustedProxies) -> Router {
        let dashboard = Dashboard::new(self.dashboard.as_str(), []);
        request::tracked(cors::open_to(dashboard, self.sfs.router()), trusted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_folder_or_a_bucket() {
        let folder = |path: &str| Ok(StoreSetting::Folder(path.into()));
        let bucket = |bucket: &str, prefix: &str| {
            Ok(StoreSetting::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        };
        for (text, store) in [
            ("file:/var/lib/edd/blobs", folder("/var/lib/edd/blobs")),
            ("file:///var/blobs", folder("/var/blobs")),
            ("file:blobs", folder("blobs")),
            ("s3://files", bucket("files", "")),
            ("s3://files/", bucket("files", "")),
            ("s3://files/edd/prod/", bucket("files", "edd/prod")),
        ] {
            assert_eq!(text.parse(), store, "{text}");
        }
        for text in ["", "file:", "/var/blobs", "s3://", "s3:///x", "gs://files"] {
            assert!(text.parse::<StoreSetting>().is_err(), "{text}");
        }
    }
}
