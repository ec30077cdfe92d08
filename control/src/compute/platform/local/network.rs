//! Addresses: a bridge with a private network for containers that have a network of their own, addresses of the
//! loopback network for those that share the machine's.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use edd_proto::ContainerId;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::launch::SEARCH_PATH;

/// Networks that are tried one after another where one is taken: 10.64.0.0/16 to 10.191.0.0/16, and as many below
/// 127.64.0.0.
const CANDIDATES: u8 = 128;
const FIRST_CANDIDATE: u8 = 64;

/// A bridge of ours: the machine has the first address of the network, containers the others. They reach the machine
/// and it reaches them; one another, and what is behind the machine, they do not reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bridge {
    name: String,
    /// The machine's own.
    address: Ipv4Addr,
    prefix_len: u8,
}

impl Bridge {
    /// Makes the bridge of an installation unless it is there.
    pub(super) fn make(installation: &str, network: Option<Ipv4Net>, seed: u8) -> io::Result<Self> {
        let name = format!("edd-{installation}");
        let taken = taken(&name)?;
        let free = |network: &Ipv4Net| !taken.iter().any(|other| overlap(other, network));
        let network = match network {
            Some(network) => network,
            None => candidates(10, seed)
                .find(free)
                .ok_or_else(|| io::Error::other("no network of 10.64.0.0/10 and 10.128.0.0/10 is free"))?,
        };
        let bridge = Self { name, address: first(network), prefix_len: network.prefix_len() };
        if !Path::new("/sys/class/net").join(&bridge.name).exists() {
            ip(&format!("link add {} type bridge\n", bridge.name))?;
        }
        let Self { name, address, prefix_len } = &bridge;
        let mac = mac(*address);
        // Left alone, a bridge has one of its links' MAC address, and another one when that goes.
        ip(&format!(
            "link set {name} address {mac}\naddr replace {address}/{prefix_len} dev {name}\nlink set {name} up\n"
        ))?;
        Ok(bridge)
    }

    /// Links the network of a process that is to have `address` to the bridge by `eth0`. The link goes with that
    /// network.
    pub(super) fn link(&self, id: &ContainerId, address: Ipv4Addr, pid: i32) -> io::Result<()> {
        let near = self.near(id);
        // Told who has the address, the machine does not ask: a question that comes before the link carries anything
        // is asked again a second later.
        ip(&format!(
            "link add {near} type veth peer name eth0 address {mac} netns {pid}\n\
             link set {near} master {bridge}\n\
             link set {near} type bridge_slave isolated on\n\
             link set {near} up\n\
             neigh replace {address} lladdr {mac} dev {bridge} nud stale\n",
            bridge = self.name,
            mac = mac(address),
        ))
    }

    /// Our end of a container's link: at most 15 bytes.
    fn near(&self, id: &ContainerId) -> String {
        format!("v{}{id}", &self.name[self.name.len() - 4..])
    }

    /// Removes a link whose container ended while nobody looked.
    pub(super) fn unlink(&self, id: &ContainerId) -> io::Result<()> {
        let near = self.near(id);
        if Path::new("/sys/class/net").join(&near).exists() {
            // It goes by itself with its other end, at any moment.
            ip(&format!("link del {near}\n"))
                .or_else(|error| if Path::new("/sys/class/net").join(&near).exists() { Err(error) } else { Ok(()) })?;
        }
        Ok(())
    }

    /// Sets `eth0` up, seen from within.
    pub(super) fn enter(&self, address: Ipv4Addr) -> io::Result<()> {
        ip(&format!("link set lo up\naddr add {address}/{} dev eth0\nlink set eth0 up\n", self.prefix_len))
    }

    /// Removes the bridge.
    pub(super) fn remove(&self) -> io::Result<()> {
        ip(&format!("link del {}\n", self.name))
    }
}

/// Where containers get their addresses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool(Ipv4Net);

impl Pool {
    pub(super) fn of_bridge(bridge: &Bridge) -> Self {
        Self(Ipv4Net::new_assert(bridge.address, bridge.prefix_len).trunc())
    }

