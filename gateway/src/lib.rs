//! The data plane of edd: routes, listeners, certificates and the HTTP engine.
//!
//! A request meets the modules in this order: `listeners` accept its connection, `proxy` reads it,
//! `decision` says what happens to it from one snapshot of the `router`, `upstream` names the target,
//! and `exchange` is what logs and metrics tell of it afterwards.

pub mod access_log;
pub mod admin;
pub mod certs;
mod clock;
pub mod containers;
pub mod decision;
pub mod drain;
pub mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gateway;
pub mod health;
pub mod ingress;
pub mod lane;
pub mod listeners;
pub mod live;
pub mod metrics;
pub mod path;
pub mod policy;
pub mod ports;
pub mod proxy;
pub mod publish;
pub mod reason;
pub mod reloader;
pub mod route;
pub mod route_metrics;
pub mod router;
#[cfg(test)]
mod scratch;
pub mod sources;
pub mod ssh;
pub mod static_routes;
pub mod table;
mod upgrade_socket;
pub mod upstream;
