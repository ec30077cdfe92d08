//! The service against a platform that does, and fails, what the test says.

mod access;
mod containers;
mod departures;
mod fixture;
mod ingress;
mod keeping;
mod kills;
mod reconcile;
mod scripted;
mod sessions;
mod snapshot;
mod sockets;
mod ssh_keys;
mod walk;