    /// A part of the loopback network, which needs no set-up: one of 8192, of a thousand addresses each, so that
    /// installations on one machine seldom meet.
    pub(super) fn of_loopback(seed: u16) -> Self {
        let [high, low] = seed.to_be_bytes();
        let network = Ipv4Addr::new(127, FIRST_CANDIDATE + high % CANDIDATES, low & 0xfc, 0);
        Self(Ipv4Net::new_assert(network, 22))
    }

    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
    }

    /// The lowest that is not taken; neither the network's own, nor the machine's, nor the last.
    pub(super) fn free(&self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        self.0.hosts().skip(1).find(|address| !taken.contains(address))
    }
}

/// The MAC address that goes with an address, one of those that anybody may give out (IEEE 802, 8.4). Whoever has the
/// address after a restart, or after somebody else, is found at once: with another MAC address, the machine would send
/// to the former one for half a minute.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:ed:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn first(network: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(network.network().to_bits() + 1)
}

/// Networks below `first`, beginning with one that is an installation's own as far as chance allows.
fn candidates(first: u8, seed: u8) -> impl Iterator<Item = Ipv4Net> {
    let second = move |offset: u8| FIRST_CANDIDATE + (seed % CANDIDATES + offset) % CANDIDATES;
    (0..CANDIDATES).map(move |offset| Ipv4Net::new_assert(Ipv4Addr::new(first, second(offset), 0, 0), 16))
}

fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// Networks that the machine has addresses in or routes to, but for those of the interface `ours`.
fn taken(ours: &str) -> io::Result<Vec<Ipv4Net>> {
    let output = Command::new("ip")
        .args(["-4", "route", "show", "table", "all"])
        .env("PATH", SEARCH_PATH)
        .stdin(Stdio::null())
        .output()?;
    Ok(parse_routes(&String::from_utf8_lossy(&output.stdout), ours))
}

fn parse_routes(routes: &str, ours: &str) -> Vec<Ipv4Net> {
    let others = routes.lines().filter(|line| !line.split(' ').any(|word| word == ours));
    let network = |word: &str| word.parse().ok().or_else(|| Some(Ipv4Net::from(word.parse::<Ipv4Addr>().ok()?)));
    others.filter_map(|line| line.split(' ').take(2).find_map(network)).collect()
}

/// Runs commands of ip(8), one a line.
fn ip(commands: &str) -> io::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .env("PATH", SEARCH_PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run ip (Debian package: iproute2): {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_out_once_and_end() {
        let pool = Pool("10.1.2.0/29".parse().expect("a network"));
        let mut taken = BTreeSet::new();
        while let Some(address) = pool.free(&taken) {
            taken.insert(address);
        }
        let expected: BTreeSet<Ipv4Addr> = (2..7).map(|last| Ipv4Addr::new(10, 1, 2, last)).collect();
        assert_eq!(taken, expected, "without the machine's, the network's and the last");
        taken.remove(&Ipv4Addr::new(10, 1, 2, 4));
        assert_eq!(pool.free(&taken), Some(Ipv4Addr::new(10, 1, 2, 4)));
    }

    #[test]
    fn loopback_networks_are_many_and_none_is_the_machine_s_own() {
        let all: BTreeSet<Ipv4Net> = (0..=u16::MAX).map(|seed| Pool::of_loopback(seed).0).collect();
        assert_eq!(all.len(), 8192);
        let own = Ipv4Addr::LOCALHOST;
        assert!(all.iter().all(|network| network.addr().is_loopback() && !network.contains(&own)));
    }

    #[test]
    fn networks_that_the_machine_uses_are_known() {
        let routes = "default via 192.168.1.1 dev eth0\n10.70.0.0/16 dev docker0\n10.71.0.0/16 dev edd-1\n\
                      local 10.72.3.4 dev wg0 table local\nbroadcast 10.73.255.255 dev x\n";
        let taken = parse_routes(routes, "edd-1");
        let free = |text: &str| !taken.iter().any(|other| overlap(other, &text.parse().expect("a network")));
        assert!(free("10.71.0.0/16"), "our own");
        for network in ["10.70.0.0/16", "10.70.4.0/24", "10.72.0.0/16", "10.73.0.0/16"] {
            assert!(!free(network), "{network}");
        }
    }

    #[test]
    fn every_candidate_is_tried_once() {
        for seed in [0, 77, 255] {
            let all: BTreeSet<Ipv4Net> = candidates(10, seed).collect();
            assert_eq!(all.len(), usize::from(CANDIDATES));
            assert!(all.iter().all(|network| (64..192).contains(&network.network().octets()[1])));
        }
    }
}
