//! Ports for servers that are stopped and come back.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux gives to outgoing connections (32768 and up): while a server is down, one of those could
/// take its port, even the very client that tries to reach it and would then talk to itself.
const PORTS: Range<u16> = 20_000..32_000;

/// A port of the loopback interface that nobody listens on, in an order that differs between processes; each time
/// another one.
pub fn free() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    static OFFSET: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    let ports = PORTS.end - PORTS.start;
    let steps = (0..ports).map(|_| u64::from(TAKEN.fetch_add(1, Ordering::Relaxed)));
    let mut candidates =
        steps.map(|step| PORTS.start + ((*OFFSET % u64::from(ports) + step) % u64::from(ports)) as u16);
    let free = candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.unwrap_or_else(|| panic!("every port of {PORTS:?} is taken on 127.0.0.1"))
}
