//! SSH into containers: a server to the tenant, a client to the container's sshd, or programs of the platform's where a
//! container has none.

pub mod admission;
pub mod exec;
pub mod kill_switch;
pub mod login;
pub mod session_events;
