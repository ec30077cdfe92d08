//! The file share: namespaces and files of tenants. Names and rights are in the database, bytes in a [`storage`].
//!
//! ```text
//! api ─▶ service ─▶ storage
//!            └────▶ transaction { store + events } ─▶ keeper ─▶ storage
//! ```
//!
//! A blob has a row before it has bytes; a row that no file has and whose time is over is garbage, and the keeper takes
//! it away. So a crash at any point leaves nothing that is not gone after a while.
//!
//! `model` imports none of them; SQL is in `store` alone, HTTP in `api`.

mod api;
pub mod check;
pub mod config;
pub mod error;
pub mod keeper;
pub mod model;
pub mod service;
pub mod storage;
mod store;

use tokio_util::sync::CancellationToken;

use crate::sfs::config::SfsConfig;
use crate::sfs::keeper::Keeper;
use crate::sfs::service::{Foundation, Service};

pub use api::router;
pub use store::STEPS;

/// What the service calls itself in its events.
pub const SOURCE: &str = "sfs-service";

#[cfg(test)]
mod tests;
