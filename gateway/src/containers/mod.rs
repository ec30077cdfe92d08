//! The containers of the cloud, as compute tells of them by events: each answers under its own host name.
//!
//! ```text
//! compute ─▶ COMPUTE ─┬▶ durable consumer ─▶ gateway_db      one replica writes it for all
//!                     └▶ feed ─▶ Containers ─▶ snapshot      every process, at once
//! gateway_db ─▶ feed                                         at the start, and after events were lost
//! ```

pub mod activity;
mod feed;
mod freshness;
pub mod keeper;
mod last_known;
mod layer;
mod metrics;
mod presence;
mod record;
mod refreshed;
mod ssh_keys;
pub mod store;
mod templates;
#[cfg(test)]
pub(crate) mod tests;
mod wake;
mod watches;

pub use feed::Feed;
pub use freshness::Freshness;
pub use last_known::LastKnown;
pub use layer::{Config, Containers, Origin};
pub use presence::{Announced, Presence, WAKES_WITHIN};
pub use record::{Change, Record};
pub use refreshed::announce_refreshes;
pub use ssh_keys::{KeyChange, KeyRecord, SshKeys};
pub use wake::{Timing, Wakes, Woken};
pub use watches::{Subject, Watch, Watches};
