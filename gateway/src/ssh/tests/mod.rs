//! A gateway between OpenSSH's client and OpenSSH's server.

mod channels;
mod forwards;
mod logins;
mod platform;
mod programs;
mod revocation;
mod sshd;
mod world;
