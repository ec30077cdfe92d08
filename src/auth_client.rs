//! The auth service as the others of an installation use it, wherever it runs.

use std::sync::Arc;

use async_trait::async_trait;
use edd_control::access_token::KeySet;
use edd_control::caller::{KeySource, LoadError};
use edd_control::revocation::feed::{RevocationPage, RevocationSource};
use edd_events::projection::{Owner, OwnerError};

use crate::cli::OwnerArgs;
use crate::exit::Failure;
use crate::plane::Plane;
use crate::remote::RemoteAuth;

/// What it is asked for; clones ask the same.
#[derive(Clone, Debug)]
pub struct AuthClient {
    /// None: nobody knows where it is, and users are known by the events that the stream still has.
    pub users: Option<Arc<dyn Owner>>,
    pub keys: Arc<dyn KeySource>,
    pub revocations: Arc<dyn RevocationSource>,
}

impl AuthClient {
    pub fn new<A: Owner + KeySource + RevocationSource + 'static>(auth: A) -> Self {
        let auth = Arc::new(auth);
        Self { users: Some(auth.clone()), keys: auth.clone(), revocations: auth }
    }

    /// One that nobody has told where the service is.
    fn unknown() -> Self {
        Self { users: None, keys: Arc::new(Unknown), revocations: Arc::new(Unknown) }
    }
}

impl OwnerArgs {
    /// The auth service of another process.
    pub fn auth(&self, plane: &Plane) -> Result<AuthClient, Failure> {
        match (&self.auth_service_url, &plane.service_key) {
            (Some(url), Some(key)) => Ok(AuthClient::new(RemoteAuth::new(&url.to_string(), key.clone())?)),
            _ => Ok(AuthClient::unknown()),
        }
    }
}

#[derive(Debug)]
struct Unknown;

const UNKNOWN: &str = "nobody has told where the auth service is: set AUTH_SERVICE_URL and SERVICE_API_KEY";

#[async_trait]
impl KeySource for Unknown {
    async fn load(&self) -> Result<KeySet, LoadError> {
        Err(LoadError(UNKNOWN.to_owned()))
    }
}

#[async_trait]
impl RevocationSource for Unknown {
    async fn revoked(&self, _: i64, _: u32) -> Result<RevocationPage, OwnerError> {
        Err(OwnerError::Unavailable(UNKNOWN.to_owned()))
    }
}
