//! SSH into containers: a server to the tenant, a client to the container's sshd, or programs of the platform's where a
//! container has none.

pub mod admission;
mod asciicast;
pub mod audit;
pub mod authority;
pub mod directory;
pub mod exec;
pub mod keys;
pub mod kill_switch;
pub mod login;
pub mod metrics;
pub mod penalties;
pub mod recording;
pub mod session_events;
mod session_log;
pub mod sessions;
