//! Ports of containers: listeners that come and go with the rules, and what happens to their connections.
//!
//! ```text
//! Snapshot.ports ─▶ ListenerSet (wanted / bound) ─▶ accept ─▶ PROXY? ─┬─ raw rule ─────────▶ relay
//!                                                                     └─ sniff ─▶ TLS? ───▶ http1 | http2
//! ```

mod connection;
mod door;
mod listener_set;
mod relay;
mod sniff;

pub use listener_set::{ListenerSet, PortReport, PortState, ReportedRule};

#[cfg(test)]
mod tests;
