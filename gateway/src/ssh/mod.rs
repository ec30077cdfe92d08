//! SSH into containers: a server to the tenant, a client to the container's sshd, or programs of the platform's where a
//! container has none.
//!
//! ```text
//! listener ─▶ connection ─▶ server: keys ─▶ admission ─▶ session ─┬▶ upstream ─▶ the container's sshd
//!                                                                 ├▶ program ─▶ the platform's exec
//!                                                                 └▶ jump ─▶ bytes to the container's sshd
//! ```
//! Every channel has an inbox at either end, and a task of its own that moves what is in them.

pub mod admission;
mod algorithms;
pub(crate) mod asciicast;
pub mod audit;
pub mod authority;
mod calls;
mod channel;
mod connection;
pub mod directory;
pub mod exec;
mod forwards;
mod inbox;
mod jump;
pub mod keys;
pub mod kill_switch;
mod knock;
mod leg;
pub mod listener;
pub mod login;
pub mod metrics;
mod opening;
pub mod patience;
pub mod penalties;
mod program;
pub mod recording;
mod requests;
mod server;
mod service;
mod session;
pub mod session_events;
mod session_log;
pub mod sessions;
#[cfg(test)]
mod tests;
mod upstream;
mod window;

pub use service::{Config, REKEY_AFTER_BYTES, Service};
