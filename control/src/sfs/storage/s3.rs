//! A bucket of S3, or of whatever speaks like it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::StorageError;
use super::connector::Connector;

/// What is sent at once, in bytes: S3 wants at least 5 MiB. Three are in memory for each upload. All but the last are of
/// one size, as R2 wants it.
pub(super) const PART_BYTES: usize = 8 * 1024 * 1024;
/// S3 takes so many parts.
const MAX_PARTS: u64 = 10_000;
pub(super) const MAX_BLOB_BYTES: u64 = MAX_PARTS * PART_BYTES as u64;

/// A request that fails for want of a server is sent again so many times, at most.
const MAX_RETRIES: usize = 3;
/// And not any more when it has taken so long already.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Where a bucket is, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Settings {
    pub bucket: String,
    /// What the names of all objects begin with, without slashes around it. Empty: nothing.
    pub prefix: String,
    /// The server's URL, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// `AWS_*` as in an environment: region, credentials, or where they are asked for. None is unknown to AWS's own
    /// tools; others are passed over.
    pub variables: Vec<(String, String)>,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix, endpoint, .. } = self;
        f.debug_struct("S3Settings")
            .field("bucket", bucket)
            .field("prefix", prefix)
            .field("endpoint", endpoint)
            .finish_non_exhaustive()
    }
}

/// What can be asked of a bucket and is in no [`ObjectStore`].
#[derive(Clone)]
pub(super) struct Bucket {
    pub(super) objects: AmazonS3,
    pub(super) prefix: Path,
    pub(super) connector: Connector,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its other fields know secrets.
        f.debug_struct("Bucket").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

pub(super) fn open(settings: &S3Settings) -> Result<(Arc<dyn ObjectStore>, Bucket), StorageError> {
    let invalid = |error: &dyn fmt::Display| StorageError::Settings(format!("S3: {error}"));
    let prefix = Path::parse(&settings.prefix).map_err(|error| invalid(&error))?;
    let connector = Connector::new()?;
    let builder = builder(settings).with_http_connector(connector.clone());
    let objects = builder.build().map_err(|error| invalid(&error))?;
    let bucket = Bucket { objects: objects.clone(), prefix: prefix.clone(), connector };
    Ok((Arc::new(PrefixStore::new(objects, prefix)), bucket))
}

fn builder(settings: &S3Settings) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in &settings.variables {
        let key = name.to_ascii_lowercase();
        if let Some(key) = key.parse::<AmazonS3ConfigKey>().ok().filter(|_| key.starts_with("aws_")) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    let backoff = BackoffConfig { init_backoff: FIRST_BACKOFF, max_backoff: MAX_BACKOFF, base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT };
    builder.with_bucket_name(&settings.bucket).with_retry(retry)
}
