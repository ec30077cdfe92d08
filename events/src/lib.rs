//! The event kernel: what a service changes in its own database reaches every other service, at
//! least once on the way and exactly once in effect.
//!
//! ```text
//! transaction { change + outbox } ─▶ relay ─▶ bus ─▶ consumer { inbox + effect }
//! ```
//!
//! It knows no service: messages are bytes with a subject, see [`message`].

pub mod bus;
pub mod clock;
pub mod compute_cache;
pub mod consumer;
pub mod database;
pub mod dead_letter;
pub mod event_log;
mod fail_point;
pub mod inbox;
pub mod message;
pub mod metrics;
pub mod outbox;
pub mod projection;
pub mod publisher;
pub mod relay;
mod schema;
#[cfg(test)]
mod scratch;
pub mod service;
#[cfg(test)]
mod simulation;
mod statement;
pub mod tail;
pub mod user_cache;
