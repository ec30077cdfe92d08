//! edd from outside: the real binary, real sockets, real upstreams.
//!
//! One binary, so that the tree is linked once: [`harness`] holds what starts and watches processes,
//! every other module is one area of behaviour. `cargo test --test it smuggling` runs one area.
//!
//! A test that waits, waits for a condition and is bounded by [`harness::PATIENCE`]; nothing sleeps
//! and hopes. What edd itself waits for is shortened by its own settings.

mod access_log;
mod admin;
mod auth;
mod bodies;
mod callers;
mod certificates;
mod client_certificates;
mod commands;
mod containers;
mod containers_faults;
mod control;
mod drain;
mod events_cli;
mod events_crashes;
mod events_faults;
mod events_flows;
mod files_clients;
mod forwarding;
mod h2_abuse;
mod harness;
mod head_limits;
mod heads;
mod lane;
mod layout;
mod metrics;
mod paths;
mod process;
mod protocols;
mod reasons;
mod reload;
mod settings;
mod sfs;
mod slow;
mod smuggling;
mod ssh;
mod streaming;
mod takeover;
mod transfers;
mod up;
mod upstream_faults;
mod websocket;
