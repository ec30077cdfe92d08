//! The file share. Today: who its callers are.
//!
//! ```text
//! api ─▶ service ─▶ transaction { store + events }
//! ```

mod api;
pub mod storage;

pub use api::router;
