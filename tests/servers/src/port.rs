//! Ports for servers that are stopped and come back.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::ops::Range;

/// Below the ports that Linux gives to outgoing connections (32768 and up): while a server is down, one of those could
/// take its port, even the very client that tries to reach it and would then talk to itself.
const PORTS: Range<u16> = 20_000..32_000;

/// A port of the loopback interface that nobody listens on, in an order that differs between processes.
pub fn free() -> u16 {
    let ports = PORTS.end - PORTS.start;
    let offset = (RandomState::new().hash_one(std::process::id()) % u64::from(ports)) as u16;
    let mut candidates = (0..ports).map(|step| PORTS.start + (offset + step) % ports);
    let free = candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.unwrap_or_else(|| panic!("every port of {PORTS:?} is taken on 127.0.0.1"))
}
