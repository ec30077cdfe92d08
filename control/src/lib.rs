//! The control services, auth, sfs and compute, over the event kernel.
//!
//! Imports `edd-proto` and `edd-events`, never `edd-gateway`.

pub mod access_token;
pub mod auth;
pub mod caller;
pub mod compute;
pub mod cors;
mod departure;
pub mod entropy;
pub mod error;
pub mod extract;
pub mod limiter;
mod moment;
pub mod origin;
pub mod password;
pub mod request;
pub mod revocation;
#[cfg(test)]
mod scratch;
pub mod service_key;
pub mod sfs;
