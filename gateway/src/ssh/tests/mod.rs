//! A gateway between OpenSSH's client and OpenSSH's server.

mod channels;
mod client;
mod diary;
mod forwards;
mod logins;
mod platform;
mod programs;
mod requests;
mod revocation;
mod silence;
mod sshd;
mod world;
