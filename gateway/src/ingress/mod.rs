//! Who gets which dynamic port.
//!
//! Tenants ask for ports at compute, whose events leave the requests in a projection. The [`Decider`] compares that with
//! the rules that there are, gives or refuses what differs, and tells compute by event. What it gave is in the database;
//! every replica follows it there ([`RuleFeed`]).
//!
//! ```text
//! ingress_request_cache ─┐
//!                        ├─▶ Decider ─▶ ingress_rules ─▶ RuleFeed ─▶ PortTable
//! containers ────────────┘       └────▶ gateway.ingress.{container}.created / deleted / rejected
//! ```

mod decider;
mod feed;
mod rule;
mod store;

pub use decider::{Decider, Machine};
pub use feed::{RuleFeed, Rules};
pub use rule::{PortPolicy, PortRange, Refusal};
pub use store::STEP;

#[cfg(test)]
mod tests;
