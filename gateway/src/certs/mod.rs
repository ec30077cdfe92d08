//! Certificates: the operator's files, the local authority, and which one a TLS client gets.
//!
//! [`CertStore`] is the handle that listeners hold. Reading it, once per handshake, takes no lock; files are read
//! again by [`CertStore::reload`] and [`CertStore::watch`].

mod certificate;
mod client_auth;
mod error;
mod files;
mod info;
mod local_ca;
mod pair;
mod report;
mod root;
mod server_config;
mod sni_index;
mod store;
pub mod trust;
mod watch;

#[cfg(test)]
mod tests;

pub use error::CertsError;
pub use info::{CertInfo, CertSource, CertState};
pub use report::{Problem, ReloadReport};
pub use server_config::Refusal;
pub use store::{CertStore, CertsConfig, LocalCaConfig};
