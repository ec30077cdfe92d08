//! Containers: what tenants want is in the database, a [`platform`] makes it so.
//!
//! ```text
//! api ─▶ service ─▶ transaction { store + events } ─▶ reconciler ─▶ platform
//! ```

pub mod platform;
