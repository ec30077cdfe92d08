//! The key by which the services of an installation know each other over HTTP: `SERVICE_API_KEY` in `X-Service-Key`.

use std::fmt;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use sha2::{Digest, Sha256};

use crate::error::{Challenge, Error};

const X_SERVICE_KEY: &str = "x-service-key";

/// The key, as its SHA-256: comparing that takes the same time wherever two keys differ first.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceKey([u8; 32]);

impl ServiceKey {
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    pub fn is(&self, shown: &str) -> bool {
        *self == Self::new(shown)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceKey(…)")
    }
}

/// Proof that the services' key was shown. Handlers of a state that has the key take it as an argument.
#[derive(Clone, Copy, Debug)]
pub struct AnotherService(());

impl<S: Send + Sync> FromRequestParts<S> for AnotherService
where
    Option<ServiceKey>: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let refuse = |message: &'static str| Err(Error::unauthorized(Challenge::Absent, message));
        let Some(key) = Option::<ServiceKey>::from_ref(state) else {
            return refuse("no service key is set here: start this service with SERVICE_API_KEY");
        };
        match parts.headers.get(X_SERVICE_KEY).map(|shown| shown.to_str().is_ok_and(|shown| key.is(shown))) {
            Some(true) => Ok(Self(())),
            Some(false) => refuse("X-Service-Key is not this installation's SERVICE_API_KEY"),
            None => refuse("X-Service-Key is needed: this is for other services"),
        }
    }
}
