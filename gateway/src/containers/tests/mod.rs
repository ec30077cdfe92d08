//! Containers in the gateway, with compute as a script.

mod activity;
mod feed;
mod last_known;
mod layer;
mod presence;
pub(crate) mod scene;
mod ssh_keys;
mod wake;
