//! The rules that [`crate::decision::decide`] applies, one file each. All are pure.

pub mod client_auth;
pub mod container;
pub mod cookies;
pub mod forwarding;
pub mod header_edits;
pub mod hop_by_hop;
pub mod limits;
pub mod redirect;
pub mod upgrade;
