//! Whole stores, over real directories and real handshakes.

mod authority;
mod ciphers;
mod client;
mod client_auth;
mod files;
mod local_ca;
mod reload;
mod resumption;
mod scratch;
mod selection;
mod trust;
